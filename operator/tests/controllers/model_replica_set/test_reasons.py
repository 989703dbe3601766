"""One row for each reason that a set's conditions and events can carry: what is seen, and what the plan says.

What else a plan does then is in the tests of its parts. Reasons of what the spec names are in
test_references, those of a revision that has failed in test_revisions. That no reason is left out:
tests/house/test_reasons.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from flotilla_operator.controllers.model_replica_set.observe.engine_key import EngineKey
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, EventReason, Reason
from flotilla_operator.controllers.model_replica_set.remembered.failures import backoff_status
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.group import EndingReason
from flotilla_operator.replicas.trouble import Trouble, TroubleReason
from tests.builders.model_configs import LLAMA_8B, LLAMA_70B, QWEN2_7B
from tests.builders.model_replica_set import gpu_set, model_replica_set
from tests.builders.placement import cluster, node, used
from tests.builders.pods import NOW, container_status, stage_pod, terminated, time_text, waiting
from tests.controllers.model_replica_set.sized_sets import a_set, saying
from tests.controllers.model_replica_set.test_placeholders import asking_set, live, planned, remembered
from tests.controllers.model_replica_set.test_placeholders import shown as placeholders_shown
from tests.controllers.model_replica_set.test_plan import (
    drained,
    member,
    observed,
    reasons,
    revision_of_set,
    shown,
)
from tests.support.planned import plan_of_set as plan

ONE = gpu_set(replicas=1)
FULL = cluster(node("a", gpus=4), claims=(used("a", 4),))
ON_DEMAND = {"autoscaling": {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 60}}


def serving(manifest: dict[str, Any], *places: tuple[str, str], **fields: Any) -> list[dict[str, Any]]:
    return [
        member(manifest, name, node=at, pin=at, ready=True, server_id=number, **fields)
        for number, (name, at) in enumerate(places, start=1)
    ]


def loading(manifest: dict[str, Any] = ONE, **fields: Any) -> Observed:
    """A set of which the only replica is on its node and does not serve."""
    return observed(manifest, [member(manifest, "llama-x", **{"node": "a", "pin": "a"} | fields)])


def after(manifest: dict[str, Any], pods: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The set with the status that the last plan wrote of it."""
    return {**manifest, "status": plan(observed(manifest, pods), NOW).status}


def rolling_out(manifest: dict[str, Any], **rollout: Any) -> dict[str, Any]:
    held = {"revision": revision_of_set(manifest), "goodRevision": "old", "outdatedReplicas": 1}
    return {**manifest, "status": {"rollout": {**held, **rollout}}}


def scaled(load: RouterLoad) -> Observed:
    return observed(gpu_set(**ON_DEMAND), load=load)


def rebalancing(manifest: dict[str, Any], *, full: bool = False) -> Observed:
    """Two replicas that stand on a node each, and the room that one of them would move to."""
    halves = serving(manifest, ("llama-a", "a"), ("llama-b", "b"))
    others = (used("b", 4),) if full else ()
    return observed(manifest, halves, snapshot=cluster(node("a"), node("b"), claims=others))


def to_rebalance() -> dict[str, Any]:
    manifest = gpu_set()
    manifest["metadata"] = {**manifest["metadata"], "annotations": {ANNOTATION_REBALANCE: "apply"}}
    return manifest


def that_moves() -> dict[str, Any]:
    return {**to_rebalance(), "status": plan(rebalancing(to_rebalance()), NOW).status}


def that_has_moved() -> Observed:
    manifest = that_moves()
    return observed(manifest, serving(manifest, ("llama-b", "b"), ("llama-c", "b")))


def pair(**of_second: Any) -> Observed:
    """A group of two stages of which the second pod is like this."""
    manifest = gpu_set(replicas=1, parallelism={"tensor": 4, "pipeline": 2})
    fields: dict[str, Any] = {"node": "a", "pin": "a", "ready": True, "revision": revision_of_set(manifest)}
    return observed(manifest, [stage_pod(0, **fields), stage_pod(1, **{**fields, **of_second})])


def gated_half() -> Observed:
    manifest = gpu_set(replicas=1, parallelism={"tensor": 4, "pipeline": 2})
    return observed(manifest, [stage_pod(0, pin="a", gated=True, revision=revision_of_set(manifest))])


