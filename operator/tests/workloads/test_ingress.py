"""Connections that pods allow: every pod has a policy, and what is open to everybody is listed here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import agent_fleet as fleets
from tests.builders import model_replica_set as sets
from tests.builders import vector_index as indexes
from tests.builders.model_replica_set import IMAGES
from tests.workloads import test_agent_fleet, test_model_replica_set, test_vector_index

GPU, *_ = sets.full_featured_objects()
MANAGED, *_ = fleets.full_featured_objects()
ON_LITE, *_ = indexes.full_featured_objects()
PEERS = ({"namespaceSelector": {"matchLabels": {"team": "monitoring"}}},)
WATCHED = replace(IMAGES, metrics_peers=PEERS)

Manifests = Sequence[Mapping[str, Any]]


def all_kinds(images: Any) -> Manifests:
    return [
        *test_model_replica_set.rendered(GPU, ("a",), images=images),
        *test_agent_fleet.rendered(MANAGED, images=images),
        *test_vector_index.rendered(ON_LITE, test_vector_index.embedder(), images=images),
    ]


def policies(manifests: Manifests) -> list[Mapping[str, Any]]:
    return [one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"]


def pods(manifests: Manifests) -> Iterable[Mapping[str, str]]:
    """The labels of every pod."""
    for one in manifests:
        if one["kind"] == "Pod":
            yield one["metadata"]["labels"]
        elif "template" in one.get("spec", {}):
            yield one["spec"]["template"]["metadata"]["labels"]


def policies_of(component: str, manifests: Manifests) -> list[Mapping[str, Any]]:
    key = "app.kubernetes.io/component"
    return [one for one in policies(manifests) if one["podSelector"]["matchLabels"][key] == component]


def open_ports(component: str, manifests: Manifests, *peers: Mapping[str, Any]) -> set[int]:
    """The ports that are open to these peers, or to everybody."""
    return {
        port["port"]
        for policy in policies_of(component, manifests)
        for rule in policy["ingress"]
        if rule.get("from", []) == list(peers)
        for port in rule["ports"]
    }


@pytest.mark.holds(
    "security.md",
    "Every pod has a policy; what is open to everybody and to those who scrape is as the page says",
)
@pytest.mark.parametrize("images", [IMAGES, WATCHED])
def test_every_pod_has_a_policy_for_what_comes_in(images: Any) -> None:
    manifests = all_kinds(images)
    selectors = [one["podSelector"]["matchLabels"] for one in policies(manifests)]
    labels = list(pods(manifests))
    assert len(labels) > 8
    assert [one for one in labels if not any(each.items() <= one.items() for each in selectors)] == []
    assert all("Ingress" in one["policyTypes"] for one in policies(manifests))


@pytest.mark.holds(
    "security.md",
    "Every pod has a policy; what is open to everybody and to those who scrape is as the page says",
)
@pytest.mark.parametrize(
    ("component", "public", "metrics"),
    [
        pytest.param("engine", set(), {8000}, id="an engine"),
        pytest.param("router", {8000}, {8404, 8405}, id="a router"),
        pytest.param("gateway", {8080}, {9090}, id="a gateway"),
        pytest.param("worker", set(), {9090}, id="a worker"),
        pytest.param("executor", set(), {9090}, id="a tool executor"),
        pytest.param("retriever", {8080}, set(), id="a retriever, whose metrics are beside its searches"),
        pytest.param("build", set(), set(), id="a build"),
        pytest.param("milvus", set(), set(), id="Milvus Lite"),
        pytest.param("redis", set(), set(), id="Redis"),
    ],
)
def test_what_is_open_to_everybody_and_what_to_those_who_scrape(
    component: str, public: set[int], metrics: set[int]
) -> None:
    watched = all_kinds(WATCHED)
    assert open_ports(component, watched) == public
    assert open_ports(component, watched, *PEERS) == metrics
    by_default = open_ports(component, all_kinds(IMAGES))
    assert by_default == (public if component == "engine" else public | metrics)


@pytest.mark.holds("security.md", "Redis and Milvus Lite may open no connection")
@pytest.mark.parametrize("component", ["redis", "milvus"])
def test_redis_and_milvus_lite_open_no_connection(component: str) -> None:
    (policy,) = policies_of(component, all_kinds(IMAGES))
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
