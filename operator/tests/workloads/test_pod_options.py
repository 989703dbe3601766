"""The user's options of a component's pods: what reaches the pod template, and what of Flotilla's stays."""

from collections.abc import Iterator
from typing import Any

import pytest

from flotilla_operator.api.agent_fleet import Gateway, ToolExecutors, WorkerPodOptions, Workers
from flotilla_operator.api.base import ApiModel
from flotilla_operator.api.fleet_queue import Redis
from flotilla_operator.api.model_replica_set import Router
from flotilla_operator.api.pods import (
    OUR_LABELS,
    PREFIX_OF_OUR_VARIABLES,
    PodOptions,
    PodOptionsWithResources,
    PodRules,
)
from flotilla_operator.api.vector_index import Build, Milvus, Retriever
from flotilla_operator.workloads.pod_options import template_with
from tests.builders import agent_fleet as fleets
from tests.builders import model_replica_set as sets
from tests.builders import vector_index as indexes
from tests.builders.pod_options import pod_options
from tests.workloads import test_agent_fleet, test_model_replica_set, test_vector_index

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
TERM = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"our": "build"}}}
THEIRS = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"their": "pod"}}}
ZONES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}
TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"ours": "1"}, "annotations": {"hash": "1"}},
    "spec": {
        "affinity": {"podAffinity": {REQUIRED: [TERM]}},
        "containers": [
            {
                "name": "main",
                "env": [{"name": "OURS", "value": "1"}],
                "resources": {"requests": {"cpu": "1"}},
            },
            {"name": "beside"},
        ],
    },
}


def with_these(**options: Any) -> dict[str, Any]:
    return template_with(TEMPLATE, PodOptionsWithResources.model_validate(options))


def at(template: dict[str, Any], path: str) -> Any:
    here: Any = template
    for part in path.split("."):
        here = here[int(part)] if part.isdigit() else here.get(part)
    return here


@pytest.mark.holds("pods.md", "Resources replace Flotilla's, affinity is added")
@pytest.mark.parametrize(
    ("options", "path", "expected"),
    [
        pytest.param({"nodeSelector": {"a": "b"}}, "spec.nodeSelector", {"a": "b"}, id="nodeSelector"),
        pytest.param(
            {"tolerations": [{"operator": "Exists"}]},
            "spec.tolerations",
            [{"operator": "Exists"}],
            id="tolerations",
        ),
        pytest.param(
            {"affinity": {"nodeAffinity": {REQUIRED: ZONES}}},
            "spec.affinity",
            {"nodeAffinity": {REQUIRED: ZONES}, "podAffinity": {REQUIRED: [TERM]}},
            id="affinity of another kind than ours",
        ),
        pytest.param(
            {"affinity": {"podAffinity": {REQUIRED: [THEIRS]}}},
            "spec.affinity",
            {"podAffinity": {REQUIRED: [TERM, THEIRS]}},
            id="affinity of the same kind: both hold",
        ),
        pytest.param(
            {"affinity": {"podAntiAffinity": {}}},
            "spec.affinity",
            {"podAffinity": {REQUIRED: [TERM]}},
            id="an empty affinity",
        ),
        pytest.param(
            {"resources": {"limits": {"memory": "1Gi"}}},
            "spec.containers.0.resources",
            {"requests": {}, "limits": {"memory": "1Gi"}},
            id="resources replace ours as a whole",
        ),
        pytest.param(
            {"resources": {}}, "spec.containers.0.resources", {"requests": {"cpu": "1"}}, id="no resources"
        ),
        pytest.param(
            {"env": [{"name": "A", "value": "x"}, {"name": "OURS", "value": "2"}]},
            "spec.containers.0.env",
            [{"name": "OURS", "value": "1"}, {"name": "A", "value": "x"}],
            id="variables, and ours win",
        ),
        pytest.param({"env": [{"name": "A"}]}, "spec.containers.1.env", None, id="no other container's"),
        pytest.param({"priorityClassName": "p"}, "spec.priorityClassName", "p", id="priorityClassName"),
        pytest.param({"runtimeClassName": "r"}, "spec.runtimeClassName", "r", id="runtimeClassName"),
        pytest.param(
            {"labels": {"a": "b", "ours": "2"}},
            "metadata.labels",
            {"a": "b", "ours": "1"},
            id="labels, and ours win",
        ),
        pytest.param(
            {"annotations": {"a": "b", "hash": "2"}},
            "metadata.annotations",
            {"a": "b", "hash": "1"},
            id="annotations, and ours win",
        ),
    ],
)
def test_an_option_reaches_the_template_and_nothing_else_changes(
    options: dict[str, Any], path: str, expected: Any
) -> None:
    changed = with_these(**options)
    assert at(changed, path) == expected
    part = path.split(".")[1]
    for half in ("metadata", "spec"):
        others = {key: value for key, value in changed[half].items() if key != part}
        assert others == {key: value for key, value in TEMPLATE[half].items() if key != part}


