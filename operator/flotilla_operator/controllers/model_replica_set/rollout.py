"""Whether a new revision is good: a pure judgement over its groups, their answers, and the time.

A revision is good once every wanted group runs it and is ready. Until then it can fail: when for
`progressDeadlineSeconds` nothing gets on, or when what it answers is bad while it is rolled out. Then the
operator goes on with the last good revision (records.py keeps what it was made from) until the spec is
changed again. Time in which the update waits for room does not count, for that is no fault of the revision,
nor does that in which an old replica drains, or in which no replica is wanted.

What must be remembered stands in the set's status, so an operator that was restarted goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from flotilla_operator.api.model_replica_set import Update
from flotilla_operator.controllers.conditions import parsed_timestamp, timestamp
from flotilla_operator.controllers.model_replica_set.life import ReplicaGroup

ANSWERS_NEEDED = 50
FAILED_SHARE_ALLOWED = 0.05  # where no SLO says what is good


class Fault(StrEnum):
    """Why a revision has failed."""

    NOT_READY = "NotReady"
    MISSES_SLO = "MissesSLO"
    FAILED_ANSWERS = "FailedAnswers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was answered, and how."""

    count: int = 0
    failed: int = 0
    kept: int = 0

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(
            count=self.count + other.count, failed=self.failed + other.failed, kept=self.kept + other.kept
        )

    @property
    def attainment(self) -> float:
        """The share that kept the promise."""
        return self.kept / self.count if self.count else 1.0

    @property
    def failed_share(self) -> float:
        """The share of 5xx."""
        return self.failed / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What is remembered: the revision being rolled out or run, the last good one, the one that failed and
    why, and how far it was when it last got on.
    """

    revision: str = ""
    good: str = ""
    failed: str = ""
    message: str = ""
    ready: int = 0
    outdated: int = 0
    progress_at: datetime | None = None

    @classmethod
    def of_status(cls, status: Mapping[str, Any]) -> "Rollout":
        """As the last plan wrote it."""
        held = status.get("rollout") or {}
        at = held.get("progressTime")
        return cls(
            revision=held.get("revision", ""),
            good=held.get("goodRevision", ""),
            failed=held.get("failedRevision", ""),
            message=held.get("message", ""),
            ready=held.get("readyReplicas", 0),
            outdated=held.get("outdatedReplicas", 0),
            progress_at=parsed_timestamp(at) if at else None,
        )

    @property
    def status(self) -> dict[str, Any]:
        """As it stands in the status."""
        return {
            "revision": self.revision,
            "goodRevision": self.good or None,
            "failedRevision": self.failed or None,
            "message": self.message or None,
            "readyReplicas": self.ready,
            "outdatedReplicas": self.outdated,
            "progressTime": timestamp(self.progress_at) if self.progress_at else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a judgement rests on; `revision` is what the spec asks for, `attainment` what the SLO does."""

    revision: str
    wanted: int
    groups: Sequence[ReplicaGroup]
    update: Update
    attainment: float | None = None
    answers: Mapping[str, Answers] = field(default_factory=dict)
    waits_for_room: bool = False
    can_go_back: bool = True

    @property
    def updated(self) -> list[ReplicaGroup]:
        """The groups of the new revision that stay, or that have just failed."""
        return [
            group
            for group in self.groups
            if group.revision == self.revision and (group.lives or group.ending is not None)
        ]

    @property
    def ready(self) -> int:
        """How many groups of the new revision serve."""
        return sum(group.ready and group.lives for group in self.updated)

    @property
    def outdated(self) -> int:
        """How many groups of others are there still."""
        return sum(group.revision != self.revision for group in self.groups)

    def answered(self, *, new: bool) -> Answers:
        """The answers of the new revision, or of all others."""
        return sum(
            (
                self.answers.get(group.name, Answers())
                for group in self.groups
                if (group.revision == self.revision) is new
            ),
            Answers(),
        )


def judged(before: Rollout, seen: Evidence, now: datetime) -> Rollout:
    """What to remember now; `failed` is set when the revision has failed, and to be taken back."""
    if seen.update.rollback and seen.can_go_back and before.failed == seen.revision:
        return before
    if before.revision != seen.revision or before.failed:
        before = Rollout(revision=seen.revision, good=before.good, progress_at=now)
    got_on = (
        seen.ready > before.ready
        or seen.outdated < before.outdated
        or seen.waits_for_room
        or not seen.wanted
        or any(group.revision != seen.revision and group.may_return for group in seen.groups)
    )
    after = replace(
        before,
        ready=max(before.ready, seen.ready),
        outdated=seen.outdated,
        progress_at=now if got_on or before.progress_at is None else before.progress_at,
        message="",
    )
    if seen.wanted and seen.ready >= seen.wanted and not seen.outdated:
        return replace(after, good=seen.revision, progress_at=None)
    if before.good == seen.revision:
        return replace(after, progress_at=None)
    fault = fault_of(after, seen, now)
    if fault is None:
        return after
    message = _message(fault, seen)
    can_go_back = seen.update.rollback and after.good and seen.can_go_back
    return replace(after, message=message, failed=seen.revision if can_go_back else "")


def fault_of(rollout: Rollout, seen: Evidence, now: datetime) -> Fault | None:
    """What is wrong with a revision that is being rolled out, the surest first."""
    deadline = timedelta(seconds=seen.update.progress_deadline_seconds)
    if rollout.progress_at is not None and now - rollout.progress_at >= deadline:
        return Fault.NOT_READY
    new, old = seen.answered(new=True), seen.answered(new=False)
    if new.count < ANSWERS_NEEDED:
        return None
    if seen.attainment is not None:
        worse = new.attainment < seen.attainment <= old.attainment and old.count
        return Fault.MISSES_SLO if worse else None
    return Fault.FAILED_ANSWERS if new.failed_share > FAILED_SHARE_ALLOWED else None


def _message(fault: Fault, seen: Evidence) -> str:
    new, old = seen.answered(new=True), seen.answered(new=False)
    trouble = next((group.trouble.message for group in seen.updated if group.trouble is not None), "")
    return {
        Fault.NOT_READY: f"no replica of it got on for {seen.update.progress_deadline_seconds} s"
        + (f": {trouble}" if trouble else ""),
        Fault.MISSES_SLO: f"{new.attainment:.0%} of its {new.count} answers kept spec.slo, "
        f"{old.attainment:.0%} of the old revision's did",
        Fault.FAILED_ANSWERS: f"{new.failed_share:.0%} of its {new.count} answers were 5xx",
    }[fault]
