"""Judges whether a new revision is good: a pure function of its groups, their answers, and the time.

Until a revision is known to be good, it fails when it makes no progress for `progressDeadlineSeconds`, or
when its answers are bad. Once every wanted group runs it and is ready, it is on trial until it has given
enough answers, or for half an hour at most. Many revisions do badly only under the whole load, or are rolled
out before anybody asks. The answers of the old revision are remembered for comparison, because its groups are
gone by then. When a revision fails, the operator runs the last good one (its record says what it was made
from) until the spec changes again. First the API server is asked, by a dry run, whether it would take the
older spec as a new one; until it would, the failed revision stays in force. Without such a way back there is
no trial.

The clock stops while the update waits for room, an old replica drains, no replica is wanted, or the set is
paused, because none of these is the revision's fault. The time of the stop is written down. When the clock
goes on, the other times are moved by the length of the stop.

When the spec changes during a trial, the revision on trial counts as good if all of it serves without
failures. If it crashes or answers 5xx, the change is taken as a repair, and the last good revision stays the
way back.

What must be remembered is in the set's status, so a restarted operator goes on from there. Time in which no
operator looked does not count, nor does a jump of the wall clock (observe/watched_time.py). While a router
does not answer, the remembered answers stay, and only what the other routers report can prove a fault.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from flotilla_operator.api.model_replica_set import Update
from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.objects.times import timestamp
from flotilla_operator.replicas.revisions.answers import NO_ANSWERS, Answers
from flotilla_operator.replicas.revisions.evidence import Evidence

ANSWERS_NEEDED = 50
FAILED_SHARE_ALLOWED = 0.05  # share of 5xx without an SLO; with one, the excess over the old revision's share
TRIAL_LIMIT = timedelta(minutes=30)  # as long as routers remember an answer
ASK_AGAIN = timedelta(minutes=5)  # after a refusal, in case that a policy has changed


class Fault(StrEnum):
    """Why a revision has failed."""

    NOT_READY = "NotReady"
    MISSES_SLO = "MissesSLO"
    FAILED_ANSWERS = "FailedAnswers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """State of the rollout that is kept.

    It names the newest revision, the last good one and the failed one, the fault as a word and as a sentence,
    and the state at the last progress. It has the start of the trial, and the answers of the new and the old
    revision as far as they are needed. While a roll-back `asks_leave`, the failed revision stays in force;
    `refusal` is what the API server said against it at `asked_at`.
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
    asks_leave: bool = False
    asked_at: datetime | None = None
    refusal: str = ""

    def stopped(self, now: datetime) -> "Rollout":
        """The same with its clock stopped; a clock that has stopped before keeps its time."""
        runs = self.progress_at is not None or self.trial_since is not None
        return replace(self, stopped_at=self.stopped_at or now) if runs else self

    def going_on(self, now: datetime) -> "Rollout":
        """The same with its clock running again, its times moved by the length of the stop."""
        if self.stopped_at is None:
            return self
        stood = now - self.stopped_at
        return replace(
            self,
            progress_at=self.progress_at and self.progress_at + stood,
            trial_since=self.trial_since and self.trial_since + stood,
            stopped_at=None,
        )

    def moved_by(self, length: timedelta) -> "Rollout":
        """The same with all its times moved, because so much time does not count."""
        return replace(
            self,
            progress_at=self.progress_at and self.progress_at + length,
            trial_since=self.trial_since and self.trial_since + length,
            stopped_at=self.stopped_at and self.stopped_at + length,
        )

    def looked_at_again(self, now: datetime) -> "Rollout":
        """The same after a time of unknown length in which nobody looked: its times begin anew."""
        return replace(
            self,
            progress_at=self.progress_at and now,
            trial_since=self.trial_since and now,
            stopped_at=self.stopped_at and now,
        )

    def may_ask_leave(self, now: datetime) -> bool:
        """Whether the API server is to be asked now if the older spec may be run."""
        if not self.asks_leave:
            return False
        return self.asked_at is None or now >= self.asked_at + ASK_AGAIN

    def answered(self, refusal: str, now: datetime) -> "Rollout":
        """The same after the API server's answer; with an empty refusal it has given leave."""
        if not refusal:
            return replace(self, asks_leave=False, asked_at=None, refusal="")
        return replace(self, asked_at=now, refusal=refusal[:MESSAGE_LIMIT])

    @property
    def trial_answers(self) -> Answers:
        """The answers given on trial, as far as they can be told from earlier ones. Some may be left out."""
        return self.answers.since(self.before_trial) if self.trial_since is not None else NO_ANSWERS

    @property
    def does_well(self) -> bool:
        """Whether at the last look it was on trial, served with every replica, and showed no failures."""
        complete = self.trial_since is not None and self.progress_at is None and self.ready >= self.most_ready
        failed_share = max(self.answers.failed_share, self.trial_answers.failed_share)
        return complete and failed_share <= FAILED_SHARE_ALLOWED

    @property
    def may_go_back(self) -> bool:
        """Whether it is judged, and could be rolled back to another revision."""
        runs = self.progress_at is not None or self.trial_since is not None
        return runs and not self.failed and self.good not in ("", self.revision)

    def due_at(self, update: Update) -> datetime | None:
        """When it has failed for want of progress; None while its clock stands, and when it has failed."""
        if self.progress_at is None or self.stopped_at is not None or self.failed:
            return None
        return self.progress_at + timedelta(seconds=update.progress_deadline_seconds)

    def trial_until(self, update: Update) -> datetime | None:
        """When its trial ends at the latest; None when it is not on trial."""
        if self.trial_since is None:
            return None
        return self.trial_since + min(TRIAL_LIMIT, timedelta(seconds=update.progress_deadline_seconds))

    def trial_message(self, until: datetime) -> str:
        """The message about a trial that ends then."""
        return (
            f"every replica runs revision {self.revision}, which is on trial until it has given "
            f"{ANSWERS_NEEDED} answers, but no longer than until {timestamp(until)}; if it fails, the set "
            f"goes back to revision {self.good}"
        )


