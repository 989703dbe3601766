"""Drains, moves and updates through the real loop: a real API server, disruption budgets and evictions that
count, KWOK's nodes, an operator in a process of its own, and routers that answer as the test says.

What real routers and engines do with a drain is shown elsewhere.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.objects.times import timestamp
from flotilla_runtime import contract
from local_cluster.errors import ApiError
from tests.controllers.model_replica_set.answering_routers import AnsweringRouters, answering_routers
from tests.controllers.model_replica_set.stage import GPU, Stage, ready
from tests.support.kinds import forget_leader
from tests.support.processes import OperatorProcess
from tests.support.site import reconciles
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

PATIENT = {"deadlineSeconds": 300}  # so that nothing leaves without a proof
OTHER_REVISION = {"env": [{"name": "REVISION", "value": "other"}]}
TOO_MANY_REQUESTS = 429
LOOKS = 3


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


def cordon(stage: Stage, node: str, *, unschedulable: bool = True) -> None:
    stage.client.merge(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": unschedulable}})


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


def has_looked(stage: Stage, routers: AnsweringRouters, operator: OperatorProcess) -> Callable[[], bool]:
    """Whether the operator has read the routers anew and then looked at the set again and again."""
    asked, done = routers.asked, reconciles(operator)

    def has() -> bool:
        nonlocal done
        if routers.asked < asked + LOOKS:
            done = reconciles(operator)
        stage.look_again()
        return reconciles(operator) >= done + LOOKS

    return has


def two_serve(stage: Stage) -> Callable[[], bool]:
    def holds() -> bool:
        """Two serve that do not drain, one drains at most, and there is one more than wanted at most."""
        pods = stage.pods()
        leaving = epochs(pods)
        serve = [pod for pod in pods if ready(pod) and pod["metadata"]["uid"] not in leaving]
        return len(serve) >= 2 and len(leaving) <= 1 and len(pods) <= 3

    return holds


def one_serves(stage: Stage) -> Callable[[], bool]:
    def holds() -> bool:
        """One serves that does not drain, and there are no more than wanted."""
        pods = stage.pods()
        leaving = epochs(pods)
        return any(ready(pod) and pod["metadata"]["uid"] not in leaving for pod in pods) and len(pods) <= 2

    return holds


def two_groups_serve(stage: Stage) -> Callable[[], bool]:
    def holds() -> bool:
        """Two whole groups serve that do not drain, one drains at most, and there is one more than wanted
        at most.
        """
        groups: dict[str, list[dict[str, Any]]] = {}
        for pod in stage.pods():
            groups.setdefault(pod["metadata"]["labels"][contract.LABEL_GROUP], []).append(pod)
        leaving = [name for name, pods in groups.items() if epochs(pods)]
        serve = [name for name, pods in groups.items() if name not in leaving and serves(pods)]
        return len(serve) >= 2 and len(leaving) <= 1 and len(groups) <= 3

    return holds


def serves(pods: list[dict[str, Any]]) -> bool:
    """Whether every stage of a group is there and ready."""
    stages = int(pods[0]["metadata"]["annotations"].get(contract.ANNOTATION_STAGES, 1))
    return len(pods) == stages and all(map(ready, pods))


@pytest.mark.parametrize(
    ("parallelism", "held"),
    [
        pytest.param({"tensor": 2}, [2, 2], id="fewer accelerators in a stage"),
        pytest.param({"pipeline": 2}, [4, 4, 4, 4], id="two stages where there was one"),
    ],
)
def test_another_parallelism_is_a_roll_during_which_two_serve(
    stage: Stage, routers: AnsweringRouters, parallelism: dict[str, int], held: list[int]
) -> None:
    for name in "abc":
        stage.node(name)
    before = serving_set(stage, routers)
    stage.change(parallelism=parallelism)
    always_until(two_groups_serve(stage), lambda: not uids(stage) & before and two_groups_serve(stage)())
    stage.wait("Ready", "True")
    assert [accelerators(pod) for pod in stage.pods()] == held
    assert len(revisions(stage)) == 1


def test_the_names_of_stages_stay_until_the_last_group_of_two_has_gone(
    stage: Stage, routers: AnsweringRouters
) -> None:
    for name in "abc":
        stage.node(name)
    serving_set(stage, routers, parallelism={"tensor": 4, "pipeline": 2})

    def named_or_alone() -> bool:
        return has_names(stage) or "1" not in {
            pod["metadata"]["labels"][contract.LABEL_STAGE] for pod in stage.pods()
        }

    stage.change(parallelism={"pipeline": 1})
    always_until(named_or_alone, lambda: len(revisions(stage)) == 1 and not has_names(stage))
    stage.wait("Ready", "True")
    assert [accelerators(pod) for pod in stage.pods()] == [4, 4]


def has_names(stage: Stage) -> bool:
    """Whether the service is there that gives each pod of the set a name."""
    return stage.client.exists(f"/api/v1/namespaces/{stage.namespace}/services/llama-engine")


def accelerators(pod: dict[str, Any]) -> int:
    return int(pod["spec"]["containers"][0]["resources"]["limits"][GPU])


def test_a_drain_that_is_called_off_brings_the_same_pod_back(stage: Stage, routers: AnsweringRouters) -> None:
    stage.node("a")
    before = serving_set(stage, routers)
    routers.busy = True
    stage.change(replicas=1)
    eventually(lambda: len(draining(stage)) == 1)
    eventually(lambda: stage.get()["status"]["ready"] == "1/1")
    stage.change(replicas=2)
    eventually(lambda: not draining(stage))
    stage.tells("GroupDraining", "GroupReturned")
    eventually(lambda: stage.get()["status"]["ready"] == "2/2")
    assert uids(stage) == before
    assert "GroupRemoved" not in stage.events()


def test_a_cordoned_node_is_emptied_one_group_at_a_time(stage: Stage, routers: AnsweringRouters) -> None:
    first = stage.node("a")
    serving_set(stage, routers)
    second = stage.node("b")
    cordon(stage, first)
    always_until(two_serve(stage), lambda: nodes(stage) == [second, second])
    stage.wait("Ready", "True")


def test_uncordoning_ends_the_move(stage: Stage, routers: AnsweringRouters) -> None:
    first = stage.node("a")
    before = serving_set(stage, routers)
    second = stage.mute_node("b")
    cordon(stage, first)
    always_until(two_serve(stage), lambda: second in nodes(stage))
    eventually(lambda: stage.condition("Progressing")["reason"] == "EmptyingNodes")
    assert not draining(stage), "the replacement comes first"
    cordon(stage, first, unschedulable=False)
    always_until(two_serve(stage), lambda: uids(stage) == before)
    stage.wait("Ready", "True")


def test_uncordoning_brings_back_what_drains_while_its_replacement_is_not_ready(
    stage: Stage, routers: AnsweringRouters
) -> None:
    first = stage.node("a")
    before = serving_set(stage, routers, replicas=1, update={"maxUnavailable": 1})
    routers.busy = True
    second = stage.mute_node("b")
    cordon(stage, first)
    eventually(lambda: draining(stage).keys() == before and second in nodes(stage))
    cordon(stage, first, unschedulable=False)
    eventually(lambda: uids(stage) == before and not draining(stage))
    stage.wait("Ready", "True")


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


def test_evictions_are_let_through_while_replicas_wait_for_room(
    stage: Stage, routers: AnsweringRouters
) -> None:
    first, _ = stage.node("a"), stage.node("b")
    stage.create(drain=PATIENT, replicas=10)
    routers.answer(1)
    eventually(lambda: budget(stage) == (3, 1, True))
    cordon(stage, first)
    one, other = (pod for pod in stage.pods() if pod["spec"]["nodeName"] == first)
    evict(stage, one)
    eventually(lambda: len(stage.pods()) == 3 and budget(stage) == (2, 1, True))
    evict(stage, other)
    eventually(lambda: first not in nodes(stage) and budget(stage) == (1, 1, True))


def test_evictions_take_one_group_of_two_stages_at_a_time(stage: Stage, routers: AnsweringRouters) -> None:
    for name in "abcd":
        stage.node(name, gpus=4)
    serving_set(stage, routers, parallelism={"tensor": 4, "pipeline": 2})
    eventually(lambda: budget(stage) == (3, 1, True))
    groups: dict[str, list[dict[str, Any]]] = {}
    for pod in stage.pods():
        groups.setdefault(pod["metadata"]["labels"][contract.LABEL_GROUP], []).append(pod)
    one, other = groups.values()
    evict(stage, one[1])
    for pod in other:
        with pytest.raises(ApiError) as refused:
            evict(stage, pod)
        assert refused.value.status == TOO_MANY_REQUESTS
    gone, kept = ({pod["metadata"]["uid"] for pod in pods} for pods in (one, other))
    eventually(lambda: len(uids(stage) - gone) == 4 and budget(stage) == (3, 1, True))
    assert kept < uids(stage)


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


def test_the_way_back_over_a_new_key_makes_new_replicas_from_the_good_parts(
    stage: Stage, operator: OperatorProcess
) -> None:
    first = stage.node("a", gpus=12)
    stage.create()
    stage.wait("Ready", "True")
    before, (good,) = uids(stage), revisions(stage)
    second = stage.mute_node("b", label="mute")
    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}/secrets/llama-engine-key")
    kill_and_start_again(stage, operator)  # the one that made the key does not miss it for some seconds
    stage.change(placement={"nodeSelector": {"stage": None, "mute": stage.namespace}})
    stage.tells("EngineKeyLost")
    always_until(two_serve(stage), lambda: second in nodes(stage))
    long_after(stage)
    stage.client.delete(f"/api/v1/nodes/{second}")
    always_until(two_serve(stage), lambda: not uids(stage) & before and nodes(stage) == [first, first])
    assert good not in revisions(stage)
    assert stage.condition("Progressing")["reason"] == "RolledBack"


def test_an_update_whose_answers_fail_goes_back_and_the_drained_pod_serves_again(
    stage: Stage, routers: AnsweringRouters, operator: OperatorProcess
) -> None:
    stage.node("a")
    stage.node("b")
    before = serving_set(stage, routers)
    (good,) = revisions(stage)
    routers.busy = True
    stage.change(engine=OTHER_REVISION)
    eventually(lambda: draining(stage).keys() < before and len(revisions(stage)) == 2)
    (bad,) = revisions(stage) - {good}
    routers.answers = {good: (500, 0), bad: (49, 49)}
    eventually(has_looked(stage, routers, operator))
    rollout = stage.get()["status"]["rollout"]
    assert rollout.get("failedRevision") is None, f"49 prove nothing: {rollout}"
    routers.answers = {good: (500, 0), bad: (50, 3)}
    message = stage.wait("Progressing", "False", "RolledBack")
    assert "6% of its 50 answers had a 5xx status" in message
    eventually(lambda: draining(stage) and not draining(stage).keys() & before)
    routers.busy = False
    eventually(lambda: uids(stage) == before)
    stage.tells("GroupReturned")


def test_a_revision_that_breaks_the_slo_after_the_last_old_replica_has_gone_is_taken_back(
    stage: Stage, routers: AnsweringRouters
) -> None:
    stage.node("a")
    stage.node("b")
    before = serving_set(stage, routers, slo={"ttftSeconds": 1, "attainment": 0.95})
    (good,) = revisions(stage)
    routers.answers = {good: (60, 0)}
    stage.change(engine=OTHER_REVISION)
    always_until(two_serve(stage), lambda: not uids(stage) & before)
    words = f"if it fails, the set goes back to revision {good}"
    assert words in stage.wait("Progressing", "True", "OnTrial")
    assert stage.condition("Ready")["status"] == "True"
    assert stage.get()["status"]["rollout"]["goodRevision"] == good

    (bad,) = revisions(stage)
    routers.answers = {bad: (30, 6)}
    message = stage.wait("Progressing", "False", "RolledBack")
    assert "80% of its 60 answers met spec.slo, but 100% of the old revision's answers did" in message
    always_until(two_serve(stage), lambda: revisions(stage) == {good})

    stage.change(engine={"env": [{"name": "REVISION", "value": "mended"}]})
    (mended,) = eventually(lambda: revisions(stage) - {good})
    stage.wait("Progressing", "True", "OnTrial")
    routers.answers = {mended: (25, 0)}
    stage.wait("Progressing", "False", "Settled")
    assert stage.get()["status"]["rollout"]["goodRevision"] == mended
    stage.wait("Ready", "True")


def test_a_paused_set_holds_its_update(stage: Stage, routers: AnsweringRouters) -> None:
    stage.node("a")
    stage.node("b")
    before = serving_set(stage, routers)
    stage.change(engine=OTHER_REVISION, paused=True)
    message = stage.wait("Progressing", "False", "UpdatePaused")
    assert "0 of 2" in message
    assert (uids(stage), draining(stage)) == (before, {})
    stage.change(paused=False)
    always_until(two_serve(stage), lambda: not uids(stage) & before)
    stage.wait("Ready", "True")


def test_a_set_paused_in_the_middle_of_its_update_stays_as_it_is_until_it_goes_on(
    stage: Stage, routers: AnsweringRouters, operator: OperatorProcess
) -> None:
    stage.node("a")
    stage.node("b")
    before = serving_set(stage, routers)
    routers.busy = True
    stage.change(engine=OTHER_REVISION)
    eventually(lambda: draining(stage).keys() < before and len(draining(stage)) == 1)
    stage.change(paused=True)
    assert "1 of 2" in stage.wait("Progressing", "False", "UpdatePaused")
    pods, leaving = uids(stage), draining(stage)
    assert (len(pods), len(leaving)) == (3, 1)

    def stays() -> bool:
        """Its pods and what drains are as they were when it was paused."""
        return (uids(stage), draining(stage)) == (pods, leaving)

    routers.busy = False  # so that what drains could go
    always_until(stays, has_looked(stage, routers, operator))
    stage.change(paused=False)
    always_until(two_serve(stage), lambda: not uids(stage) & before)
    stage.wait("Ready", "True")


def test_an_update_without_surge_on_full_nodes_is_a_roll_during_which_one_serves(
    stage: Stage, routers: AnsweringRouters
) -> None:
    stage.node("a")  # its eight accelerators are what two replicas hold
    before = serving_set(stage, routers, update={"maxSurge": 0, "maxUnavailable": 1})
    stage.change(engine=OTHER_REVISION)
    holds = one_serves(stage)
    always_until(holds, lambda: not uids(stage) & before and len(stage.pods()) == 2)
    stage.wait("Ready", "True")
    assert holds()
    assert len(revisions(stage)) == 1
