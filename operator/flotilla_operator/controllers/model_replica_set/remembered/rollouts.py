"""`status.rollout`, read and written."""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.model_replica_set import (
    AnswersStatus,
    RolloutStatus,
)
from flotilla_operator.controllers.stored_status import stored_part
from flotilla_operator.objects.times import known_time, known_timestamp
from flotilla_operator.replicas.revisions.answers import NO_ANSWERS, Answers
from flotilla_operator.replicas.revisions.rollout import Fault, Rollout

Json = Mapping[str, Any]


def rollout_of(held: Json | None) -> Rollout:
    """The rollout as the status has it."""
    found = stored_part(RolloutStatus, held)
    if found is None:
        return Rollout()
    return Rollout(
        revision=found.revision,
        good=found.good_revision or "",
        failed=found.failed_revision or "",
        fault=Fault(found.fault) if found.fault in tuple(Fault) else None,
        message=found.message or "",
        ready=found.ready_replicas,
        most_ready=found.most_ready_replicas,
        outdated=found.outdated_replicas,
        progress_at=known_time(found.progress_time),
        trial_since=known_time(found.trial_time),
        stopped_at=known_time(found.clock_stopped_time),
        answers=_answers(found.answers),
        before_trial=_answers(found.answers_before_trial),
        old_answers=_answers(found.old_answers),
        asks_leave=bool(found.rollback_pending),
        asked_at=known_time(found.rollback_refused_time),
        refusal=found.rollback_refusal or "",
    )


def rollout_status(rollout: Rollout) -> dict[str, Any]:
    """`status.rollout`."""
    return {
        "revision": rollout.revision,
        "goodRevision": rollout.good or None,
        "failedRevision": rollout.failed or None,
        "fault": None if rollout.fault is None else str(rollout.fault),
        "message": rollout.message or None,
        "readyReplicas": rollout.ready,
        "mostReadyReplicas": rollout.most_ready,
        "outdatedReplicas": rollout.outdated,
        "progressTime": known_timestamp(rollout.progress_at),
        "trialTime": known_timestamp(rollout.trial_since),
        "clockStoppedTime": known_timestamp(rollout.stopped_at),
        "answers": _answers_status(rollout.answers),
        "answersBeforeTrial": _answers_status(rollout.before_trial),
        "oldAnswers": _answers_status(rollout.old_answers),
        "rollbackPending": rollout.asks_leave or None,
        "rollbackRefusal": rollout.refusal or None,
        "rollbackRefusedTime": known_timestamp(rollout.asked_at),
    }


def _answers(held: AnswersStatus | None) -> Answers:
    return NO_ANSWERS if held is None else Answers(count=held.count, failed=held.failed, kept=held.kept)


def _answers_status(answers: Answers) -> dict[str, int] | None:
    if not answers.count:
        return None
    return {"count": answers.count, "failed": answers.failed, "kept": answers.kept}
