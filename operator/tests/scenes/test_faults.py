"""Answers that are lost, watches that stall, writes that fail: nothing is doubled, cut or starved."""

import pytest

from flotilla_operator.objects.resources import DEPLOYMENTS, NODES, PODS
from flotilla_runtime import contract
from tests.scenes.scene import Scene
from tests.support.fake_requests import Request

pytestmark = pytest.mark.scenes


def creates_a_replica(request: Request) -> bool:
    labels = (request.body or {}).get("metadata", {}).get("labels") or {}
    return request.method == "POST" and contract.LABEL_GROUP in labels


def writes_routers(request: Request) -> bool:
    return request.method == "PATCH" and "/deployments/" in request.path


@pytest.mark.holds(
    "groups.md", "A pod whose creation is not answered is asked for after a minute, and not doubled"
)
@pytest.mark.once
@pytest.mark.parametrize(
    "late_seconds", [pytest.param(0.0, id="carried out at once"), pytest.param(20.0, id="carried out late")]
)
async def test_a_replica_whose_creation_is_not_answered_is_not_made_twice(
    scene: Scene, late_seconds: float
) -> None:
    for name in "ab":
        scene.node(name)
    scene.api.lose(creates_a_replica, late_seconds=late_seconds)
    scene.create(replicas=1)
    await scene.until(lambda: scene.api.hung.is_set())
    scene.api.stalled.add(PODS)

    def is_one() -> bool:
        """There is at most one replica."""
        return len(scene.engines()) <= 1

    with scene.throughout(is_one):
        await scene.pass_time(50)
        scene.api.stalled.clear()
        await scene.until_ready()
        await scene.pass_time(120)


@pytest.mark.once
async def test_an_update_while_a_creation_is_not_answered_makes_no_replica_too_many(scene: Scene) -> None:
    scene.node("a", gpus=16)
    scene.create(replicas=1)
    await scene.until_ready()
    scene.api.lose(creates_a_replica, late_seconds=0.0)
    scene.change(replicas=2)
    await scene.until(lambda: scene.api.hung.is_set())
    scene.change(engine={"env": [{"name": "REVISION", "value": "2"}]})

    def are_three() -> bool:
        """There are at most three replicas: two, and one more for the update."""
        return sum("deletionTimestamp" not in pod["metadata"] for pod in scene.pods()) <= 3

    with scene.throughout(are_three):
        await scene.pass_time(50)
        await scene.until_ready()


@pytest.mark.holds(
    "groups.md", "A pod whose creation is not answered is asked for after a minute, and not doubled"
)
async def test_a_replica_that_was_never_created_is_made_after_a_minute(scene: Scene) -> None:
    scene.node("a")
    scene.api.lose(creates_a_replica, late_seconds=None)
    scene.create(replicas=1)
    await scene.pass_time(55)
    assert scene.engines() == []
    await scene.until_ready()
    assert len(scene.engines()) == 1


@pytest.mark.holds("decisions/0016-lost-answers.md", "A new leader lists all pods before its first write")
@pytest.mark.once
async def test_a_new_leader_reads_the_pods_that_its_watch_has_not_reported(scene: Scene) -> None:
    for name in "ab":
        scene.node(name)
    first = scene.operator
    await scene.start_operator()
    await scene.pass_time(20)
    scene.api.stalled.add(PODS)
    scene.create()
    await scene.until(lambda: len(scene.engines()) == 2)
    await first.kill()

    def are_two() -> bool:
        """There are two replicas."""
        return len(scene.engines()) == 2

    with scene.throughout(are_two):
        await scene.pass_time(50)
        assert not scene.operator.outside.killed
        scene.api.stalled.clear()
        await scene.until_ready()
        await scene.pass_time(60)


@pytest.mark.holds("recovery.md", "Fleets go on while the operator or the API server is away")
@pytest.mark.holds("architecture.md", "A leader that loses the lease follows, and leads again")
async def test_a_leader_that_loses_the_lease_goes_on_as_a_follower(scene: Scene) -> None:
    scene.node("a")
    scene.create(replicas=1)
    await scene.until_ready()
    scene.api.fail(lambda _: True, 503, times=100_000)
    for resource in (PODS, NODES):
        scene.api.end_watches(resource, 500)
    await scene.pass_time(600)
    assert not scene.operator.task.done()
    scene.api.faults.clear()
    scene.change(replicas=2)
    await scene.until(lambda: scene.serving() == 2)


@pytest.mark.holds(
    "decisions/0016-lost-answers.md", "A write that fails stops no other, and is repeated with backoff"
)
async def test_one_write_that_always_fails_starves_no_other(scene: Scene) -> None:
    """A webhook that fails closed stands before Deployments; the engines start, and the status says so."""
    scene.node("a")
    scene.api.fail(writes_routers, 500, times=10_000)
    scene.create()
    await scene.until(lambda: scene.serving() == 2)
    message = await scene.until_says("Ready", "False", "WriteFailed")
    assert "deployments/llama-router" in message
    assert "500" in message
    scene.change(replicas=1)
    await scene.until(lambda: len(scene.pods()) == 1)
    scene.api.faults.clear()
    await scene.until_ready()
    assert scene.the(DEPLOYMENTS, "llama-router")["status"]["readyReplicas"] == 1


@pytest.mark.holds(
    "decisions/0016-lost-answers.md", "A write that fails stops no other, and is repeated with backoff"
)
async def test_a_failing_write_is_repeated_with_backoff_whatever_else_is_written(scene: Scene) -> None:
    scene.node("a")
    scene.api.fail(writes_routers, 500, times=10_000)
    scene.create()
    await scene.pass_time(600)
    tried = [request for request in scene.api.requests if writes_routers(request)]
    assert 3 <= len(tried) <= 40


