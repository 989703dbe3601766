"""A roll-back asks the API server whether it would take the older spec, and does nothing until it would."""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.cluster.writes import DryRun
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS
from tests.builders.model_replica_set import gpu_set
from tests.builders.pods import NOW, time_text
from tests.controllers.model_replica_set.test_plan import member, observed, revision_of_set
from tests.support.planned import plan_of_set, told_of_set

SAYS = "ValidatingAdmissionPolicy 'images' denied request: spec.engine.image begins with no allowed prefix"


def failing(**rollout: Any) -> Observed:
    """A set whose update has not got on for its deadline."""
    labels = {"team": "a"}
    notes = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "example.com/why": "x"}
    manifest = gpu_set()
    manifest = {**manifest, "metadata": {**manifest["metadata"], "labels": labels, "annotations": notes}}
    held = {
        "revision": revision_of_set(manifest),
        "goodRevision": "old",
        "outdatedReplicas": 2,
        "progressTime": time_text(1800),
        **rollout,
    }
    pods = [member(manifest, f"llama-{i}", node="a", ready=True, revision="old") for i in "xy"]
    return observed({**manifest, "status": {"rollout": held}}, pods)


def waiting(seconds: float, **rollout: Any) -> Observed:
    """One that has failed, and whose older spec was refused so long ago."""
    failed = {"failedRevision": revision_of_set(gpu_set()), "message": "it made no progress"}
    refused = {"rollbackRefusal": SAYS, "rollbackRefusedTime": time_text(seconds)}
    return failing(**{**failed, "rollbackPending": True, **refused, **rollout})


def asked(seen: Observed) -> list[DryRun]:
    return [write for write in plan_of_set(seen, NOW).writes if isinstance(write, DryRun)]


def refused(seen: Observed, reason: WriteReason, message: str = SAYS) -> RefusedWrite:
    return RefusedWrite(ref=MODEL_REPLICA_SETS.ref_to(seen.manifest), reason=reason, message=message)


def test_the_older_spec_is_sent_as_a_new_object_of_its_labels() -> None:
    (write,) = asked(failing())
    metadata = write.manifest["metadata"]
    assert metadata["generateName"] == "llama-"
    assert "name" not in metadata
    assert metadata["labels"] == {"team": "a"}
    assert metadata["annotations"] == {"example.com/why": "x"}
    assert write.manifest["spec"]["model"]["name"]
    assert "status" not in write.manifest


@pytest.mark.parametrize(
    ("seen", "is_asked"),
    [
        pytest.param(failing(), True, id="it has just failed"),
        pytest.param(failing(progressTime=time_text(10)), False, id="it has not failed"),
        pytest.param(waiting(299), False, id="it was refused a moment ago"),
        pytest.param(waiting(300), True, id="it was refused five minutes ago"),
        pytest.param(waiting(300, rollbackPending=None), False, id="it was rolled back by an older operator"),
    ],
)
def test_when_the_api_server_is_asked(seen: Observed, is_asked: bool) -> None:
    assert bool(asked(seen)) == is_asked


@pytest.mark.holds(
    "security.md",
    "Before a roll-back the API server is asked by a dry run; what it refuses is not brought back",
)
@pytest.mark.parametrize("reason", [WriteReason.INVALID, WriteReason.FORBIDDEN])
def test_what_is_refused_is_quoted_and_not_brought_back(reason: WriteReason) -> None:
    seen = failing()
    told = told_of_set(seen, [refused(seen, reason)], NOW)
    assert told.status is not None
    conditions = {one["type"]: one for one in told.status["conditions"]}
    for kind in ("Progressing", "Ready"):
        assert conditions[kind]["reason"] == Reason.ROLLBACK_REFUSED
        assert SAYS in conditions[kind]["message"]
    assert conditions["Stalled"]["status"] == "True"
    rollout = told.status["rollout"]
    assert (rollout["rollbackPending"], rollout["rollbackRefusal"]) == (True, SAYS)
    assert rollout["rollbackRefusedTime"] == time_text(0)
    assert told_of_set(seen, [refused(seen, reason)], NOW + timedelta(seconds=1)).status is not None


def test_what_is_taken_is_brought_back() -> None:
    told = told_of_set(failing(), [], NOW)
    assert told.status is not None
    conditions = {one["type"]: one for one in told.status["conditions"]}
    assert conditions["Progressing"]["reason"] == Reason.ROLLED_BACK
    assert told.status["rollout"]["rollbackPending"] is None


@pytest.mark.parametrize("reason", [WriteReason.FAILED, WriteReason.CONFLICT])
def test_without_an_answer_nothing_is_brought_back_and_it_is_asked_again(reason: WriteReason) -> None:
    seen = failing()
    told = told_of_set(seen, [refused(seen, reason, "no answer")], NOW)
    assert told.status is not None
    conditions = {one["type"]: one for one in told.status["conditions"]}
    assert conditions["Progressing"]["reason"] == Reason.PROGRESS_DEADLINE_EXCEEDED
    assert "once the API server has said" in conditions["Progressing"]["message"]
    assert told.status["rollout"]["rollbackPending"] is True
    assert told.status["rollout"]["rollbackRefusedTime"] is None
