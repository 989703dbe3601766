"""Updates: how a set comes to another revision, and back from one that is bad."""

import pytest

from flotilla_runtime import contract
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes

OTHER_REVISION = {"env": [{"name": "REVISION", "value": "other"}]}


async def test_an_update_turns_groups_over_one_at_a_time(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(scene.two_serve):
        scene.change(engine=OTHER_REVISION)
        await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    assert len(scene.revisions()) == 1


async def test_an_update_without_surge_on_full_nodes_is_a_roll_during_which_one_serves(scene: Scene) -> None:
    scene.node("a")
    scene.create(update={"maxSurge": 0, "maxUnavailable": 1})
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(lambda: scene.serving() >= 1 and len(scene.pods()) <= 2):
        scene.change(engine=OTHER_REVISION)
        await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    assert len(scene.revisions()) == 1


async def test_an_update_that_never_becomes_ready_goes_back_to_the_last_good_revision(scene: Scene) -> None:
    scene.node("a", gpus=12)
    scene.create()
    await scene.until_ready()
    before, (good,) = scene.uids(), scene.revisions()
    scene.kubelets.never_ready = lambda pod: pod["metadata"]["labels"].get(contract.LABEL_REVISION) != good
    with scene.throughout(scene.two_serve):
        scene.change(engine=OTHER_REVISION)
        message = await scene.until_says("Progressing", "False", "RolledBack")
        await scene.until(lambda: scene.uids() == before)
    assert "it made no progress for 1800 s" in message
    assert f"the set runs revision {good} instead" in message

    (pod, _) = scene.pods()
    scene.delete_pod(pod["metadata"]["name"])
    await scene.until(lambda: scene.serving() == 2 and scene.uids() != before)
    assert scene.revisions() == {good}, "what is made anew is made from the record"


async def test_an_update_whose_answers_fail_goes_back_and_the_drained_pod_serves_again(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create(drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before, (good,) = scene.uids(), scene.revisions()
    routers = scene.routers.of("llama")
    routers.busy = True
    scene.change(engine=OTHER_REVISION)
    await scene.until(lambda: scene.draining() < before and len(scene.revisions()) == 2 and scene.draining())
    (bad,) = scene.revisions() - {good}
    routers.answers = {good: (500, 0), bad: (49, 49)}
    await scene.pass_time(60)
    assert scene.status()["rollout"].get("failedRevision") is None, "49 answers prove nothing"
    routers.answers = {good: (500, 0), bad: (50, 3)}
    message = await scene.until_says("Progressing", "False", "RolledBack")
    assert "6% of its 50 answers had a 5xx status" in message
    routers.busy = False
    await scene.until(lambda: scene.uids() == before and not scene.draining())
    await scene.until_told("GroupReturned")


async def test_a_paused_set_holds_its_update(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(lambda: scene.uids() == before and not scene.draining()):
        scene.change(engine=OTHER_REVISION, paused=True)
        assert "0 of 2" in await scene.until_says("Progressing", "False", "UpdatePaused")
        await scene.pass_time(300)
    scene.change(paused=False)
    await scene.until(lambda: scene.is_ready() and not scene.uids() & before)


async def test_a_drain_that_is_called_off_brings_the_same_pod_back(scene: Scene) -> None:
    scene.node("a")
    scene.create(drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    before = scene.uids()
    scene.routers.of("llama").busy = True
    scene.change(replicas=1)
    await scene.until(lambda: scene.status()["ready"] == "1/1" and len(scene.draining()) == 1)
    scene.change(replicas=2)
    await scene.until(lambda: scene.status()["ready"] == "2/2" and not scene.draining())
    assert scene.uids() == before
    assert "GroupRemoved" not in scene.told()
