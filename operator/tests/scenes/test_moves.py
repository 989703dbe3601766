"""Groups that leave a node or do not get to it: drains, cordons, evictions, time-outs."""

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from flotilla_operator.objects.resources import POD_DISRUPTION_BUDGETS
from flotilla_operator.placement.manifests import pinned_node
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes

TOO_MANY_REQUESTS = 429


async def test_a_replica_leaves_when_no_request_is_left_for_it(scene: Scene) -> None:
    scene.node("a")
    scene.create(router={"replicas": 2}, drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before = scene.uids()
    scene.routers.of("llama").busy = True
    scene.change(replicas=1)
    leaving = await scene.until(scene.draining)
    await scene.pass_time(60)
    assert (scene.draining(), scene.uids()) == (leaving, before), "it has requests"
    scene.routers.of("llama").busy = False
    await scene.until(lambda: scene.uids() == before - leaving)
    (note,) = await scene.until_told("GroupRemoved")
    assert "no request is left for it in 2 routers or in its engine" in note


async def test_a_replica_that_stays_busy_leaves_at_the_deadline(scene: Scene) -> None:
    scene.node("a")
    scene.create(drain={"deadlineSeconds": 120})
    await scene.until_ready()
    scene.routers.of("llama").busy = True
    scene.change(replicas=1)
    await scene.until(scene.draining)
    begun = scene.loop.time()
    await scene.until(lambda: len(scene.pods()) == 1)
    assert 119 <= scene.loop.time() - begun <= 125


@pytest.mark.holds(
    "draining.md",
    "A replica leaves by a drain when `replicas` falls, at an update, on a cordoned node, and at a "
    "rebalancing",
)
@pytest.mark.holds(
    "draining.md", "A cordoned node's replicas move one at a time, with the replacement ready first"
)
async def test_a_cordoned_node_is_emptied_one_group_at_a_time(scene: Scene) -> None:
    scene.node("a")
    scene.create()
    await scene.until_ready()
    scene.node("b")
    with scene.throughout(scene.two_serve):
        scene.cordon("a")
        await scene.until(lambda: scene.is_ready() and scene.nodes_of() == ["b", "b"])


@pytest.mark.holds(
    "draining.md", "A cordoned node's replicas move one at a time, with the replacement ready first"
)
async def test_uncordoning_ends_the_move(scene: Scene) -> None:
    scene.node("a")
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    scene.node("b", mute=True)
    with scene.throughout(scene.two_serve):
        scene.cordon("a")
        await scene.until(lambda: "b" in scene.nodes_of())
        await scene.until_says("Progressing", "True", "EmptyingNodes")
        assert not scene.draining(), "the replacement comes first"
        scene.cordon("a", unschedulable=False)
        await scene.until(lambda: scene.uids() == before)


@pytest.mark.holds("draining.md", "`kubectl drain` evicts through a disruption budget, one group at a time")
async def test_evictions_are_let_through_one_group_at_a_time(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    before = scene.uids()

    def one_may_go() -> bool:
        status = scene.the(POD_DISRUPTION_BUDGETS, "llama-engine").get("status") or {}
        return len(scene.pods()) == 2 and status.get("disruptionsAllowed") == 1

    await scene.until(one_may_go)
    one, other = scene.pods()
    assert scene.evict(one) < TOO_MANY_REQUESTS
    assert scene.evict(other) == TOO_MANY_REQUESTS
    await scene.until(lambda: one_may_go() and scene.is_ready())
    assert scene.evict(other) < TOO_MANY_REQUESTS
    await scene.until(lambda: one_may_go() and not scene.uids() & before)


@pytest.mark.holds(
    "groups.md",
    "A group that is not bound in 30 s is deleted whole and placed anew without the node that failed",
)
async def test_a_pod_that_takes_the_node_first_sends_the_group_elsewhere_at_the_bind_time_out(
    scene: Scene,
) -> None:
    for name in "ab":
        scene.node(name, gpus=4)
    scene.scheduler.pause()
    scene.create(replicas=1)
    (pod,) = await scene.until(scene.pods)
    taken = pinned_node(pod["spec"])
    assert taken is not None
    scene.foreign_pod("training", taken, gpus=4)
    scene.scheduler.go_on()
    await scene.until_ready()
    assert {taken, *scene.nodes_of()} == {"a", "b"}
    assert pod["metadata"]["uid"] not in scene.uids()
    (note,) = await scene.until_told("GroupReleased")
    assert f"not bound to {taken} within 30 s" in note


@pytest.mark.holds(
    "draining.md",
    "A drain is called off when replicas are wanted again; the replica with the most conversations "
    "comes back",
)
async def test_uncordoning_brings_back_what_drains_while_its_replacement_is_not_ready(scene: Scene) -> None:
    scene.node("a")
    scene.create(replicas=1, update={"maxUnavailable": 1}, drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before = scene.uids()
    scene.routers.of("llama").busy = True
    scene.node("b", mute=True)
    scene.cordon("a")
    await scene.until(lambda: scene.draining() == before and "b" in scene.nodes_of())
    scene.cordon("a", unschedulable=False)
    await scene.until(lambda: scene.uids() == before and not scene.draining())
    await scene.until_ready()


def budget(scene: Scene) -> tuple[int, int]:
    """Pods that evictions must leave, and how many may be evicted now."""
    found = scene.hands.get(POD_DISRUPTION_BUDGETS, scene.namespace, "llama-engine") or {"spec": {}}
    return found["spec"].get("minAvailable", 0), (found.get("status") or {}).get("disruptionsAllowed", 0)


@pytest.mark.holds(
    "draining.md", "A drain gets through on a full cluster, since replicas that wait for room do not count"
)
async def test_evictions_are_let_through_while_replicas_wait_for_room(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create(replicas=10)
    await scene.until(lambda: budget(scene) == (3, 1))
    scene.cordon("a")
    one, other = (pod for pod in scene.pods() if pod["spec"]["nodeName"] == "a")
    assert scene.evict(one) < TOO_MANY_REQUESTS
    await scene.until(lambda: len(scene.pods()) == 3 and budget(scene) == (2, 1))
    assert scene.evict(other) < TOO_MANY_REQUESTS
    await scene.until(lambda: "a" not in scene.nodes_of() and budget(scene) == (1, 1))


@pytest.mark.holds("draining.md", "`kubectl drain` evicts through a disruption budget, one group at a time")
async def test_an_eviction_takes_a_group_of_two_stages_together(scene: Scene) -> None:
    for name in "abcd":
        scene.node(name, gpus=4)
    scene.create(parallelism={"tensor": 4, "pipeline": 2})
    await scene.until_ready()
    await scene.until(lambda: budget(scene) == (3, 1))
    one, other = scene.groups().values()
    assert scene.evict(one[1]) < TOO_MANY_REQUESTS
    assert [scene.evict(pod) for pod in other] == [TOO_MANY_REQUESTS, TOO_MANY_REQUESTS]
    gone, kept = ({pod["metadata"]["uid"] for pod in pods} for pods in (one, other))
    await scene.until(lambda: len(scene.uids() - gone) == 4 and budget(scene) == (3, 1))
    assert kept < scene.uids()
    (note,) = await scene.until_told("GroupEvicted")
    assert one[1]["metadata"]["name"] in note


@pytest.mark.parametrize(
    ("update", "least"),
    [
        pytest.param({"maxSurge": 1, "maxUnavailable": 0}, 2, id="the replacement comes first"),
        pytest.param({"maxSurge": 0, "maxUnavailable": 1}, 1, id="without a surge the replica drains first"),
    ],
)
async def test_a_rebalancing_moves_one_group_and_frees_a_node(
    scene: Scene, update: dict[str, int], least: int
) -> None:
    before = await two_halves(scene, update)
    with scene.throughout(lambda: scene.serving() >= least):
        scene.annotate(ANNOTATION_REBALANCE, "apply:1")
        await scene.until_told("Rebalanced")
    assert len(scene.uids() & before) == 1, "one group moved, the other did not"
    assert len(set(scene.nodes_of())) == 1
    assert scene.status()["placement"]["score"] == 1.0
    assert scene.status()["placement"]["rebalance"]["phase"] == "Done"
    assert {"GroupMoves", "GroupDraining", "GroupRemoved"} <= set(scene.told())


async def test_a_move_whose_room_is_taken_is_called_off_and_nothing_is_doubled(scene: Scene) -> None:
    before = await two_halves(scene, {"maxSurge": 0, "maxUnavailable": 1})
    scene.routers.of("llama").busy = True
    with scene.throughout(lambda: len(scene.pods()) <= 2):
        scene.annotate(ANNOTATION_REBALANCE, "apply:1")
        await scene.until_told("GroupMoves")
        (move,) = scene.status()["placement"]["moves"]
        scene.foreign_pod("training", move["toNodes"][0], gpus=4)
        await scene.until_told("RebalanceStopped")
        scene.routers.of("llama").busy = False
        await scene.pass_time(600)
    await scene.until_ready()
    assert len(scene.uids() & before) >= 1
    assert scene.status()["placement"]["rebalance"]["phase"] == "Stopped"


async def two_halves(scene: Scene, update: dict[str, int]) -> set[str]:
    """Two replicas of half a node each on a node each, and room for one to move; returns their pods."""
    scene.node("a")
    scene.node("b")
    scene.foreign_pod("training-before", "a", gpus=4)
    scene.create(update=update, drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    assert sorted(map(str, scene.nodes_of())) == ["a", "b"]
    scene.delete_pod("training-before")
    await scene.pass_time(30)
    return scene.uids()