@pytest.mark.holds("decisions/0016-lost-answers.md", "`Retry-After` holds against every wake-up")
async def test_a_server_that_asks_to_be_left_alone_is(scene: Scene) -> None:
    scene.node("a")
    scene.create(replicas=1)
    await scene.until_ready()
    scene.api.fail(creates_a_replica, 429, retry_after=60)
    scene.change(replicas=2)
    await scene.until(lambda: not scene.api.faults[0].times)
    before = len([request for request in scene.api.requests if creates_a_replica(request)])
    for index in range(50):
        scene.annotate("team", str(index))
        await scene.pass_time(1)
    assert len([request for request in scene.api.requests if creates_a_replica(request)]) == before
    await scene.until(lambda: len(scene.pods()) == 2)


@pytest.mark.holds("groups.md", "A pod on a node that only the cache lacks is not lost")
@pytest.mark.once
async def test_a_pod_on_a_node_that_the_cache_does_not_have_yet_is_not_lost(scene: Scene) -> None:
    scene.api.stalled.add(NODES)
    scene.node("a")
    scene.create(replicas=1, accelerator=None)
    await scene.until(lambda: scene.serving() == 1)
    before = scene.uids()
    await scene.pass_time(120)
    assert scene.uids() == before
    assert "GroupLost" not in scene.told()


@pytest.mark.holds("draining.md", "A replica that a router uses is not deleted as one that never served")
@pytest.mark.once
async def test_a_replica_that_became_ready_unseen_drains_before_it_goes(scene: Scene) -> None:
    """The watch of pods is late: for the operator the replica has never served, for a router it has."""
    scene.node("a", gpus=16)
    scene.create(drain={"deadlineSeconds": 1800})
    await scene.until_ready()
    scene.change(replicas=3)
    await scene.until(lambda: len(scene.pods()) == 3)
    scene.api.stalled.add(PODS)
    await scene.until(lambda: scene.serving() == 3)
    scene.routers.of("llama").busy = True
    await scene.pass_time(20)
    scene.change(replicas=2)
    await scene.pass_time(30)
    assert len(scene.pods()) == 3, "it has a request"
    scene.api.stalled.clear()
    scene.routers.of("llama").busy = False
    await scene.until(lambda: len(scene.pods()) == 2)


@pytest.mark.holds(
    "router.md", "`ReplicaUnusable`, and one of two replicas with the same server id is replaced"
)
async def test_two_replicas_with_one_server_id_are_repaired(scene: Scene) -> None:
    scene.node("a", gpus=16)
    scene.create(drain={"deadlineSeconds": 60})
    await scene.until_ready()
    first, second = scene.pods()
    taken = first["metadata"]["annotations"][contract.ANNOTATION_SERVER_ID]
    annotations = {**second["metadata"]["annotations"], contract.ANNOTATION_SERVER_ID: taken}
    scene.api.put(PODS, {**second, "metadata": {**second["metadata"], "annotations": annotations}})
    await scene.until_says("RouterReady", "False", "ReplicaUnusable")
    ids = contract.ANNOTATION_SERVER_ID
    await scene.until(
        lambda: len({pod["metadata"]["annotations"][ids] for pod in scene.pods()}) == 2 and scene.is_ready()
    )


@pytest.mark.holds("draining.md", "A jump of the clock or a restart ends no drain early")
@pytest.mark.once
@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps_ends_no_drain_early(scene: Scene, hours: int) -> None:
    scene.node("a")
    scene.create(drain={"deadlineSeconds": 600})
    await scene.until_ready()
    scene.routers.of("llama").busy = True
    scene.change(replicas=1)
    await scene.until(scene.draining)
    await scene.pass_time(60)
    scene.operator.outside.jump_seconds = hours * 3600
    await scene.pass_time(500)
    assert len(scene.pods()) == 2, "its deadline is not over"
    await scene.pass_time(60)
    assert len(scene.pods()) == 1


@pytest.mark.holds("draining.md", "Jumps of the clock and hours without an operator fail no update")
@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_that_jumps_rolls_nothing_back(scene: Scene, hours: int) -> None:
    await fail_to_update(scene)
    await scene.pass_time(60)
    scene.operator.outside.jump_seconds = hours * 3600
    await scene.pass_time(480)
    assert not scene.says("Progressing", "False", "RolledBack")
    await scene.pass_time(120)
    assert scene.says("Progressing", "False", "RolledBack")


@pytest.mark.holds("draining.md", "Jumps of the clock and hours without an operator fail no update")
async def test_time_without_an_operator_rolls_nothing_back(scene: Scene) -> None:
    await fail_to_update(scene)
    await scene.pass_time(60)
    await scene.operator.kill()
    await scene.pass_time(3600)
    await scene.start_operator()
    await scene.pass_time(500)
    assert not scene.says("Progressing", "False", "RolledBack")
    await scene.pass_time(200)
    assert scene.says("Progressing", "False", "RolledBack")


async def fail_to_update(scene: Scene) -> None:
    """An update begins whose replicas come to a node that does not start them."""
    scene.node("a", gpus=12)
    scene.create(update={"progressDeadlineSeconds": 600})
    await scene.until_ready()
    scene.node("b", mute=True, labels={"pool": "other"})
    scene.change(placement={"nodeSelector": {"pool": "other"}})
    await scene.until(lambda: "b" in scene.nodes_of())
