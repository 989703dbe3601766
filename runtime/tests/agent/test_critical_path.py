"""The calls that must be faster for a task to end sooner. The path in the API is in test_history.py."""

from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.critical_path import (
    LOST_WITHIN_MS,
    CriticalPath,
    Stretch,
    StretchKind,
    critical_path,
)
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Ended,
    Entry,
    HandedOver,
    Intended,
    Resumed,
    Submitted,
    Suspended,
    TaskStatus,
    WaitKind,
)

START = 1_700_000_000_000


def begun(at: int, call: str, kind: CallKind = CallKind.TOOL, **fields: Any) -> Intended:
    return Intended(at=START + at, call=call, kind=kind, target=f"to {call}", **fields)


def ended(at: int, call: str, outcome: CallOutcome = CallOutcome.SUCCEEDED) -> Done:
    return Done(at=START + at, call=call, outcome=outcome, took_ms=1)


def submitted(at: int = 0) -> Submitted:
    return Submitted(at=START + at)


def claimed(at: int, attempt: int = 1) -> Claimed:
    return Claimed(at=START + at, worker="w", attempt=attempt)


def over(at: int) -> Ended:
    return Ended(at=START + at, status=TaskStatus.SUCCEEDED, reason="Completed")


def told(entries: list[Entry]) -> list[tuple[str, int, int]]:
    path = critical_path(entries)
    return [(step.call or step.kind, step.began_at - START, step.ended_at - START) for step in path]


@pytest.mark.holds(
    "observability.md",
    "The critical path is the longest chain of calls and waits, never longer than the task, in the "
    "API and marked in the timeline",
)
@pytest.mark.parametrize(
    ("entries", "path"),
    [
        pytest.param([], [], id="a journal that is forgotten has none"),
        pytest.param([submitted(), over(70)], [("Queue", 0, 70)], id="a task that no worker had waited"),
        pytest.param(
            [
                submitted(),
                claimed(5),
                begun(6, "a"),
                ended(30, "a"),
                begun(30, "b"),
                ended(50, "b"),
                over(51),
            ],
            [("Queue", 0, 5), ("a", 6, 30), ("b", 30, 50)],
            id="calls one after another are all on it",
        ),
        pytest.param(
            [
                *(submitted(), claimed(5), begun(6, "fast"), begun(6, "slow")),
                *(ended(20, "fast"), ended(30, "slow"), begun(31, "synthesis"), ended(40, "synthesis")),
            ],
            [("Queue", 0, 5), ("slow", 6, 30), ("synthesis", 31, 40)],
            id="of a fan-out the slowest branch",
        ),
        pytest.param(
            [
                *(claimed(0), begun(0, "a/1"), begun(0, "b/1"), ended(30, "a/1"), begun(30, "a/2")),
                *(ended(50, "b/1"), ended(60, "a/2")),
            ],
            [("a/1", 0, 30), ("a/2", 30, 60)],
            id="of two branches the longer one, call by call",
        ),
        pytest.param(
            [
                *(claimed(0), begun(0, "first"), begun(2000, "second"), ended(3000, "second")),
                ended(3000 + LOST_WITHIN_MS, "first", CallOutcome.CANCELLED),
            ],
            [("second", 2000, 3000)],
            id="of a race the winner, not the loser that began before it",
        ),
        pytest.param(
            [
                *(claimed(0), begun(0, "a"), begun(0, "hangs"), ended(100, "a")),
                ended(5000, "hangs", CallOutcome.CANCELLED),
            ],
            [("hangs", 0, 5000)],
            id="a branch that was given up at its time-out is what was waited for",
        ),
        pytest.param(
            [
                *(claimed(0), begun(10, "a"), claimed(50, 2), begun(51, "a"), ended(70, "a")),
            ],
            [("a", 10, 50), ("a", 50, 70)],
            id="a call whose worker was lost counts until the next one, and again",
        ),
        pytest.param(
            [
                *(claimed(0), begun(10, "a"), HandedOver(at=START + 20, worker="w"), claimed(50)),
                *(begun(50, "a"), ended(70, "a")),
            ],
            [("a", 10, 20), ("Queue", 20, 50), ("a", 50, 70)],
            id="a task that was handed over waited in the queue",
        ),
        pytest.param(
            [
                *(claimed(0), begun(10, "pay", CallKind.APPROVE)),
                Suspended(at=START + 12, waits_for=WaitKind.APPROVAL, call="pay"),
                *(Resumed(at=START + 90, waits_for=WaitKind.APPROVAL), claimed(95), ended(96, "pay")),
            ],
            [("pay", 10, 96)],
            id="what waits for a person waits without a worker",
        ),
        pytest.param(
            [claimed(10), begun(11, "a"), ended(5, "a"), begun(6, "b"), ended(20, "b")],
            [("b", 11, 20)],
            id="clocks that differ make no time negative",
        ),
        pytest.param(
            [claimed(0), begun(0, "a"), begun(5, "a", spent_tokens=3), ended(9, "a")],
            [("a", 0, 9)],
            id="a call that goes on is one",
        ),
        pytest.param(
            [claimed(0), begun(0, "a"), over(30)],
            [("a", 0, 30)],
            id="a call that was under way when the time was up",
        ),
    ],
)
def test_the_critical_path(entries: list[Entry], path: list[tuple[str, int, int]]) -> None:
    assert told(entries) == path


