"""Settled and waiting objects cost next to nothing; room that becomes free wakes those who get it."""

from collections.abc import Callable

import pytest

from flotilla_operator.objects.resources import AGENT_FLEETS, VECTOR_INDEXES
from tests.builders.api_objects import smallest
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes

WHOLE_NODE = {"replicas": 1, "parallelism": {"tensor": 8}, "drain": {"deadlineSeconds": 1}}
MINUTES = 10


def placed(scene: Scene, names: list[str]) -> list[str]:
    return [name for name in names if scene.says("Placed", "True", name=name)]


def refused(scene: Scene, names: list[str]) -> list[str]:
    return [name for name in names if scene.says("Placed", "False", "InsufficientCapacity", name=name)]


@pytest.mark.holds("architecture.md", "No object is reconciled because time passes")
async def test_objects_at_rest_are_looked_at_once_a_minute_at_most(scene: Scene) -> None:
    """Half of them wait: for room, for a model and for a claim."""
    for name in "ab":
        scene.node(name, gpus=8)
    sets = [f"set-{number}" for number in range(6)]
    for name in sets:
        scene.create(name, **WHOLE_NODE)
    scene.create("nightly", replicas=1, autoscaling={"minReplicas": 0, "maxReplicas": 1})
    for number in range(3):
        scene.cluster.create(AGENT_FLEETS, smallest("AgentFleet", name=f"fleet-{number}"))
        scene.cluster.create(VECTOR_INDEXES, smallest("VectorIndex", name=f"index-{number}"))
    await scene.until(lambda: len(placed(scene, sets)) == 2 and len(refused(scene, sets)) == 4)
    await scene.pass_time(180)

    before = scene.operator.reconciles
    await scene.pass_time(60 * MINUTES)
    objects = len(sets) + 1 + 3 + 3
    assert (scene.operator.reconciles - before) / objects / MINUTES <= 1


@pytest.mark.holds("architecture.md", "A new round wakes the sets of which it says something else")
async def test_room_that_becomes_free_wakes_the_one_who_gets_it(scene: Scene) -> None:
    """The others are told by the round that they still wait, and are not looked at."""
    for name in "ab":
        scene.node(name, gpus=8)
    sets = [f"set-{number:02}" for number in range(40)]
    for name in sets:
        scene.create(name, **WHOLE_NODE)
    await scene.until(lambda: len(placed(scene, sets)) == 2 and len(refused(scene, sets)) == 38)
    await scene.pass_time(60)
    assert placed(scene, sets) == sets[:2]

    scene.delete("set-00")
    sets = sets[1:]
    await scene.until(lambda: scene.engines("set-00") == [])
    freed, before = scene.loop.time(), scene.operator.reconciles
    await scene.until(lambda: scene.engines("set-02"))
    assert scene.loop.time() - freed <= 3
    await scene.until_ready("set-02")
    assert placed(scene, sets) == ["set-01", "set-02"]
    looks_by_time = 40 * (scene.loop.time() - freed) / 60
    assert scene.operator.reconciles - before <= 20 + looks_by_time


async def test_room_for_one_that_is_not_first_in_line_wakes_that_one(scene: Scene) -> None:
    """The first make the round, in which they find no room. It names the one that does."""
    scene.node("a", gpus=8)
    scene.foreign_pod("training", "a", gpus=4)
    scene.foreign_pod("batch", "a", gpus=4)
    sets = [f"set-{number}" for number in range(5)]
    for name in sets:
        scene.create(name, **WHOLE_NODE)
    await scene.until(lambda: len(refused(scene, sets)) == 5)
    scene.create("small", replicas=1, parallelism={"tensor": 4})
    await scene.until(lambda: refused(scene, ["small"]))
    await scene.pass_time(60)

    scene.delete_pod("batch")
    freed = scene.loop.time()
    await scene.until(lambda: scene.engines("small"))
    assert scene.loop.time() - freed <= 3
    assert len(refused(scene, sets)) == 5


def scale_to_zero(scene: Scene) -> None:
    scene.change("old", replicas=0)


def pause(scene: Scene) -> None:
    scene.change("old", paused=True)


def name_a_class_that_is_missing(scene: Scene) -> None:
    scene.change("old", placement={"priorityClassName": "missing"})


def delete(scene: Scene) -> None:
    scene.delete("old")


@pytest.mark.holds(
    "placement.md",
    "Room that a set gives up is used at once, and a set that cannot be reconciled holds none for ever",
)
@pytest.mark.parametrize("withdraw", [scale_to_zero, pause, name_a_class_that_is_missing, delete])
async def test_room_kept_for_a_set_that_no_longer_wants_it_is_used_at_once(
    scene: Scene, withdraw: Callable[[Scene], None]
) -> None:
    scene.node("a", gpus=8)
    scene.foreign_pod("training", "a", gpus=4)
    scene.create("old", **WHOLE_NODE)
    await scene.until(lambda: refused(scene, ["old"]))
    await scene.pass_time(scene.config.placement.aging_seconds + 100)
    scene.create("small", replicas=1, parallelism={"tensor": 4})
    await scene.until(lambda: refused(scene, ["small"]))
    await scene.pass_time(60)
    assert scene.engines("small") == [], "the node is kept for the one that has waited long"

    withdraw(scene)
    withdrawn = scene.loop.time()
    await scene.until(lambda: scene.engines("small"))
    assert scene.loop.time() - withdrawn <= 3


@pytest.mark.holds(
    "placement.md",
    "Room that a set gives up is used at once, and a set that cannot be reconciled holds none for ever",
)
async def test_a_set_that_cannot_be_reconciled_does_not_hold_room_for_ever(scene: Scene) -> None:
    """Its Secret may not be read, so no reconcile of its own can use the room."""
    scene.node("a", gpus=8)
    scene.api.fail(lambda request: request.path.endswith("/secrets/unreadable"), 403, times=10**6)
    scene.create("stuck", router={"replicas": 1, "authSecretRef": {"name": "unreadable"}}, **WHOLE_NODE)
    await scene.pass_time(10)
    scene.create("waits", **WHOLE_NODE)
    await scene.until(lambda: scene.engines("waits"), within_seconds=300)
    assert scene.engines("stuck") == []
