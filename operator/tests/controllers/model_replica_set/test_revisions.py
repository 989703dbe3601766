"""Events that stop an update's clock, and words on an update that has failed; the judgement itself:
test_rollout.
"""

from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.revisions.answers import Answers
from tests.builders.model_replica_set import gpu_set, said
from tests.builders.placement import cluster, node
from tests.builders.pods import NOW, time_text
from tests.controllers.model_replica_set.test_plan import member, observed, revision_of_set, shown
from tests.support.planned import plan_of_set as plan

DEADLINE_SECONDS = 1800


ASKS = {"nodeProvisioning": {"mode": "Placeholders", "timeoutSeconds": 600}}
GAVE_UP = {"timeouts": 1, "placeholders": 0, "bound": 0, "retryTime": time_text(-300)}
LEFT_TO_SCHEDULER = {"accelerator": None, "parallelism": {"tensor": 1}}
NO_CPU = "0/3 nodes are available: 3 Insufficient cpu."
NO_LABEL = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
BIG, FULL, SMALL = 8, 4, 2  # GPUs of the node on which the old replica holds four


def backoff(reason: str, until: float) -> dict[str, Any]:
    """Replicas that failed or were refused, which are tried again in so many seconds."""
    held = {"failures": 4, "failedTime": time_text(10), "untilTime": time_text(-until), "reason": reason}
    return {"backoff": held, "conditions": [said("Placed", "BackingOff")]}


