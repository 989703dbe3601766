"""Kubernetes' rules for conditions: what moves, what sums up, what is news."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.cluster.writes import EventType
from flotilla_operator.controllers.conditions import (
    Condition,
    MendedBy,
    Truth,
    is_true,
    merged,
    rounded,
    transitions,
    with_summary,
)
from flotilla_operator.objects.times import parsed_timestamp, timestamp

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=5)


def condition(
    status: Truth = Truth.TRUE, *, by: MendedBy = MendedBy.TIME, counts: bool = True, name: str = "Placed"
) -> Condition:
    return Condition(type=name, status=status, reason="Because", message="why", mended_by=by, counts=counts)


def summary(*conditions: Condition) -> dict[str, str]:
    return {c.type: str(c.status) for c in with_summary(conditions) if c.type not in ("Placed", "Other")}


@pytest.mark.holds("groups.md", "What is for a person makes `Stalled` True and a warning")
@pytest.mark.holds(
    "troubleshooting.md",
    "`Ready` repeats the reason and message that matter most; `Stalled` and `Reconciling` say who must act",
)
@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        pytest.param([], ("True", "False", "False"), id="nothing holds it back"),
        pytest.param([condition()], ("True", "False", "False"), id="all is well"),
        pytest.param([condition(Truth.FALSE)], ("False", "True", "False"), id="time will mend it"),
        pytest.param([condition(Truth.UNKNOWN)], ("Unknown", "True", "False"), id="not known yet"),
        pytest.param(
            [condition(Truth.FALSE, by=MendedBy.PERSON)], ("False", "False", "True"), id="a person must"
        ),
        pytest.param(
            [condition(Truth.FALSE), condition(Truth.FALSE, by=MendedBy.PERSON, name="Other")],
            ("False", "False", "True"),
            id="what a person must mend comes first",
        ),
        pytest.param(
            [condition(Truth.FALSE, counts=False)], ("True", "False", "False"), id="it only informs"
        ),
    ],
)
def test_ready_reconciling_and_stalled(conditions: list[Condition], expected: tuple[str, ...]) -> None:
    found = summary(*conditions)
    assert (found["Ready"], found["Reconciling"], found["Stalled"]) == expected


@pytest.mark.holds(
    "troubleshooting.md",
    "`Ready` repeats the reason and message that matter most; `Stalled` and `Reconciling` say who must act",
)
def test_ready_says_which_condition_holds_it_back_and_why() -> None:
    ready = next(c for c in with_summary([condition(Truth.FALSE)]) if c.type == "Ready")
    assert (ready.reason, ready.message) == ("Because", "Placed: why")


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Truth)), st.sampled_from(["A", "B"]), st.text(max_size=3)), min_size=2
    )
)
def test_the_transition_time_moves_only_with_the_status(history: list[tuple[Truth, str, str]]) -> None:
    held: list[dict[str, object]] = []
    moved_at, status = None, None
    for minute, (truth, reason, message) in enumerate(history):
        now = NOON + timedelta(minutes=minute)
        if truth != status:
            moved_at, status = timestamp(now), truth
        wanted = Condition(type="Placed", status=truth, reason=reason, message=message)
        held = merged(held, [wanted], generation=minute, now=now)
        assert held[0]["lastTransitionTime"] == moved_at
        assert held[0]["reason"] == reason


def test_merging_the_same_again_changes_nothing() -> None:
    once = merged([], with_summary([condition()]), generation=1, now=NOON)
    assert merged(once, with_summary([condition()]), generation=1, now=LATER) == once


def test_a_message_without_end_is_cut() -> None:
    wordy = Condition(type="Placed", status=Truth.FALSE, reason="Because", message="x" * 10_000)
    assert len(merged([], [wordy], generation=1, now=NOON)[0]["message"]) == 1024


def test_news_are_changes_of_status_or_reason_and_nothing_else() -> None:
    before = merged([], with_summary([condition()]), generation=1, now=NOON)
    assert transitions(before, with_summary([condition()])) == []
    (event,) = transitions(before, with_summary([condition(Truth.FALSE, by=MendedBy.PERSON)]))
    assert (event.type, event.reason, event.note) == (EventType.WARNING, "Because", "why")
    other_words = Condition(type="Placed", status=Truth.TRUE, reason="Because", message="other words")
    assert transitions(before, [other_words]) == []


def test_a_new_object_is_no_news_unless_a_person_is_needed() -> None:
    assert transitions([], with_summary([condition(Truth.FALSE)])) == []
    assert len(transitions([], with_summary([condition(Truth.FALSE, by=MendedBy.PERSON)]))) == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (0, 0), (1234.5, 1230), (0.0012345, 0.00123), (-98.76, -98.8), (3, 3)],
)
def test_figures_are_rounded_to_three_digits(value: float | None, expected: float | None) -> None:
    assert rounded(value) == expected


def test_times_are_read_as_they_are_written() -> None:
    assert parsed_timestamp(timestamp(NOON)) == NOON


def test_a_condition_of_any_object_is_found() -> None:
    pod = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert is_true(pod, "Ready")
    assert not is_true(pod, "Initialized")
    assert not is_true({}, "Ready")