def test_a_task_that_runs_has_a_path_until_now() -> None:
    path = CriticalPath()
    for entry in (claimed(0), begun(0, "a"), ended(10, "a"), begun(10, "b"), begun(12, "c")):
        path.told(entry)
    assert [(step.call, step.took_ms) for step in path.path(START + 30)] == [("a", 10), ("b", 20)]
    assert [(step.call, step.took_ms) for step in path.path(START + 50)] == [("a", 10), ("b", 40)]


def test_a_spawned_task_is_named() -> None:
    spawned = begun(0, "s", CallKind.SPAWN, child="01child")
    path = critical_path([claimed(0), spawned, ended(5, "s")])
    assert [(step.kind, step.child) for step in path] == [(StretchKind.SPAWN, "01child")]


@pytest.mark.parametrize("kind", CallKind)
def test_every_kind_of_call_has_a_kind_of_stretch(kind: CallKind) -> None:
    path = critical_path([claimed(0), begun(0, "x", kind), ended(5, "x")])
    known = {CallKind.NOW, CallKind.RANDOM, CallKind.CHOICE, CallKind.STATE} | {
        CallKind.TELL,
        CallKind.COMPENSATE,
    }
    told = CallKind.APPROVE if kind is CallKind.APPROVE_AGAIN else kind
    assert [step.kind.value for step in path] == ["Other" if kind in known else told.value]


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)), min_size=1, max_size=7)


def longest_of_all(spans: list[tuple[int, int]]) -> int:
    """By trying every set of calls: the longest of which none began before the one before it had ended."""

    def is_chain(chosen: tuple[tuple[int, int], ...]) -> bool:
        return all(one[0] + one[1] <= other[0] for one, other in pairwise(chosen))

    ordered = sorted(spans)
    return max(
        sum(took for _, took in chosen)
        for size in range(len(spans) + 1)
        for chosen in combinations(ordered, size)
        if is_chain(chosen)
    )


def journal_of(spans: list[tuple[int, int]]) -> list[Entry]:
    moments: list[tuple[int, int, Entry]]
    moments = [(at + took, 0, ended(at + took, f"c{n}")) for n, (at, took) in enumerate(spans)]
    moments += [(at, 1, begun(at, f"c{n}")) for n, (at, _) in enumerate(spans)]
    return [entry for _, _, entry in sorted(moments, key=lambda moment: moment[:2])]


@pytest.mark.holds(
    "observability.md",
    "The critical path is the longest chain of calls and waits, never longer than the task, in the "
    "API and marked in the timeline",
)
@given(SPANS)
def test_it_is_the_longest_chain_and_never_longer_than_the_task(spans: list[tuple[int, int]]) -> None:
    path = critical_path(journal_of(spans))
    length = sum(step.took_ms for step in path)
    assert length == longest_of_all(spans)
    assert length <= max(at + took for at, took in spans) - min(at for at, _ in spans)
    assert all(one.ended_at <= other.began_at for one, other in pairwise(path))


@given(SPANS, st.integers(0, 60))
def test_the_path_until_now_is_that_of_the_task_if_all_calls_ended_now(
    spans: list[tuple[int, int]], now: int
) -> None:
    until = [(at, min(took, now - at)) for at, took in spans if at < now]
    path = CriticalPath()
    for entry in journal_of(spans):
        if entry.at - START < now or (entry.at - START == now and isinstance(entry, Done)):
            path.told(entry)
    length = sum(step.took_ms for step in path.path(START + now))
    assert length == (longest_of_all(until) if until else 0)


def test_a_thousand_branches_take_no_time_to_speak_of() -> None:
    spans = [(n % 97, 1 + n % 13) for n in range(20_000)]
    assert all(isinstance(step, Stretch) for step in critical_path(journal_of(spans)))