def updating(status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A set of one replica whose update has not got on for its deadline."""
    manifest = gpu_set(replicas=1, **spec)
    rollout = {
        "revision": revision_of_set(manifest),
        "goodRevision": "old",
        "outdatedReplicas": 1,
        "progressTime": time_text(DEADLINE_SECONDS),
    }
    return {**manifest, "status": {"observedGeneration": 1, "rollout": rollout, **status}}


@pytest.mark.holds(
    "draining.md", "Time in which it waits for room, drains, is at zero or paused does not count"
)
@pytest.mark.holds(
    "draining.md", "What fits no node after an autoscaler was asked in vain is no lack of room"
)
@pytest.mark.parametrize(
    ("status", "spec", "gpus", "new", "fails"),
    [
        pytest.param({}, {}, FULL, {}, False, id="no node has room"),
        pytest.param({}, {}, SMALL, {}, True, id="no node will ever hold it"),
        pytest.param({}, {"placement": ASKS}, SMALL, {}, False, id="a bigger node is on its way"),
        pytest.param(
            {"placement": {"nodeProvisioning": GAVE_UP}},
            {"placement": ASKS},
            SMALL,
            {},
            True,
            id="a bigger node was asked for in vain",
        ),
        pytest.param(
            {"placement": {"nodeProvisioning": GAVE_UP}},
            {"placement": ASKS},
            FULL,
            {},
            False,
            id="the node pool is at its limit",
        ),
        pytest.param({}, LEFT_TO_SCHEDULER, BIG, {"scheduler": NO_CPU}, False, id="no CPU is free"),
        pytest.param({}, LEFT_TO_SCHEDULER, BIG, {"scheduler": NO_LABEL}, True, id="no node has its labels"),
        pytest.param(
            {"conditions": [said("Placed", "QuotaExceeded")]},
            {},
            BIG,
            {},
            False,
            id="a quota has just refused its pods",
        ),
        pytest.param(backoff("QuotaExceeded", 30), {}, BIG, {}, False, id="it backs off for a quota"),
        pytest.param(backoff("Forbidden", 30), {}, BIG, {}, True, id="pod security refuses them"),
        pytest.param(backoff("GroupFailed", 300), {}, BIG, {}, True, id="its replicas crash"),
        pytest.param({}, {}, BIG, {"pin": "a", "node": "a"}, True, id="it has room and does not get ready"),
    ],
)
def test_time_in_which_an_update_waits_for_room_does_not_count(
    status: dict[str, Any], spec: dict[str, Any], gpus: int, new: dict[str, Any], fails: bool
) -> None:
    """`new` is the pod of the new replica, where it has one."""
    manifest = updating(status, **spec)
    pods = [member(manifest, "llama-old", node="a", ready=True, revision="old")]
    pods += [member(manifest, "llama-new", **new)] if new else []
    done = plan(observed(manifest, pods, snapshot=cluster(node("a", gpus=gpus))), NOW)
    assert done.status is not None
    assert bool(done.status["rollout"]["failedRevision"]) == fails


GOOD, BAD = Answers(count=100, failed=0, kept=99), Answers(count=100, failed=9, kept=50)


@pytest.mark.holds("draining.md", "`update.rollback: false` only says so")
@pytest.mark.holds("draining.md", "Each reason of `Progressing` in the table is given")
@pytest.mark.parametrize(
    ("slo", "seconds", "answers", "reason", "fault"),
    [
        pytest.param(
            None, DEADLINE_SECONDS, {}, Reason.PROGRESS_DEADLINE_EXCEEDED, "NotReady", id="it does not get on"
        ),
        pytest.param(
            {"attainment": 0.95, "ttftSeconds": 2},
            0,
            {"llama-new": BAD, "llama-old": GOOD},
            Reason.MISSES_SLO,
            "MissesSLO",
            id="it breaks the SLO that the old one keeps",
        ),
        pytest.param(
            None, 0, {"llama-new": BAD}, Reason.FAILED_ANSWERS, "FailedAnswers", id="it answers 5xx"
        ),
    ],
)
def test_an_update_that_fails_and_is_kept_says_what_is_wrong_with_it(
    slo: dict[str, Any] | None, seconds: float, answers: dict[str, Answers], reason: Reason, fault: str
) -> None:
    wish: dict[str, Any] = {"update": {"rollback": False}} | ({"slo": slo} if slo else {})
    manifest = gpu_set(replicas=2, **wish)
    before = {"goodRevision": "old", "outdatedReplicas": 1, "progressTime": time_text(seconds)}
    held = {"revision": revision_of_set(manifest), **before}
    pods = [
        member(manifest, "llama-old", node="a", ready=True, revision="old"),
        member(manifest, "llama-new", node="a", ready=bool(answers)),
    ]
    seen = observed({**manifest, "status": {"rollout": held}}, pods, load=RouterLoad(answers=answers))
    done = plan(seen, NOW)
    assert shown(done, "Progressing") == ("False", reason)
    assert done.status is not None
    assert done.status["rollout"]["fault"] == fault
    assert ModelReplicaSet.model_validate({**manifest, "status": done.status}).status is not None


@pytest.mark.holds(
    "draining.md", "While a router is silent a trial goes on, and the others can only prove a fault"
)
@pytest.mark.parametrize(
    ("load", "on_trial"),
    [
        pytest.param(RouterLoad(), True, id="no router has answered since the operator was started"),
        pytest.param(RouterLoad(answers={"llama-x": Answers(count=5000)}), True, id="one router is silent"),
        pytest.param(
            RouterLoad(answers={"llama-x": Answers(count=5051)}, idle_seconds=0.0), False, id="all answer"
        ),
    ],
)
def test_a_trial_does_not_end_while_a_router_is_silent(load: RouterLoad, on_trial: bool) -> None:
    manifest = gpu_set(replicas=1)
    before = {"count": 5000, "failed": 0, "kept": 5000}
    held = {
        "revision": revision_of_set(manifest),
        "goodRevision": "old",
        "readyReplicas": 1,
        "mostReadyReplicas": 1,
        "trialTime": time_text(5),
        "answers": before,
        "answersBeforeTrial": before,
    }
    pods = [member(manifest, "llama-x", node="a", ready=True)]
    done = plan(observed({**manifest, "status": {"rollout": held}}, pods, load=load), NOW)
    assert done.status is not None
    assert done.status["rollout"]["answersBeforeTrial"] == (before if on_trial else None)
    assert bool(done.status["rollout"]["trialTime"]) == on_trial
