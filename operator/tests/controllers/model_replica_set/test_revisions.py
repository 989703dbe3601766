"""What keeps an update's clock from running, and what is said of one that has failed; the judgement itself:
test_rollout.
"""

from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.replicas.evidence import Answers
from flotilla_operator.replicas.facts import RouterLoad
from tests.builders.model_replica_set import gpu_set, said
from tests.builders.placement import cluster, node
from tests.builders.pods import NOW, time_text
from tests.controllers.model_replica_set.test_plan import member, observed, revision_of_set, shown
from tests.support.planned import plan_of_set as plan

DEADLINE_SECONDS = 1800


def updating(placed: str, failed: str | None) -> dict[str, Any]:
    """A set whose update has not got on for its deadline, with what its last plan said of room."""
    manifest = gpu_set(replicas=1)
    before = {
        "revision": revision_of_set(manifest),
        "goodRevision": "old",
        "outdatedReplicas": 1,
        "progressTime": time_text(DEADLINE_SECONDS),
    }
    held = {"failures": 4, "failedTime": time_text(10), "untilTime": time_text(-30), "reason": failed}
    status = {
        "observedGeneration": 1,
        "rollout": before,
        "conditions": [said("Placed", *placed.split(": ", 1))],
        "backoff": held if failed else None,
    }
    return {**manifest, "status": status}


@pytest.mark.parametrize(
    ("placed", "failed", "fails"),
    [
        pytest.param("InsufficientCapacity", None, False, id="no node has room"),
        pytest.param("NodesRequested", None, False, id="nodes are on their way"),
        pytest.param("NodeProvisioningTimedOut", None, False, id="the node pool is at its limit"),
        pytest.param(
            "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.", None, False, id="no CPU is free"
        ),
        pytest.param(
            "Unschedulable: 0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
            None,
            True,
            id="no node has its labels",
        ),
        pytest.param("QuotaExceeded", None, False, id="a quota has just refused its pods"),
        pytest.param("BackingOff", "QuotaExceeded", False, id="it backs off since a quota refused them"),
        pytest.param("BackingOff", "Forbidden", True, id="pod security refuses them"),
        pytest.param("BackingOff", "GroupFailed", True, id="its replicas crash"),
        pytest.param("NoNodeCanFit", None, True, id="no node will ever hold it"),
        pytest.param("AllPlaced", None, True, id="it has room and does not get ready"),
    ],
)
def test_time_in_which_an_update_waits_for_room_does_not_count(
    placed: str, failed: str | None, fails: bool
) -> None:
    manifest = updating(placed, failed)
    pods = [member(manifest, "llama-old", node="a", ready=True, revision="old")]
    done = plan(observed(manifest, pods), NOW)
    assert done.status is not None
    assert bool(done.status["rollout"]["failedRevision"]) == fails


@pytest.mark.parametrize(
    ("placed", "gpus", "fails"),
    [
        pytest.param("NodesRequested", 2, False, id="a bigger node may come"),
        pytest.param("NodeProvisioningTimedOut", 2, True, id="no bigger node has come"),
        pytest.param("NodeProvisioningTimedOut", 4, False, id="it would fit if there were more of the same"),
    ],
)
def test_an_update_that_fits_no_node_fails_once_a_node_was_asked_for_in_vain(
    placed: str, gpus: int, fails: bool
) -> None:
    manifest = updating(placed, None)
    pods = [member(manifest, "llama-old", node="a", ready=True, revision="old")]
    done = plan(observed(manifest, pods, snapshot=cluster(node("a", gpus=gpus))), NOW)
    assert done.status is not None
    assert bool(done.status["rollout"]["failedRevision"]) == fails


GOOD, BAD = Answers(count=100, failed=0, kept=99), Answers(count=100, failed=9, kept=50)


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
