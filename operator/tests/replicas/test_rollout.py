"""Whether a revision is good, from its groups, their answers and the time; what is done about it is in
test_plan and test_records.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import RolloutStatus, Update
from flotilla_operator.controllers.model_replica_set.remembered.rollouts import rollout_of, rollout_status
from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.revisions.answers import Answers
from flotilla_operator.replicas.revisions.evidence import Evidence
from flotilla_operator.replicas.revisions.rollout import Fault, Rollout, fault_of, judged
from flotilla_operator.replicas.trouble import Trouble, TroubleReason
from tests.builders.groups import member
from tests.builders.pods import NOW

DEADLINE = 900
LATE = NOW + timedelta(seconds=DEADLINE)
UPDATE = Update(progress_deadline_seconds=DEADLINE)


def old(name: str, **fields: Any) -> ReplicaGroup:
    return member(name, revision="old", **fields)


def seen(*groups: ReplicaGroup, wanted: int = 2, update: Update = UPDATE, **fields: Any) -> Evidence:
    return Evidence(revision="new", wanted=wanted, groups=groups, update=update, **fields)


def begun(**fields: Any) -> Rollout:
    held: dict[str, Any] = {"revision": "new", "good": "old", "outdated": 2, "progress_at": NOW}
    return Rollout(**(held | fields))


LOADING = member("n", Phase.LOADING)


def test_a_first_revision_becomes_good_when_every_replica_of_it_serves() -> None:
    first = judged(Rollout(), seen(member("a"), member("b", Phase.LOADING)), NOW)
    assert (first.revision, first.good, first.progress_at) == ("new", "", NOW)
    done = judged(first, seen(member("a"), member("b")), LATE)
    assert (done.good, done.failed, done.progress_at) == ("new", "", None)


def test_it_is_not_good_while_old_ones_are_there() -> None:
    assert judged(begun(), seen(member("a"), member("b"), old("c")), NOW).good == "old"


@pytest.mark.holds("draining.md", "It fails when nothing gets on for `progressDeadlineSeconds`")
@pytest.mark.parametrize(
    ("groups", "fields", "fault"),
    [
        pytest.param((old("a"), old("b"), LOADING), {}, Fault.NOT_READY, id="nothing got on"),
        pytest.param((old("a"), member("m"), LOADING), {}, None, id="another one became ready"),
        pytest.param((old("a"), LOADING), {}, None, id="an old one left"),
        pytest.param((old("a"), old("b")), {"waits_for_room": True}, None, id="it waits for room"),
        pytest.param(
            (old("a"), old("b", phase=Phase.DRAINING, drain_epoch=1), LOADING),
            {},
            None,
            id="an old one still drains",
        ),
        pytest.param((old("a"), old("b")), {}, Fault.NOT_READY, id="its groups come and go"),
        pytest.param(
            (old("a"), old("b"), member("n", Phase.DRAINING)),
            {},
            Fault.NOT_READY,
            id="a new one that leaves is no progress",
        ),
        pytest.param(
            (old("a"), old("b", phase=Phase.DRAINING, drain_epoch=1, going=True), LOADING),
            {},
            Fault.NOT_READY,
            id="an old one that never ends is no progress",
        ),
    ],
)
def test_it_fails_when_it_does_not_get_on(
    groups: tuple[ReplicaGroup, ...], fields: dict[str, Any], fault: Fault | None
) -> None:
    found = judged(begun(), seen(*groups, **fields), LATE)
    assert found.fault is fault
    assert (found.failed == "new") == bool(found.message) == (fault is not None)
    assert judged(begun(), seen(*groups, **fields), LATE - timedelta(seconds=1)).failed == ""


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.holds(
    "draining.md", "Time in which it waits for room, drains, is at zero or paused does not count"
)
@pytest.mark.parametrize(
    "stands",
    [
        pytest.param(seen(old("a"), old("b"), waits_for_room=True), id="it waits for room"),
        pytest.param(seen(old("a"), old("b"), wanted=0), id="none is wanted"),
        pytest.param(seen(old("a"), old("b"), paused=True), id="it is paused"),
        pytest.param(
            seen(old("a"), old("b", phase=Phase.DRAINING, drain_epoch=1)), id="an old one still drains"
        ),
    ],
)
def test_while_its_clock_stands_nothing_is_written_and_no_time_is_used(stands: Evidence) -> None:
    stopped = judged(begun(), stands, after(800))
    assert (stopped.progress_at, stopped.stopped_at) == (NOW, after(800))
    assert judged(stopped, stands, after(810)) == judged(stopped, stands, after(86400)) == stopped
    again = judged(stopped, seen(old("a"), old("b"), LOADING), after(10000))
    assert (again.progress_at, again.stopped_at, again.failed) == (after(9200), None, "")
    assert judged(again, seen(old("a"), old("b"), LOADING), after(10099)).failed == ""
    assert judged(again, seen(old("a"), old("b"), LOADING), after(10100)).failed == "new"


def test_what_gets_on_while_its_clock_stands_has_all_the_time_again() -> None:
    stopped = judged(begun(), seen(old("a"), old("b"), waits_for_room=True), after(800))
    got_on = judged(stopped, seen(old("a"), LOADING, waits_for_room=True), after(1000))
    assert (got_on.progress_at, got_on.stopped_at) == (after(1000), after(1000))


def test_a_trial_does_not_go_on_while_the_set_is_paused() -> None:
    paused = judged(on_trial(), seen(*BOTH, paused=True), after(100))
    assert (paused.trial_since, paused.stopped_at) == (NOW, after(100))
    assert judged(paused, seen(*BOTH, paused=True), after(86400)) == paused
    lost = judged(paused, seen(member("m"), paused=True), after(200))
    assert (lost.ready, lost.does_well) == (1, False)
    again = judged(paused, seen(*BOTH), after(1100))
    assert (again.good, again.trial_since, again.stopped_at) == ("old", after(1000), None)
    assert judged(again, seen(*BOTH), after(1000 + DEADLINE)).good == "new"


GOOD = Answers(count=100, failed=0, kept=99)
BAD = Answers(count=100, failed=9, kept=50)
SLOW = Answers(count=100, failed=0, kept=50)
BROKEN = Answers(count=50, failed=50, kept=0)


@pytest.mark.holds("draining.md", "It fails when its answers break the SLO and the old revision's keep it")
@pytest.mark.holds(
    "draining.md", "It fails when both break the SLO and its 5xx are more than 5 points above the old one's"
)
@pytest.mark.holds("draining.md", "Without `slo`, more than 5 % of at least 50 answers with 5xx fail it")
@pytest.mark.parametrize(
    ("new", "before", "attainment", "fault"),
    [
        pytest.param(BAD, GOOD, 0.95, Fault.MISSES_SLO, id="it misses the SLO and the old one keeps it"),
        pytest.param(BAD, BAD, 0.95, None, id="both miss it, so it is not the revision"),
        pytest.param(SLOW, Answers(), 0.95, None, id="nobody knows how the old one did"),
        pytest.param(
            SLOW, Answers(count=1, kept=1), 0.95, Fault.MISSES_SLO, id="one answer of the old one is known"
        ),
        pytest.param(
            BROKEN, Answers(), 0.95, Fault.FAILED_ANSWERS, id="all are 5xx, and the old one was never asked"
        ),
        pytest.param(
            BROKEN,
            Answers(count=100, kept=94),
            0.95,
            Fault.FAILED_ANSWERS,
            id="all are 5xx, and the old one just missed the SLO",
        ),
        pytest.param(
            BROKEN,
            Answers(count=100, failed=90, kept=10),
            0.95,
            Fault.FAILED_ANSWERS,
            id="all are 5xx, and of the old one's many",
        ),
        pytest.param(
            Answers(count=100, failed=14, kept=50), BAD, 0.95, None, id="5 % more 5xx than the old one's"
        ),
        pytest.param(
            Answers(count=100, failed=10, kept=90), Answers(), 0.9, None, id="5xx that the SLO allows"
        ),
        pytest.param(GOOD, BAD, 0.95, None, id="it is better"),
        pytest.param(
            Answers(count=49, failed=49, kept=0), GOOD, 0.95, None, id="fewer than 50 answers say nothing"
        ),
        pytest.param(Answers(count=50, failed=0, kept=40), GOOD, 0.95, Fault.MISSES_SLO, id="50 are enough"),
        pytest.param(BAD, GOOD, None, Fault.FAILED_ANSWERS, id="without an SLO: more than 5 % are 5xx"),
        pytest.param(BAD, BAD, None, Fault.FAILED_ANSWERS, id="however the old one does"),
        pytest.param(
            Answers(count=100, failed=5, kept=95), GOOD, None, None, id="5 % are allowed without an SLO"
        ),
    ],
)
def test_it_fails_when_its_answers_are_bad(
    new: Answers, before: Answers, attainment: float | None, fault: Fault | None
) -> None:
    evidence = seen(old("a"), old("b"), member("n"), answers={"a": before, "n": new}, attainment=attainment)
    assert fault_of(begun(answers=new, old_answers=before), evidence, NOW) is fault
    assert (judged(begun(), evidence, NOW).failed == "new") == (fault is not None)


def test_the_message_says_what_was_measured() -> None:
    evidence = seen(old("a"), member("n"), answers={"a": GOOD, "n": BAD}, attainment=0.95)
    assert judged(begun(), evidence, NOW).message == (
        "50% of its 100 answers met spec.slo, but 99% of the old revision's answers did"
    )
    bad = judged(begun(), replace(evidence, attainment=None), NOW)
    assert bad.message == "9% of its 100 answers had a 5xx status"


BOTH = (member("m"), member("n"))
FEW = Answers(count=49, failed=49, kept=0)


def on_trial(**fields: Any) -> Rollout:
    return begun(
        **{"outdated": 0, "ready": 2, "most_ready": 2, "progress_at": None, "trial_since": NOW} | fields
    )


def answered(*groups: ReplicaGroup, by_each: Answers, **fields: Any) -> Evidence:
    return seen(*groups, answers={group.name: by_each for group in groups}, **fields)


@pytest.mark.holds(
    "draining.md", "A revision is on trial until 50 answers more or half an hour at most, then it is good"
)
def test_it_is_on_trial_when_the_last_old_replica_has_gone() -> None:
    found = judged(begun(), seen(*BOTH), NOW)
    assert (found.good, found.trial_since, found.progress_at) == ("old", NOW, None)
    later = judged(found, seen(*BOTH), NOW + timedelta(minutes=1))
    assert later == found


@pytest.mark.holds(
    "draining.md", "A revision is on trial until 50 answers more or half an hour at most, then it is good"
)
@pytest.mark.parametrize(
    ("evidence", "after_seconds", "good"),
    [
        pytest.param(answered(*BOTH, by_each=Answers(count=24, kept=24)), 1, "old", id="48 answers"),
        pytest.param(answered(*BOTH, by_each=Answers(count=25, kept=25)), 1, "new", id="50 good answers"),
        pytest.param(seen(*BOTH), DEADLINE - 1, "old", id="nobody asks"),
        pytest.param(seen(*BOTH), DEADLINE, "new", id="nobody asks for as long as an update may take"),
        pytest.param(seen(member("m"), LOADING), DEADLINE, "old", id="one of two has crashed since"),
        pytest.param(seen(wanted=0), DEADLINE, "new", id="none is wanted"),
    ],
)
def test_the_trial_ends_well(evidence: Evidence, after_seconds: float, good: str) -> None:
    found = judged(on_trial(), evidence, NOW + timedelta(seconds=after_seconds))
    assert (found.good, found.failed, found.message) == (good, "", "")
    assert (found.trial_since is None) == (good == "new")
    if good == "new":
        assert (found.answers, found.old_answers) == (Answers(), Answers())


MANY = Answers(count=5000, failed=5, kept=4990)


@pytest.mark.holds(
    "draining.md", "On trial answers are judged twice, so the good ones of the rollout hide nothing"
)
def test_the_answers_of_the_rollout_are_not_those_of_the_trial() -> None:
    busy = answered(*BOTH, by_each=MANY)
    begins = judged(begun(), busy, NOW)
    assert (begins.good, begins.trial_since, begins.before_trial) == ("old", NOW, MANY + MANY)
    assert judged(begins, busy, NOW + timedelta(seconds=9)) == begins


@pytest.mark.holds(
    "draining.md", "On trial answers are judged twice, so the good ones of the rollout hide nothing"
)
@pytest.mark.parametrize(
    ("more", "attainment", "good", "fault"),
    [
        pytest.param(Answers(count=49, failed=49), None, "old", None, id="49 prove nothing"),
        pytest.param(Answers(count=50, failed=2, kept=48), None, "new", None, id="50 good ones"),
        pytest.param(
            Answers(count=50, failed=3, kept=47), None, "old", Fault.FAILED_ANSWERS, id="6 % of 50 are 5xx"
        ),
        pytest.param(
            Answers(count=50, kept=40), 0.9, "old", Fault.MISSES_SLO, id="the SLO breaks under the whole load"
        ),
    ],
)
def test_a_fault_on_trial_is_not_hidden_by_the_good_answers_of_the_rollout(
    more: Answers, attainment: float | None, good: str, fault: Fault | None
) -> None:
    busy = on_trial(answers=MANY, before_trial=MANY, old_answers=GOOD)
    evidence = seen(*BOTH, answers={"m": MANY + more}, attainment=attainment)
    found = judged(busy, evidence, NOW + timedelta(minutes=1))
    assert (found.good, found.fault) == (good, fault)
    assert fault is None or "of its 50 answers" in found.message


def test_answers_that_routers_forget_are_forgotten_of_those_before_the_trial() -> None:
    busy = on_trial(answers=MANY, before_trial=MANY)
    fewer = judged(busy, seen(*BOTH, answers={"m": GOOD}), NOW + timedelta(minutes=1))
    assert (fewer.good, fewer.before_trial, fewer.trial_answers) == ("old", GOOD, Answers())
    again = seen(*BOTH, answers={"m": GOOD + Answers(count=50, kept=50)})
    assert judged(fewer, again, NOW + timedelta(minutes=2)).good == "new"


def as_written(rollout: Rollout) -> Rollout:
    """As an operator that was restarted finds it."""
    return rollout_of({name: value for name, value in rollout_status(rollout).items() if value is not None})


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param({}, id="none, as after a restart of the operator"),
        pytest.param({"m": MANY}, id="one of two"),
    ],
)
def test_routers_that_do_not_answer_have_not_forgotten_what_was_before_the_trial(
    heard: dict[str, Answers],
) -> None:
    busy = on_trial(answers=MANY + MANY, before_trial=MANY + MANY, old_answers=GOOD)
    silent = judged(as_written(busy), seen(*BOTH, answers=heard, answers_known=False), after(5))
    assert silent == busy
    both = {"m": MANY, "n": MANY}
    heard_again = judged(as_written(silent), seen(*BOTH, answers=both), after(10))
    assert (heard_again.good, heard_again.before_trial) == ("old", MANY + MANY)
    bad = seen(*BOTH, answers={**both, "n": MANY + Answers(count=50, failed=50)})
    assert judged(heard_again, bad, after(15)).fault is Fault.FAILED_ANSWERS


@pytest.mark.holds("draining.md", "What the old revision's answers were like is remembered")
def test_what_was_known_of_the_old_revision_stays_while_a_router_is_silent() -> None:
    partly = seen(old("a"), LOADING, answers={"a": SLOW}, answers_known=False)
    assert judged(begun(old_answers=MANY), partly, NOW).old_answers == MANY
    assert judged(begun(old_answers=MANY), replace(partly, answers_known=True), NOW).old_answers == SLOW


def test_what_serves_badly_is_not_good_because_its_routers_do_not_answer() -> None:
    bad = on_trial(answers=FEW)
    silent = judged(as_written(bad), seen(*BOTH, answers_known=False), after(5))
    changed = replace(seen(LOADING), revision="newer")
    assert judged(silent, changed, after(6)).good == "old"


def test_a_trial_that_begins_while_routers_are_silent_begins_with_what_was_known() -> None:
    begins = judged(begun(answers=MANY), seen(*BOTH, answers_known=False), NOW)
    assert (begins.good, begins.trial_since, begins.before_trial) == ("old", NOW, MANY)


@pytest.mark.holds(
    "draining.md", "While a router is silent a trial goes on, and the others can only prove a fault"
)
def test_the_routers_that_answer_can_prove_a_fault_and_only_all_of_them_the_end_of_a_trial() -> None:
    partly = answered(*BOTH, by_each=BAD, answers_known=False)
    assert judged(on_trial(answers=MANY), partly, after(5)).fault is Fault.FAILED_ANSWERS
    quiet = judged(on_trial(), answered(*BOTH, by_each=GOOD, answers_known=False), after(5))
    assert (quiet.good, quiet.fault, quiet.trial_since) == ("old", None, NOW)
    assert judged(quiet, answered(*BOTH, by_each=GOOD), after(10)).good == "new"


@pytest.mark.holds(
    "draining.md", "A revision is on trial until 50 answers more or half an hour at most, then it is good"
)
def test_half_an_hour_is_enough_however_long_an_update_may_take() -> None:
    patient = Update(progress_deadline_seconds=86400)
    evidence = seen(*BOTH, update=patient)
    assert judged(on_trial(), evidence, NOW + timedelta(seconds=1799)).good == "old"
    assert judged(on_trial(), evidence, NOW + timedelta(seconds=1800)).good == "new"


@pytest.mark.holds(
    "draining.md", "It fails when both break the SLO and its 5xx are more than 5 points above the old one's"
)
@pytest.mark.parametrize(
    ("evidence", "before", "fails"),
    [
        pytest.param(answered(*BOTH, by_each=BAD), GOOD, True, id="without an SLO: more than 5 % are 5xx"),
        pytest.param(answered(*BOTH, by_each=BAD, attainment=0.9), GOOD, True, id="the old one kept the SLO"),
        pytest.param(answered(*BOTH, by_each=BAD, attainment=0.9), BAD, False, id="neither keeps the SLO"),
        pytest.param(
            answered(*BOTH, by_each=SLOW, attainment=0.9), Answers(), False, id="the old one was never asked"
        ),
        pytest.param(answered(member("m"), by_each=FEW, wanted=1), GOOD, False, id="49 prove nothing"),
    ],
)
def test_a_fault_on_trial_is_measured_against_what_the_old_revision_did_last(
    evidence: Evidence, before: Answers, fails: bool
) -> None:
    found = judged(on_trial(old_answers=before), evidence, NOW + timedelta(minutes=1))
    assert (found.failed == "new") == fails
    assert (found.good == "old") == (fails or evidence.wanted == 1)
    if fails:
        assert found.trial_since is None
        assert judged(found, evidence, LATE) == found


@pytest.mark.holds("draining.md", "On trial a replica that crashed and does not come back fails it")
def test_what_crashes_on_trial_and_does_not_come_back_fails() -> None:
    crashed = judged(on_trial(), seen(member("m"), LOADING), NOW + timedelta(minutes=1))
    assert (crashed.good, crashed.progress_at) == ("old", NOW + timedelta(minutes=1))
    assert judged(crashed, seen(member("m"), LOADING), LATE + timedelta(minutes=1)).failed == "new"
    back = judged(crashed, seen(*BOTH), LATE)
    assert (back.good, back.failed) == ("new", "")


@pytest.mark.holds("draining.md", "What the old revision's answers were like is remembered")
@pytest.mark.parametrize(
    ("held", "live", "kept"),
    [
        pytest.param(Answers(), Answers(count=3, kept=3), 3, id="the first that is seen"),
        pytest.param(Answers(count=80), Answers(count=60), 60, id="the last that proves something"),
        pytest.param(Answers(count=80), Answers(count=20), 80, id="few are left of the last group"),
        pytest.param(Answers(count=30), Answers(), 30, id="none is left"),
    ],
)
def test_what_is_remembered_of_the_old_revision(held: Answers, live: Answers, kept: int) -> None:
    evidence = seen(old("a"), LOADING, answers={"a": live})
    assert judged(begun(old_answers=held), evidence, NOW).old_answers.count == kept


@pytest.mark.holds(
    "draining.md",
    "A spec changed during the trial makes it good if it serves and at most 5 % of its answers were 5xx",
)
@pytest.mark.parametrize(
    ("revision", "before", "good"),
    [
        pytest.param(
            "newer", on_trial(), "new", id="a changed spec makes what is on trial good, for it runs"
        ),
        pytest.param(
            "newer", on_trial(ready=1, progress_at=NOW), "old", id="one of two crashes: the change mends it"
        ),
        pytest.param("newer", on_trial(ready=1), "old", id="one of two was lost while the set was paused"),
        pytest.param("newer", on_trial(answers=FEW), "old", id="it answers 5xx, if too few to prove it"),
        pytest.param("newer", on_trial(ready=0), "old", id="none of it runs"),
        pytest.param("old", on_trial(), "old", id="back to the good one by hand"),
        pytest.param(
            "newer", begun(), "old", id="an update that has not come to its trial counts for nothing"
        ),
        pytest.param("newer", begun(failed="new", message="x"), "old", id="what has failed was never good"),
    ],
)
def test_the_revision_to_go_back_to_after_a_change_of_spec(revision: str, before: Rollout, good: str) -> None:
    asked = replace(seen(LOADING), revision=revision)
    assert judged(before, asked, NOW).good == good


@pytest.mark.holds("draining.md", "Without a way back there is no trial")
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"update": Update(rollback=False)}, id="rollback is off"),
        pytest.param({"can_go_back": False}, id="the old one is not on record"),
    ],
)
def test_without_a_way_back_there_is_no_trial(fields: dict[str, Any]) -> None:
    found = judged(begun(), seen(*BOTH, **fields), NOW)
    assert (found.good, found.trial_since) == ("new", None)


def test_a_revision_that_was_good_once_is_not_taken_back() -> None:
    evidence = seen(member("a"), LOADING, answers={"a": BAD})
    assert judged(begun(good="new"), evidence, LATE + timedelta(days=1)).failed == ""


def test_a_set_at_zero_has_nothing_that_could_get_on() -> None:
    found = judged(begun(outdated=0), seen(wanted=0), LATE)
    assert (found.failed, found.message, found.stopped_at) == ("", "", LATE)


def test_what_was_ready_once_and_crashes_again_and_again_does_not_get_on() -> None:
    crashed = judged(
        begun(ready=1, most_ready=1), seen(old("a"), old("b"), LOADING), LATE - timedelta(seconds=1)
    )
    assert (crashed.ready, crashed.most_ready) == (0, 1), "what serves is shown, the mark is kept"
    again = judged(crashed, seen(old("a"), old("b"), member("n")), LATE)
    assert again.failed == "new"


@pytest.mark.holds(
    "draining.md",
    "A failed update goes on with the last good revision, `Progressing` is RolledBack, and a "
    "change of the spec tries again",
)
def test_what_failed_stays_failed_until_the_spec_changes() -> None:
    failed = begun(failed="new", message="it crashed")
    assert judged(failed, seen(old("a"), old("b")), LATE) == failed
    other = replace(seen(old("a"), old("b")), revision="newer")
    assert (judged(failed, other, LATE).failed, judged(failed, other, LATE).progress_at) == ("", LATE)


@pytest.mark.holds("draining.md", "`update.rollback: false` only says so")
def test_without_rollback_it_only_says_so_and_trying_again_is_a_change_of_that_field() -> None:
    keep = Update(progress_deadline_seconds=DEADLINE, rollback=False)
    found = judged(begun(), seen(old("a"), old("b"), LOADING, update=keep), LATE)
    assert (found.failed, bool(found.message)) == ("", True)
    again = judged(begun(failed="new", message="x"), seen(old("a"), old("b"), update=keep), LATE)
    assert (again.failed, again.message, again.progress_at) == ("", "", LATE)


def test_the_first_revision_has_nothing_to_go_back_to() -> None:
    found = judged(begun(good="", outdated=0), seen(LOADING, wanted=1), LATE)
    assert (found.failed, bool(found.message)) == ("", True)


def test_a_revision_that_differs_by_its_key_alone_has_nothing_to_go_back_to() -> None:
    """Replicas with the old key serve nobody, so it is only said; see test_records."""
    evidence = seen(old("a"), old("b"), LOADING, can_go_back=False)
    found = judged(begun(), evidence, LATE)
    assert (found.failed, bool(found.message)) == ("", True)


def test_a_set_of_none_proves_nothing() -> None:
    assert judged(begun(), seen(wanted=0), NOW).good == "old"


def test_what_is_remembered_comes_back_from_the_status() -> None:
    held = begun(
        failed="new",
        message="it crashed",
        ready=1,
        most_ready=2,
        trial_since=NOW,
        stopped_at=LATE,
        answers=BAD,
        before_trial=GOOD,
        old_answers=GOOD,
    )
    assert rollout_of(rollout_status(held)) == held
    assert rollout_of({}) == Rollout()


def test_a_long_last_line_of_an_engine_still_fits_the_status() -> None:
    """A kubelet hands on up to 4 KiB; with a message over its limit the whole status would be refused."""
    last_line = Trouble(reason=TroubleReason.ENGINE_CRASHING, message="x" * 4096)
    crashing = replace(LOADING, trouble=last_line)
    failed = judged(begun(), seen(old("a"), old("b"), crashing), LATE)
    status = {name: value for name, value in rollout_status(failed).items() if value is not None}
    assert "xxx" in str(RolloutStatus.model_validate(status).message)
