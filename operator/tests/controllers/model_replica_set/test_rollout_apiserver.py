"""Drains and updates through the real loop, one test for each mechanism.

With a real API server, disruption budgets and evictions that count, KWOK's nodes, an operator in a process of
its own, and routers that answer as the test says. The variants are scenes (tests/scenes/test_updates,
test_moves, test_losses). What real routers and engines do with a drain is shown elsewhere.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.objects.times import timestamp
from flotilla_runtime import contract
from local_cluster.errors import ApiError
from tests.controllers.model_replica_set.answering_routers import AnsweringRouters, answering_routers
from tests.controllers.model_replica_set.stage import Stage, ready
from tests.support.kinds import forget_leader
from tests.support.processes import OperatorProcess
from tests.support.site import reconciles
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

PATIENT = {"deadlineSeconds": 300}  # so that nothing leaves without a proof
OTHER_REVISION = {"env": [{"name": "REVISION", "value": "other"}]}
TOO_MANY_REQUESTS = 429


@pytest.fixture
def routers(stage: Stage) -> Iterator[AnsweringRouters]:
    with answering_routers(stage) as made:
        yield made


def serving_set(stage: Stage, routers: AnsweringRouters, *, answering: int = 1, **spec: Any) -> set[str]:
    """A set of two that serves and whose routers answer; returns its pods."""
    stage.create(drain=PATIENT, **spec)
    stage.wait("Ready", "True")
    routers.answer(answering)
    return uids(stage)


def uids(stage: Stage) -> set[str]:
    return {pod["metadata"]["uid"] for pod in stage.pods()}


def nodes(stage: Stage) -> list[str | None]:
    return [pod["spec"].get("nodeName") for pod in stage.pods()]


def draining(stage: Stage) -> dict[str, str]:
    """The epoch of each pod that drains."""
    return epochs(stage.pods())


def epochs(pods: list[dict[str, Any]]) -> dict[str, str]:
    found = {
        pod["metadata"]["uid"]: pod["metadata"]["annotations"].get(contract.ANNOTATION_DRAIN_EPOCH)
        for pod in pods
    }
    return {uid: epoch for uid, epoch in found.items() if epoch is not None}


def revisions(stage: Stage) -> set[str]:
    return {pod["metadata"]["labels"][contract.LABEL_REVISION] for pod in stage.pods()}


def budget(stage: Stage) -> tuple[int, int, bool]:
    """Pods that evictions must leave, how many may be evicted now, and whether that is counted yet."""
    found = stage.client.get(
        f"/apis/policy/v1/namespaces/{stage.namespace}/poddisruptionbudgets/llama-engine"
    )
    status = found.get("status") or {}
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return found["spec"]["minAvailable"], status.get("disruptionsAllowed", 0), seen


def evict(stage: Stage, pod: dict[str, Any]) -> None:
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    stage.client.create(f"/api/v1/namespaces/{stage.namespace}/pods/{name}/eviction", body)


def long_after(stage: Stage) -> str:
    """The update has got on for the last time so long ago that it has failed; returns what is said of it.

    A reconcile that began before writes its own time over that of the test, which is then written again.
    """
    long_ago = timestamp(datetime.now(UTC) - timedelta(seconds=1800))

    def taken_back() -> str | None:
        found = stage.condition("Progressing")
        if found["reason"] == "RolledBack":
            return str(found["message"])
        stage.client.merge(f"{stage.sets}/llama/status", {"status": {"rollout": {"progressTime": long_ago}}})
        return None

    return str(eventually(taken_back, what="the update is taken back"))


def kill_and_start_again(stage: Stage, operator: OperatorProcess) -> None:
    """Without a wait for the lease to run out."""
    operator.kill_and_start_again()
    forget_leader(stage.plane)


def always_until(holds: Callable[[], bool], done: Callable[[], bool]) -> None:
    """Until it is done; what holds must hold at every look before."""

    def look() -> bool:
        assert holds(), f"no longer so: {holds.__doc__}"
        return done()

    eventually(look, what=done.__doc__ or "")


def two_serve(stage: Stage) -> Callable[[], bool]:
    def holds() -> bool:
        """Two serve that do not drain, one drains at most, and there is one more than wanted at most."""
        pods = stage.pods()
        leaving = epochs(pods)
        serve = [pod for pod in pods if ready(pod) and pod["metadata"]["uid"] not in leaving]
        return len(serve) >= 2 and len(leaving) <= 1 and len(pods) <= 3

    return holds


def serves(pods: list[dict[str, Any]]) -> bool:
    """Whether every stage of a group is there and ready."""
    stages = int(pods[0]["metadata"]["annotations"].get(contract.ANNOTATION_STAGES, 1))
    return len(pods) == stages and all(map(ready, pods))


@pytest.mark.holds("draining.md", "`kubectl drain` evicts through a disruption budget, one group at a time")
def test_evictions_are_let_through_one_group_at_a_time(stage: Stage, routers: AnsweringRouters) -> None:
    stage.node("a")
    stage.node("b")
    before = serving_set(stage, routers)
    eventually(lambda: budget(stage) == (1, 1, True))
    one, other = stage.pods()
    evict(stage, one)
    with pytest.raises(ApiError) as refused:
        evict(stage, other)
    assert refused.value.status == TOO_MANY_REQUESTS
    eventually(lambda: len(stage.pods()) == 2 and budget(stage) == (1, 1, True))
    evict(stage, other)
    eventually(lambda: not uids(stage) & before and budget(stage) == (1, 1, True))
    stage.change(replicas=3)
    eventually(lambda: budget(stage) == (2, 1, True))


@pytest.mark.holds("draining.md", "A restarted operator goes on with the drain where the last one was")
def test_an_operator_killed_in_the_middle_goes_on_with_the_drain_and_deletes_after_the_proof(
    stage: Stage, routers: AnsweringRouters, operator: OperatorProcess
) -> None:
    stage.node("a")
    before = serving_set(stage, routers, router={"replicas": 2})
    routers.busy = True
    stage.change(replicas=1)
    begun = eventually(lambda: draining(stage))
    kill_and_start_again(stage, operator)
    eventually(lambda: operator.get("metrics", "/metrics")[0] == 200 and reconciles(operator) > 5)
    assert (draining(stage), uids(stage)) == (begun, before)

    routers.busy = False
    done = reconciles(operator)
    eventually(lambda: reconciles(operator) > done + 3)
    assert (draining(stage), uids(stage)) == (begun, before), "one router has acknowledged, of two"
    routers.answer(2)
    eventually(lambda: uids(stage) == before - begun.keys())
    stage.tells("GroupRemoved")
    assert any("no request is left for it in 2 routers or in its engine" in note for note in stage.notes())


@pytest.mark.holds("draining.md", "It fails when nothing gets on for `progressDeadlineSeconds`")
def test_an_update_that_never_becomes_ready_goes_back_to_the_last_good_revision(
    stage: Stage, routers: AnsweringRouters
) -> None:
    stage.node("a", gpus=12)
    before = serving_set(stage, routers)
    (good,) = revisions(stage)
    second = stage.mute_node("b", label="mute")
    stage.change(placement={"nodeSelector": {"stage": None, "mute": stage.namespace}})
    always_until(two_serve(stage), lambda: second in nodes(stage))

    message = long_after(stage)
    assert "it made no progress for 1800 s" in message
    assert f"the set runs revision {good} instead" in message
    assert stage.condition("Ready")["reason"] == "RolledBack"
    always_until(two_serve(stage), lambda: uids(stage) == before)
    record = f"/apis/apps/v1/namespaces/{stage.namespace}/controllerrevisions/llama-{good}"
    assert stage.client.get(record)["data"]["placement"]["nodeSelector"] == {"stage": stage.namespace}

    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}/pods/{stage.pods()[0]['metadata']['name']}")
    eventually(lambda: len([pod for pod in stage.pods() if ready(pod)]) == 2 and uids(stage) != before)
    assert revisions(stage) == {good}, "what is made anew is made from the record"

    for pod in stage.engine_pods("llama"):
        if pod["spec"].get("nodeName") == second:
            stage.end(pod)
    stage.change(placement={"nodeSelector": {"stage": stage.namespace, "mute": None}}, engine=OTHER_REVISION)
    (newest,) = eventually(lambda: revisions(stage) - {good})
    stage.wait("Progressing", "True", "OnTrial")
    routers.answers = {newest: (25, 0)}
    eventually(lambda: revisions(stage) == {newest} == {stage.get()["status"]["rollout"]["goodRevision"]})
    stage.wait("Ready", "True")