CRASHED = [container_status(lastState=terminated(1, "CUDA error"))]
SLOW = [container_status(started=False, state={"running": {"startedAt": time_text(601)}})]
NOT_SET_UP = {"type": "PodReadyToStartContainers", "status": "False", "lastTransitionTime": time_text(120)}
OUTDATED = serving(gpu_set(), ("llama-x", "a"), ("llama-y", "a"), revision="old")


def not_set_up() -> Observed:
    pod = member(ONE, "llama-x", node="a")
    pod["status"]["conditions"].append(NOT_SET_UP)
    return observed(ONE, [pod])


def of_a_model(manifest: dict[str, Any], config: dict[str, Any]) -> Observed:
    """One replica that has said this of its model and does not serve."""
    return loading(manifest, inits=saying(config))


def backing_off() -> dict[str, Any]:
    held = Backoff(failures=2, failed_at=NOW, group="llama-x", why="NCCL error")
    return {**ONE, "status": {"backoff": backoff_status(held)}}


def nodes_that_did_not_come() -> Observed:
    asked = planned(asking_set(), later=-600)
    placeholders = live(asked)
    for pod in placeholders:
        pod["metadata"]["creationTimestamp"] = time_text(600)
    seen = observed(remembered(asking_set(), asked), snapshot=cluster())
    return replace(seen, placeholders=placeholders_shown(placeholders))


SPEC, PLACED, ROUTER = ConditionType.SPEC_VALID, ConditionType.PLACED, ConditionType.ROUTER_READY
AVAILABLE, PROGRESSING = ConditionType.AVAILABLE, ConditionType.PROGRESSING
SCALING = ConditionType.SCALING_ACTIVE