def test_without_options_the_template_is_the_same() -> None:
    assert with_these() == TEMPLATE
    assert template_with(TEMPLATE, PodOptions()) == TEMPLATE


def test_a_variable_may_come_from_somewhere_else() -> None:
    source = {"secretKeyRef": {"name": "proxy", "key": "url"}}
    changed = with_these(env=[{"name": "PROXY", "valueFrom": source}])
    assert changed["spec"]["containers"][0]["env"][1] == {"name": "PROXY", "valueFrom": source}


COMPONENTS: dict[str, type[ApiModel]] = {
    "router": Router,
    "milvus": Milvus,
    "retriever": Retriever,
    "plan": Build,
    "shards": Build,
    "promote": Build,
    "redis": Redis,
    "gateway": Gateway,
    "worker": Workers,
    "executor": ToolExecutors,
}


def refused_variables(component: str) -> tuple[str, ...]:
    marks = COMPONENTS[component].model_fields["pod"].metadata
    (rules,) = [mark for mark in marks if isinstance(mark, PodRules)]
    return rules.variables


def templates(*objects: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The components that are rendered, with their pod templates."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            step = labels.get("flotilla.dev/step", labels["app.kubernetes.io/component"])
            yield step, one["spec"]["template"]


def with_options() -> dict[str, dict[str, Any]]:
    return dict(
        templates(
            *test_model_replica_set.rendered(sets.full_featured_objects()[-1], ()),
            *test_agent_fleet.rendered(fleets.full_featured_objects()[-1]),
            *test_vector_index.rendered(indexes.full_featured_objects()[-1], test_vector_index.embedder()),
        )
    )


def without_options() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of objects for which Flotilla sets all of its variables."""
    embedder = test_vector_index.embedder(
        model=test_vector_index.ON_HUB,
        engine={"env": [{"name": "HF_ENDPOINT", "value": "https://hub.example"}]},
        router={"authSecretRef": {"name": "keys"}},
    )
    for manifest in indexes.full_featured_objects()[:-1]:
        yield from templates(*test_vector_index.rendered(manifest, embedder))
    for manifest in fleets.full_featured_objects()[:-1]:
        yield from templates(*test_agent_fleet.rendered(manifest))
    yield from templates(*test_model_replica_set.rendered(sets.full_featured_objects()[0], ("gpu-7",)))


@pytest.mark.holds("pods.md", "Every component's pods carry every option")
def test_every_component_carries_every_option() -> None:
    found = with_options()
    assert set(found) == set(COMPONENTS)
    for component, template in found.items():
        wanted = pod_options()
        spec, first = template["spec"], template["spec"]["containers"][0]
        for name in ("nodeSelector", "tolerations", "priorityClassName", "runtimeClassName"):
            assert spec[name] == wanted[name], (component, name)
        for kind, rules in wanted["affinity"].items():
            for rule, terms in rules.items():
                held = spec["affinity"][kind][rule]
                assert held == terms or held[1:] == terms, (component, kind, rule)
        assert first["env"][-2:] == wanted["env"], component
        for marks in ("labels", "annotations"):
            assert wanted[marks].items() <= template["metadata"][marks].items(), (component, marks)
        if "resources" in COMPONENTS[component].model_fields:
            assert COMPONENTS[component].model_fields["pod"].annotation in (PodOptions, WorkerPodOptions)
        else:
            assert first["resources"] == wanted["resources"], component


@pytest.mark.holds("pods.md", "What Flotilla sets is refused")
def test_every_variable_that_flotilla_sets_is_refused_in_the_options() -> None:
    seen: dict[str, set[str]] = {}
    for component, template in without_options():
        ours = {variable["name"] for variable in template["spec"]["containers"][0].get("env", ())}
        others = {name for name in ours if not name.startswith(PREFIX_OF_OUR_VARIABLES)}
        assert others <= set(refused_variables(component)), component
        seen.setdefault(component, set()).update(others)
    assert seen["plan"] == set(refused_variables("plan"))
    assert seen["redis"] == {"REDISCLI_AUTH"}
    assert seen["router"] == {"VLLM_API_KEY"}


@pytest.mark.holds("pods.md", "What Flotilla sets is refused")
def test_every_label_that_flotilla_sets_is_refused_in_the_options() -> None:
    for component, template in without_options():
        ours = set(template["metadata"]["labels"])
        assert {name for name in ours if not name.startswith("flotilla.dev/")} <= set(OUR_LABELS), component
