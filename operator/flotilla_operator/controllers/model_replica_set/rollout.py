"""Whether a new revision is good: a pure judgement over its groups, their answers, and the time.

Until every wanted group runs it and is ready, a revision can fail: when for `progressDeadlineSeconds` nothing
gets on, or when what it answers is bad. From then on it is on trial until it has given as many answers as
prove something, or for half an hour: many a revision does badly only under the whole load, or is rolled out
before anybody asks. What the old revision's answers were like is remembered for that, since its groups are
gone. A revision that fails is left, and the operator goes on with the last good one (records.py keeps what it
was made from) until the spec is changed again. Without a way back there is no trial.

Time in which the update waits for room does not count, for that is no fault of the revision, nor does that in
which an old replica drains, no replica is wanted, or the set is paused. When the clock stops that is written
down, and when it goes on its times are moved by as long as it stood.

A spec that is changed while a revision is on trial makes that one good when all of it serves and shows no
failures, for it is what runs. If it crashes, or answers 5xx, the change is to mend that, and the last good
one stays the way back.

What must be remembered stands in the set's status, so an operator that was restarted goes on. A router that
does not answer has forgotten nothing: until all do, what was remembered of answers stays, and only what the
others tell can prove a fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from flotilla_operator.api.model_replica_set import Update
from flotilla_operator.controllers.conditions import parsed_timestamp, timestamp
from flotilla_operator.controllers.model_replica_set.evidence import NO_ANSWERS, Answers, Evidence

ANSWERS_NEEDED = 50
FAILED_SHARE_ALLOWED = 0.05  # of 5xx where no SLO says what is good; else beyond the old revision's share
TRIAL_LIMIT = timedelta(minutes=30)  # as long as routers remember an answer


class Fault(StrEnum):
    """Why a revision has failed."""

    NOT_READY = "NotReady"
    MISSES_SLO = "MissesSLO"
    FAILED_ANSWERS = "FailedAnswers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What is remembered: the revision being rolled out or run, the last good one, the one that failed, what
    its fault is in a word and in a sentence, and how far it was when it last got on; since when it is on
    trial, and its answers and those of the old revision, as far as they are needed.
    """

    revision: str = ""
    good: str = ""
    failed: str = ""
    fault: Fault | None = None
    message: str = ""
    ready: int = 0
    most_ready: int = 0
    outdated: int = 0
    progress_at: datetime | None = None
    trial_since: datetime | None = None
    stopped_at: datetime | None = None
    answers: Answers = NO_ANSWERS
    before_trial: Answers = NO_ANSWERS
    old_answers: Answers = NO_ANSWERS

    @classmethod
    def of_status(cls, status: Mapping[str, Any]) -> "Rollout":
        """As the last plan wrote it."""
        held = status.get("rollout") or {}
        at, trial = held.get("progressTime"), held.get("trialTime")
        stopped = held.get("clockStoppedTime")
        return cls(
            revision=held.get("revision", ""),
            good=held.get("goodRevision", ""),
            failed=held.get("failedRevision", ""),
            fault=Fault(held["fault"]) if held.get("fault") else None,
            message=held.get("message", ""),
            ready=held.get("readyReplicas", 0),
            most_ready=held.get("mostReadyReplicas", 0),
            outdated=held.get("outdatedReplicas", 0),
            progress_at=parsed_timestamp(at) if at else None,
            trial_since=parsed_timestamp(trial) if trial else None,
            stopped_at=parsed_timestamp(stopped) if stopped else None,
            answers=Answers.of_status(held.get("answers")),
            before_trial=Answers.of_status(held.get("answersBeforeTrial")),
            old_answers=Answers.of_status(held.get("oldAnswers")),
        )

    @property
    def status(self) -> dict[str, Any]:
        """As it stands in the status."""
        return {
            "revision": self.revision,
            "goodRevision": self.good or None,
            "failedRevision": self.failed or None,
            "fault": str(self.fault) if self.fault is not None else None,
            "message": self.message or None,
            "readyReplicas": self.ready,
            "mostReadyReplicas": self.most_ready,
            "outdatedReplicas": self.outdated,
            "progressTime": timestamp(self.progress_at) if self.progress_at else None,
            "trialTime": timestamp(self.trial_since) if self.trial_since else None,
            "clockStoppedTime": timestamp(self.stopped_at) if self.stopped_at else None,
            "answers": self.answers.status,
            "answersBeforeTrial": self.before_trial.status,
            "oldAnswers": self.old_answers.status,
        }

    def stopped(self, now: datetime) -> "Rollout":
        """From now on no time passes for it, if it has not stopped before."""
        runs = self.progress_at is not None or self.trial_since is not None
        return replace(self, stopped_at=self.stopped_at or now) if runs else self

    def going_on(self, now: datetime) -> "Rollout":
        """Time passes again; its times are moved by as long as it stood."""
        if self.stopped_at is None:
            return self
        stood = now - self.stopped_at
        return replace(
            self,
            progress_at=self.progress_at and self.progress_at + stood,
            trial_since=self.trial_since and self.trial_since + stood,
            stopped_at=None,
        )

    @property
    def trial_answers(self) -> Answers:
        """Those given on trial, as far as they can be told from earlier ones: rather too few."""
        return self.answers.since(self.before_trial) if self.trial_since is not None else NO_ANSWERS

    @property
    def does_well(self) -> bool:
        """Whether at the last look it was on trial, served with every replica, and showed no failures."""
        complete = self.trial_since is not None and self.progress_at is None and self.ready >= self.most_ready
        failed_share = max(self.answers.failed_share, self.trial_answers.failed_share)
        return complete and failed_share <= FAILED_SHARE_ALLOWED

    def trial_until(self, update: Update) -> datetime | None:
        """When its trial ends, however few answers there are; None when it is not on trial."""
        if self.trial_since is None:
            return None
        return self.trial_since + min(TRIAL_LIMIT, timedelta(seconds=update.progress_deadline_seconds))

    def trial_message(self, until: datetime) -> str:
        """What is said of a trial that ends then."""
        return (
            f"every replica is of revision {self.revision}, which is on trial until it has given "
            f"{ANSWERS_NEEDED} answers, until {timestamp(until)} at most; if it fails, revision {self.good} "
            "comes back"
        )


