"""Objects that an event wakes: owners, grandparents by label, referrers, and whoever a controller adds."""

from collections.abc import Iterable, Sequence
from typing import Any

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.reflector import Change
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    MODEL_REPLICA_SETS,
    NODES,
    PODS,
    SERVICES,
    Key,
    Manifest,
    Reference,
    Resource,
)

SET = Key("ModelReplicaSet", "default", "m")
FLEET = Key("AgentFleet", "default", "f")


class Stub:
    """A controller that only answers the questions of `Wakes`."""

    def __init__(self, resource: Resource, watches: Sequence[Resource] = ()) -> None:
        self.resource = resource
        self.watches = watches

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        if manifest["spec"].get("broken"):
            raise KeyError("model")
        if name := manifest["spec"].get("model"):
            yield Reference(MODEL_REPLICA_SETS, manifest["metadata"]["namespace"], name)

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        return [SET] if resource == NODES else []


def wakes() -> tuple[Wakes, list[Key]]:
    woken: list[Key] = []
    controllers: list[Any] = [Stub(MODEL_REPLICA_SETS, (PODS, NODES)), Stub(AGENT_FLEETS)]
    return Wakes(controllers, Caches(), woken.append), woken


def ours(kind: str, name: str, **spec: Any) -> Manifest:
    return {"kind": kind, "metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec}


def child(**metadata: Any) -> Manifest:
    return {"metadata": {"name": "c", "namespace": "default", **metadata}}


OWNED = {
    "ownerReferences": [
        {"apiVersion": "flotilla.dev/v1alpha1", "kind": "ModelReplicaSet", "name": "m", "controller": True}
    ]
}


def test_an_object_wakes_itself_and_its_owner() -> None:
    waker, woken = wakes()
    waker.changed(MODEL_REPLICA_SETS, ours("ModelReplicaSet", "m"), Change.PUT)
    waker.changed(PODS, child(**OWNED), Change.REMOVED)
    assert woken == [SET, SET]


def test_a_grandchild_wakes_by_its_labels() -> None:
    waker, woken = wakes()
    labels = {"flotilla.dev/kind": "AgentFleet", "flotilla.dev/owner": "f"}
    waker.changed(PODS, child(labels=labels), Change.PUT)
    assert woken == [FLEET]


def test_a_strangers_object_wakes_nobody() -> None:
    waker, woken = wakes()
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "m", "controller": True}
    waker.changed(PODS, child(ownerReferences=[owner]), Change.PUT)
    labels = {"flotilla.dev/kind": "Elsewhere", "flotilla.dev/owner": "f"}
    waker.changed(PODS, child(labels=labels), Change.PUT)
    assert woken == []


def test_a_model_wakes_the_fleet_that_names_it_until_it_no_longer_does() -> None:
    waker, woken = wakes()
    waker.changed(AGENT_FLEETS, ours("AgentFleet", "f", model="m"), Change.PUT)
    woken.clear()
    waker.changed(MODEL_REPLICA_SETS, ours("ModelReplicaSet", "m"), Change.PUT)
    assert sorted(woken) == [FLEET, SET]
    waker.changed(AGENT_FLEETS, ours("AgentFleet", "f", model="other"), Change.PUT)
    woken.clear()
    waker.changed(MODEL_REPLICA_SETS, ours("ModelReplicaSet", "m"), Change.PUT)
    assert woken == [SET]


def test_a_deleted_fleet_is_woken_once_and_forgotten() -> None:
    waker, woken = wakes()
    fleet = ours("AgentFleet", "f", model="m")
    waker.changed(AGENT_FLEETS, fleet, Change.PUT)
    waker.changed(AGENT_FLEETS, fleet, Change.REMOVED)
    assert woken == [FLEET, FLEET]
    waker.changed(MODEL_REPLICA_SETS, ours("ModelReplicaSet", "m"), Change.REMOVED)
    assert woken[2:] == [SET]


def test_what_stands_in_the_way_wakes_when_it_goes() -> None:
    waker, woken = wakes()
    waker.blocked_by(SET, [Reference(SERVICES, "default", "c")])
    waker.changed(SERVICES, child(), Change.REMOVED)
    assert woken == [SET]
    waker.blocked_by(SET, [])
    waker.changed(SERVICES, child(), Change.PUT)
    assert woken == [SET]


def test_a_controller_can_add_keys() -> None:
    waker, woken = wakes()
    waker.changed(NODES, {"metadata": {"name": "n"}}, Change.PUT)
    waker.changed(CONFIG_MAPS, child(), Change.PUT)
    assert woken == [SET]


def test_an_object_that_a_controller_cannot_read_still_wakes_itself() -> None:
    waker, woken = wakes()
    waker.changed(AGENT_FLEETS, ours("AgentFleet", "f", broken=True), Change.PUT)
    assert woken == [FLEET]