@pytest.mark.holds("draining.md", "Each reason of `Progressing` in the table is given")
@pytest.mark.holds("placement.md", "Each reason of `Placed` in the table is given")
@pytest.mark.parametrize(
    ("seen", "kind", "status", "reason"),
    [
        pytest.param(observed(ONE), SPEC, "True", Reason.VALID, id="nothing is wrong"),
        pytest.param(observed(gpu_set(shiny=True)), SPEC, "True", Reason.FIELDS_IGNORED, id="a newer field"),
        pytest.param(
            of_a_model(a_set(tensor=1, replicas=1), LLAMA_70B),
            SPEC,
            "False",
            Reason.MODEL_DOES_NOT_FIT,
            id="70B on one accelerator",
        ),
        pytest.param(
            of_a_model(gpu_set(parallelism={"tensor": 8}), QWEN2_7B),
            SPEC,
            "False",
            Reason.TENSOR_DOES_NOT_DIVIDE_HEADS,
            id="28 heads on eight accelerators",
        ),
        pytest.param(
            of_a_model(a_set(traffic={"sharedPrefixTokens": 131_072}), LLAMA_8B),
            SPEC,
            "False",
            Reason.SHARED_PREFIX_IGNORED,
            id="a prefix as long as a sequence may be",
        ),
        pytest.param(
            observed(ONE, serving(ONE, ("llama-x", "a"))),
            PLACED,
            "True",
            Reason.ALL_PLACED,
            id="every replica has its node",
        ),
        pytest.param(
            observed(model_replica_set()), PLACED, "True", Reason.LEFT_TO_SCHEDULER, id="no accelerator"
        ),
        pytest.param(
            observed(ONE, snapshot=FULL), PLACED, "False", Reason.INSUFFICIENT_CAPACITY, id="no room now"
        ),
        pytest.param(
            observed(ONE, snapshot=cluster(node("a", gpus=2))),
            PLACED,
            "False",
            Reason.NO_NODE_CAN_FIT,
            id="no node that is large enough",
        ),
        pytest.param(
            observed(model_replica_set(), [member(model_replica_set(), "llama-x", scheduler="no cpu")]),
            PLACED,
            "False",
            TroubleReason.UNSCHEDULABLE,
            id="the scheduler finds no node",
        ),
        pytest.param(
            observed(backing_off()), PLACED, "False", Reason.BACKING_OFF, id="pods were refused twice"
        ),
        pytest.param(
            observed(asking_set(), snapshot=cluster()),
            PLACED,
            "False",
            Reason.NODES_REQUESTED,
            id="nodes are asked for",
        ),
        pytest.param(
            nodes_that_did_not_come(),
            PLACED,
            "False",
            Reason.NODE_PROVISIONING_TIMED_OUT,
            id="nodes did not come",
        ),
        pytest.param(observed(ONE), ROUTER, "True", Reason.ROUTER_AVAILABLE, id="a router is ready"),
        pytest.param(
            observed(
                ONE, serving(ONE, ("llama-x", "a")), load=RouterLoad(unusable={"llama-x": "the id is taken"})
            ),
            ROUTER,
            "False",
            Reason.REPLICA_UNUSABLE,
            id="routers send a replica nothing",
        ),
        pytest.param(
            observed(
                ONE, serving(ONE, ("llama-x", "a")), load=RouterLoad(unusable={"llama-y": "it is over"})
            ),
            ROUTER,
            "True",
            Reason.ROUTER_AVAILABLE,
            id="routers send a pod nothing that is no replica any more",
        ),
        pytest.param(
            observed(ONE, router_ready=False), ROUTER, "False", Reason.ROUTER_STARTING, id="no router yet"
        ),
        pytest.param(
            replace(
                observed(ONE, router_ready=False),
                router_trouble=Trouble(reason=TroubleReason.ROUTER_CRASHING, message="cannot bind"),
            ),
            ROUTER,
            "False",
            TroubleReason.ROUTER_CRASHING,
            id="every router crashes",
        ),
        pytest.param(
            observed(ONE, foreign=["Service llama-model"]),
            ROUTER,
            "False",
            Reason.NAME_TAKEN,
            id="a service of somebody else's",
        ),
        pytest.param(
            observed(ONE, serving(ONE, ("llama-x", "a"))),
            AVAILABLE,
            "True",
            Reason.REPLICAS_AVAILABLE,
            id="a replica serves",
        ),
        pytest.param(loading(), AVAILABLE, "False", Reason.NO_REPLICA_READY, id="a replica loads"),
        pytest.param(
            observed(gpu_set(replicas=0)), AVAILABLE, "True", Reason.SCALED_TO_ZERO, id="none is wanted"
        ),
        pytest.param(
            loading(containers=[container_status(**waiting("ErrImagePull", "unknown"))]),
            AVAILABLE,
            "False",
            TroubleReason.IMAGE_PULL_FAILED,
            id="the image is not there",
        ),
        pytest.param(
            loading(inits=[container_status("fetch-model", state=terminated(1, "no such model"))]),
            AVAILABLE,
            "False",
            TroubleReason.MODEL_FETCH_FAILED,
            id="the model is not there",
        ),
        pytest.param(
            loading(containers=CRASHED),
            AVAILABLE,
            "False",
            TroubleReason.ENGINE_CRASHING,
            id="the engine crashes",
        ),
        pytest.param(
            loading(containers=SLOW),
            AVAILABLE,
            "False",
            TroubleReason.ENGINE_SLOW_TO_START,
            id="no first answer",
        ),
        pytest.param(
            not_set_up(), AVAILABLE, "False", TroubleReason.POD_SETUP_SLOW, id="volumes do not come"
        ),
        pytest.param(
            loading(containers=[container_status(**waiting("CreateContainerConfigError", "no secret"))]),
            AVAILABLE,
            "False",
            TroubleReason.CONTAINER_CONFIG_ERROR,
            id="the container cannot be made",
        ),
        pytest.param(
            scaled(RouterLoad(waiting=0, running=0, idle_seconds=1.0)),
            SCALING,
            "True",
            Reason.REPLICAS_IGNORED,
            id="autoscaling decides",
        ),
        pytest.param(scaled(RouterLoad()), SCALING, "False", Reason.NO_FIGURES, id="no router answers"),
        pytest.param(
            observed(ONE, serving(ONE, ("llama-x", "a"))),
            PROGRESSING,
            "False",
            Reason.SETTLED,
            id="nothing is left to do",
        ),
        pytest.param(loading(), PROGRESSING, "True", Reason.SCALING, id="a replica is missing"),
        pytest.param(observed(gpu_set(), OUTDATED), PROGRESSING, "True", Reason.UPDATING, id="old replicas"),
        pytest.param(
            observed(rolling_out(ONE), serving(ONE, ("llama-x", "a"))),
            PROGRESSING,
            "True",
            Reason.ON_TRIAL,
            id="the last old replica has gone",
        ),
        pytest.param(
            observed(gpu_set(), OUTDATED, snapshot=cluster(node("a"))),
            PROGRESSING,
            "False",
            Reason.UPDATE_WAITS_FOR_ROOM,
            id="no room for one more",
        ),
        pytest.param(
            observed(rolling_out(gpu_set(), progressTime=time_text(1800)), OUTDATED),
            PROGRESSING,
            "False",
            Reason.ROLLED_BACK,
            id="no new replica got on in time",
        ),
        pytest.param(
            observed(
                rolling_out(
                    gpu_set(),
                    failedRevision=revision_of_set(gpu_set()),
                    message="it made no progress",
                    rollbackPending=True,
                    rollbackRefusal="spec.engine.image begins with no allowed prefix",
                    rollbackRefusedTime=time_text(10),
                ),
                OUTDATED,
            ),
            PROGRESSING,
            "False",
            Reason.ROLLBACK_REFUSED,
            id="the older spec would be refused",
        ),
        pytest.param(
            observed(gpu_set(paused=True), OUTDATED),
            PROGRESSING,
            "False",
            Reason.UPDATE_PAUSED,
            id="paused in an update",
        ),
        pytest.param(observed(gpu_set(paused=True)), PROGRESSING, "False", Reason.PAUSED, id="paused"),
        pytest.param(
            observed(
                ONE, serving(ONE, ("llama-x", "a")), snapshot=cluster(node("a", cordoned=True), node("b"))
            ),
            PROGRESSING,
            "True",
            Reason.EMPTYING_NODES,
            id="a node is cordoned",
        ),
        pytest.param(
            rebalancing(that_moves()), PROGRESSING, "True", Reason.REBALANCING, id="a replica moves"
        ),
    ],
)
def test_conditions(seen: Observed, kind: ConditionType, status: str, reason: Reason) -> None:
    assert shown(plan(seen, NOW), kind) == (status, reason)