def judged(before: Rollout, seen: Evidence, now: datetime) -> Rollout:
    """What to remember now; `failed` is set when the revision has failed, and to be taken back."""
    if seen.way_back and before.failed == seen.revision:
        return replace(before, ready=seen.ready)
    if seen.paused:
        ready = seen.ready if before.revision == seen.revision else before.ready
        return replace(before.stopped(now), ready=ready)
    if before.revision != seen.revision or before.failed:
        before = Rollout(revision=seen.revision, good=_good_before(before, seen), progress_at=now)
    after = _brought_up_to_date(before, seen, now)
    if before.good == seen.revision or (seen.complete and not (before.good and seen.way_back)):
        return _found_good(after)
    fault = fault_of(after, seen, now)
    if fault is None:
        return _found_good(after) if _has_stood_its_trial(after, seen, now) else after
    after = replace(after, fault=fault, message=_message(fault, after, seen))
    if not (after.good and seen.way_back):
        return after
    return replace(after, failed=seen.revision, trial_since=None, stopped_at=None)


def fault_of(rollout: Rollout, seen: Evidence, now: datetime) -> Fault | None:
    """What is wrong with a revision that is being rolled out or on trial, the surest first."""
    deadline = timedelta(seconds=seen.update.progress_deadline_seconds)
    since = None if rollout.stopped_at is not None else rollout.progress_at
    if since is not None and now - since >= deadline:
        return Fault.NOT_READY
    return _bad_answers(rollout, seen)[1]


def _bad_answers(rollout: Rollout, seen: Evidence) -> tuple[Answers, Fault | None]:
    """What is wrong with its answers, and of which: all of the last half hour, or those of the trial
    alone, for beside the many good ones of a long update what is bad under the whole load is a small share.
    """
    told = seen.answered(new=True)
    for new in (told, rollout.trial_answers) if seen.answers_known else (told,):
        fault = _fault_in(new, rollout.old_answers, seen.attainment)
        if fault is not None:
            return new, fault
    return rollout.answers, None


