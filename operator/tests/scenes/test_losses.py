"""Losses: a node, a pod, the operator itself."""

import pytest

from flotilla_operator.cluster.crash_points import CrashPoint
from flotilla_operator.objects.resources import PODS
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes

# A set needs no finalizer.
NOT_REACHED = {CrashPoint.BEFORE_FINALIZERS, CrashPoint.AFTER_FINALIZERS}


async def test_a_lost_node_takes_its_group_elsewhere(scene: Scene) -> None:
    scene.node("a")
    scene.create(replicas=1)
    await scene.until_ready()
    scene.node("b")
    scene.lose_node("a")
    await scene.until(lambda: scene.nodes_of() == ["b"] and scene.is_ready())
    await scene.until_told("GroupLost")


async def test_a_group_on_a_node_that_does_not_answer_waits_and_is_replaced_when_its_pod_must_go(
    scene: Scene,
) -> None:
    """Kubernetes deletes the pod after five minutes, and nobody knows whether its engine still runs."""
    scene.node("a")
    scene.create(replicas=1)
    await scene.until_ready()
    before = scene.uids()
    scene.node("b")
    scene.silence_node("a")
    await scene.until(lambda: scene.status()["ready"] == "0/1")
    await scene.pass_time(290)
    assert scene.uids() == before, "the node may come back"

    (pod,) = scene.pods()
    scene.delete_pod(pod["metadata"]["name"])
    await scene.until(lambda: scene.nodes_of() == ["b"] and scene.says("Available", "True"))
    assert len(scene.engines()) == 2, "the old pod is not confirmed to be gone"
    await scene.pass_time(600)
    assert len(scene.engines()) == 2, "nothing is forced while the node exists"

    scene.node_answers_again("a")
    await scene.until(lambda: len(scene.engines()) == 1)


async def test_a_pod_that_is_over_is_replaced(scene: Scene) -> None:
    scene.node("a")
    scene.create(replicas=1)
    await scene.until_ready()
    (pod,) = scene.pods()
    scene.cluster.report(PODS, pod, phase="Failed", reason="Evicted")
    await scene.until(lambda: scene.is_ready() and pod["metadata"]["uid"] not in scene.uids())
    await scene.until_told("GroupFailed")


@pytest.mark.holds("draining.md", "A restarted operator goes on with the drain where the last one was")
async def test_a_killed_operator_is_followed_by_one_that_goes_on_with_the_drain(scene: Scene) -> None:
    scene.node("a")
    scene.create(router={"replicas": 2}, drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before = scene.uids()
    scene.routers.of("llama").busy = True
    scene.change(replicas=1)
    leaving = await scene.until(scene.draining)
    await scene.operator.kill()
    await scene.start_operator()
    await scene.pass_time(60)
    assert (scene.draining(), scene.uids()) == (leaving, before), "it still has requests"

    scene.routers.of("llama").busy = False
    await scene.until(lambda: scene.uids() == before - leaving)
    (note,) = await scene.until_told("GroupRemoved")
    assert "no request is left for it in 2 routers" in note


@pytest.mark.holds("draining.md", "A restarted operator goes on with the drain where the last one was")
@pytest.mark.parametrize("point", [point for point in CrashPoint if point not in NOT_REACHED])
async def test_an_operator_that_ends_at_any_write_is_followed_by_one_that_ends_the_same(
    scene: Scene, point: CrashPoint
) -> None:
    scene.node("a")
    scene.node("b")
    killer = await scene.kill_at(point, times=2)
    scene.create(replicas=3)
    await scene.until_ready()
    scene.change(replicas=2)
    await scene.until(lambda: scene.is_ready() and len(scene.engines()) == 2)
    scene.change(replicas=1)
    await scene.until(lambda: scene.is_ready() and len(scene.engines()) == 1)
    await scene.pass_time(60)
    assert killer.killed == 2, f"{point} is not reached so often"
    assert (scene.status()["ready"], len(scene.engines())) == ("1/1", 1)
