"""Groups that leave a node or do not get to it: drains, cordons, evictions, time-outs."""

import pytest

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


async def test_a_cordoned_node_is_emptied_one_group_at_a_time(scene: Scene) -> None:
    scene.node("a")
    scene.create()
    await scene.until_ready()
    scene.node("b")
    with scene.throughout(scene.two_serve):
        scene.cordon("a")
        await scene.until(lambda: scene.is_ready() and scene.nodes_of() == ["b", "b"])


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