def _fault_in(new: Answers, old: Answers, attainment: float | None) -> Fault | None:
    """What is wrong with answers beside those of the old revision. Of one that was never asked, or misses
    the SLO itself, nobody can say that it was better, but what answers 5xx beyond it is broken all the same.
    """
    if new.count < ANSWERS_NEEDED:
        return None
    if attainment is None:
        return Fault.FAILED_ANSWERS if new.failed_share > FAILED_SHARE_ALLOWED else None
    if new.attainment >= attainment:
        return None
    if old.count and old.attainment >= attainment:
        return Fault.MISSES_SLO
    return Fault.FAILED_ANSWERS if new.failed_share > old.failed_share + FAILED_SHARE_ALLOWED else None


def _good_before(before: Rollout, seen: Evidence) -> str:
    """The revision to go back to from one that is asked for now."""
    moves_on = before.does_well and not before.failed and seen.revision != before.good
    return before.revision if moves_on else before.good


def _brought_up_to_date(before: Rollout, seen: Evidence, now: datetime) -> Rollout:
    trial_since = before.trial_since or (now if seen.complete else None)
    at_rest = seen.complete or (trial_since is not None and not seen.wanted)
    got_on = before.progress_at is None or seen.ready > before.most_ready or seen.outdated < before.outdated
    stands = seen.clock_stands and not at_rest
    if got_on or not stands:
        before = before.going_on(now)
    progress_at = now if got_on else before.progress_at
    new, old = _answers(before, seen), seen.answered(new=False)
    # As old groups leave one by one, fewer and fewer answers are left of them, and in the end none.
    enough = ANSWERS_NEEDED if seen.answers_known else before.old_answers.count
    proves_more = old.count >= min(before.old_answers.count, enough)
    after = replace(
        before,
        ready=seen.ready,
        most_ready=seen.ready if seen.complete else max(before.most_ready, seen.ready),
        outdated=seen.outdated,
        progress_at=None if at_rest else progress_at,
        trial_since=before.trial_since or trial_since,
        answers=new,
        before_trial=_before_trial(before, new, seen) if trial_since is not None else NO_ANSWERS,
        old_answers=old if proves_more else before.old_answers,
        fault=None,
        message="",
    )
    return after.stopped(now) if stands else after


def _answers(before: Rollout, seen: Evidence) -> Answers:
    """Its answers; those of some routers only where they are more than was known of all."""
    new = seen.answered(new=True)
    return new if seen.answers_known or new.count > before.answers.count else before.answers


def _before_trial(before: Rollout, new: Answers, seen: Evidence) -> Answers:
    """What is not of the trial. Routers forget answers after half an hour, so it can only become less."""
    if before.trial_since is None:
        return new
    return before.before_trial.at_most(new) if seen.answers_known else before.before_trial


def _has_stood_its_trial(rollout: Rollout, seen: Evidence, now: datetime) -> bool:
    until = rollout.trial_until(seen.update)
    if until is None or not (seen.complete or not seen.wanted):
        return False
    enough = seen.answers_known and rollout.trial_answers.count >= ANSWERS_NEEDED
    return enough or now >= until


def _found_good(rollout: Rollout) -> Rollout:
    return replace(
        rollout,
        good=rollout.revision,
        progress_at=None,
        trial_since=None,
        stopped_at=None,
        answers=NO_ANSWERS,
        before_trial=NO_ANSWERS,
        old_answers=NO_ANSWERS,
    )


def _message(fault: Fault, rollout: Rollout, seen: Evidence) -> str:
    new, old = _bad_answers(rollout, seen)[0], rollout.old_answers
    trouble = next((group.trouble.message for group in seen.updated if group.trouble is not None), "")
    return {
        Fault.NOT_READY: f"no replica of it got on for {seen.update.progress_deadline_seconds} s"
        + (f": {trouble}" if trouble else ""),
        Fault.MISSES_SLO: f"{new.attainment:.0%} of its {new.count} answers kept spec.slo, "
        f"{old.attainment:.0%} of the old revision's did",
        Fault.FAILED_ANSWERS: f"{new.failed_share:.0%} of its {new.count} answers were 5xx",
    }[fault]