def judged(before: Rollout, seen: Evidence, now: datetime) -> Rollout:
    """Judge the rollout. `failed` is set when the revision has failed and is to be rolled back."""
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
    after = replace(after, fault=fault, message=_message(fault, after, seen)[:MESSAGE_LIMIT])
    if not (after.good and seen.way_back):
        return after
    return replace(after, failed=seen.revision, trial_since=None, stopped_at=None, asks_leave=True)


def fault_of(rollout: Rollout, seen: Evidence, now: datetime) -> Fault | None:
    """Return the fault of a revision that is being rolled out or on trial, the most certain one first."""
    due = rollout.due_at(seen.update)
    if due is not None and now >= due:
        return Fault.NOT_READY
    return _bad_answers(rollout, seen)[1]


def _bad_answers(rollout: Rollout, seen: Evidence) -> tuple[Answers, Fault | None]:
    """The answers that show a fault, and the fault.

    All answers of the last half hour are judged, then those of the trial alone. After a long update with many
    good answers, those that are bad under the whole load would otherwise be a small share.
    """
    told = seen.answered(new=True)
    for new in (told, rollout.trial_answers) if seen.answers_known else (told,):
        fault = _fault_in(new, rollout.old_answers, seen.attainment)
        if fault is not None:
            return new, fault
    return rollout.answers, None


def _fault_in(new: Answers, old: Answers, attainment: float | None) -> Fault | None:
    """The fault that new answers show beside the old revision's.

    If the old revision has no answers or misses the SLO too, nobody can say that it was better. Answering
    clearly more 5xx than the old revision is a fault all the same.
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
    """The revision to go back to from the one that the spec asks for now."""
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
    # Routers report fewer answers of the old revision as its groups leave, and none in the end.
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
    """Its answers. Those of only some routers count where they are more than were known of all."""
    new = seen.answered(new=True)
    return new if seen.answers_known or new.count > before.answers.count else before.answers


def _before_trial(before: Rollout, new: Answers, seen: Evidence) -> Answers:
    """The answers that do not count for the trial.

    Routers forget answers after half an hour, so this number can only fall.
    """
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
        Fault.NOT_READY: f"it made no progress for {seen.update.progress_deadline_seconds} s "
        "(spec.update.progressDeadlineSeconds)" + (f": {trouble}" if trouble else ""),
        Fault.MISSES_SLO: f"{new.attainment:.0%} of its {new.count} answers met spec.slo, but "
        f"{old.attainment:.0%} of the old revision's answers did",
        Fault.FAILED_ANSWERS: f"{new.failed_share:.0%} of its {new.count} answers had a 5xx status",
    }[fault]