def new_key() -> Observed:
    return replace(observed(ONE), engine_key=EngineKey(missing=True, made_anew=time_text(), lost=True))


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        pytest.param(observed(ONE), EventReason.GROUP_PLACED, id="a replica gets its node"),
        pytest.param(
            observed(model_replica_set()), EventReason.GROUP_CREATED, id="a replica is left to the scheduler"
        ),
        pytest.param(
            observed(after(ONE, [member(ONE, "llama-x", node="a", pin="a")]), serving(ONE, ("llama-x", "a"))),
            EventReason.GROUP_READY,
            id="a replica serves",
        ),
        pytest.param(
            loading(node=None, age=31), EndingReason.RELEASED, id="a pinned pod is not bound in time"
        ),
        pytest.param(loading(node="gone"), EndingReason.LOST, id="the node is gone"),
        pytest.param(
            pair(deleting=True, disrupted="EvictionByEvictionAPI"),
            EndingReason.EVICTED,
            id="a stage is evicted",
        ),
        pytest.param(loading(phase="Failed"), EndingReason.FAILED, id="a pod is over"),
        pytest.param(gated_half(), EndingReason.INCOMPLETE, id="the last pod could not be created"),
        pytest.param(
            observed(gpu_set(replicas=0), serving(gpu_set(replicas=0), ("llama-x", "a"))),
            EventReason.GROUP_DRAINING,
            id="a replica is not wanted any more",
        ),
        pytest.param(
            observed(ONE, [drained(serving(ONE, ("llama-x", "a"))[0], 5)]),
            EventReason.GROUP_RETURNED,
            id="a replica that drains is wanted again",
        ),
        pytest.param(
            observed(gpu_set(replicas=0), [drained(serving(gpu_set(replicas=0), ("llama-x", "a"))[0], 9999)]),
            EventReason.GROUP_REMOVED,
            id="a drain has ended",
        ),
        pytest.param(rebalancing(to_rebalance()), EventReason.GROUP_MOVES, id="a move begins"),
        pytest.param(that_has_moved(), EventReason.REBALANCED, id="every move is done"),
        pytest.param(
            rebalancing(that_moves(), full=True), EventReason.REBALANCE_STOPPED, id="somebody took the room"
        ),
        pytest.param(new_key(), EventReason.ENGINE_KEY_LOST, id="the engines' key is gone"),
    ],
)
def test_events(seen: Observed, reason: EventReason) -> None:
    assert reason in reasons(plan(seen, NOW))
