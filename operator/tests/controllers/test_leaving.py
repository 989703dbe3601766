"""A namespace that is being deleted: who is woken, and which pods lose their drain."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.reflector import Change
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.leaving import namespace_leaves, without_a_drain
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.resources import NAMESPACES, Key, Manifest

KEY = Key("AgentFleet", "team", "assistant")
NOW = datetime(2026, 5, 1, tzinfo=UTC).isoformat()


def namespace(name: str, **metadata: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **metadata}}


def fleet(name: str, *, where: str = "team") -> Manifest:
    metadata = {"name": name, "namespace": where, "uid": f"{where}-{name}"}
    return {"apiVersion": "flotilla.dev/v1alpha1", "kind": "AgentFleet", "metadata": metadata, "spec": {}}


def pod(name: str, *, where: str = "team", owner: str = "assistant", **metadata: Any) -> Manifest:
    labels = {"flotilla.dev/kind": "AgentFleet", "flotilla.dev/owner": owner}
    body = {"name": name, "namespace": where, "labels": labels, "uid": f"{where}-{name}", **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": body, "spec": {}}


@pytest.mark.parametrize(
    ("held", "leaves"),
    [
        pytest.param([], False, id="not seen"),
        pytest.param([namespace("team")], False, id="it stays"),
        pytest.param([namespace("team", deletionTimestamp=NOW)], True, id="it goes"),
    ],
)
def test_when_a_namespace_leaves(held: list[Manifest], *, leaves: bool) -> None:
    assert namespace_leaves(Caches.of(*held), "team") is leaves


@pytest.mark.holds(
    "architecture.md", "In a namespace that is being deleted pods go without a drain and nothing is made"
)
def test_only_the_objects_own_pods_go_and_each_is_told_once() -> None:
    caches = Caches.of(
        pod("runs"),
        pod("child", owner="", ownerReferences=[{"uid": "team-assistant", "controller": True}]),
        pod("drains", deletionTimestamp=NOW, deletionGracePeriodSeconds=330),
        pod("told", deletionTimestamp=NOW, deletionGracePeriodSeconds=1),
        pod("anothers", owner="other"),
        pod("elsewhere", where="home"),
    )
    deletes = without_a_drain(caches, KEY, "team-assistant")
    assert {(one.ref.name, one.uid, one.grace_period_seconds) for one in deletes} == {
        ("runs", "team-runs", 1),
        ("child", "team-child", 1),
        ("drains", "team-drains", 1),
    }


def test_its_end_wakes_what_is_in_it_and_nothing_else() -> None:
    another_operators = {**fleet("set"), "kind": "ModelReplicaSet"}
    caches = Caches.of(fleet("one"), fleet("two"), fleet("far", where="home"), another_operators)
    woken: list[Key] = []
    wakes = Wakes([AgentFleetController()], caches, woken.append)
    wakes.changed(NAMESPACES, namespace("team"), Change.PUT)
    assert woken == []
    wakes.changed(NAMESPACES, namespace("team", deletionTimestamp=NOW), Change.PUT)
    assert sorted(woken) == [Key("AgentFleet", "team", "one"), Key("AgentFleet", "team", "two")]
