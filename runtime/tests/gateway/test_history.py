"""The callers' view of a journal: events, usage, times; no server. Streams are in test_events.py."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Ended,
    Entry,
    HandedOver,
    Intended,
    Other,
    Resolved,
    Resumed,
    Submitted,
    Suspended,
    WaitKind,
)
from flotilla_runtime.agent.journal import TaskStatus as Status
from flotilla_runtime.agent.tasks import TaskRecord
from flotilla_runtime.contract import Effect, Priority, TaskLimits
from flotilla_runtime.gateway.events import event_text
from flotilla_runtime.gateway.history import ASKED_IN_PUBLIC, LONGEST_PATH, EventKind, History
from flotilla_runtime.gateway.views import task_view

START = 1_700_000_000_000


def told(*entries: Entry) -> tuple[History, list[dict[str, Any]]]:
    """The history of these entries, and their events as callers get them."""
    history = History()
    events = [event for entry in entries if (event := history.told(entry)) is not None]
    return history, [event.model_dump(mode="json", by_alias=True, exclude_none=True) for event in events]


def time_of(history: History, now: int) -> dict[str, float]:
    time = history.time(START + now)
    assert time is not None
    return time.model_dump()


def intent(at: int, call: str, kind: CallKind = CallKind.MODEL, **fields: Any) -> Intended:
    return Intended(at=START + at, call=call, kind=kind, target="m", **fields)


def done(at: int, call: str, **fields: Any) -> Done:
    return Done(at=START + at, call=call, **{"outcome": CallOutcome.SUCCEEDED, "took_ms": 900, **fields})


SUBMITTED = Submitted(at=START)
CLAIMED = Claimed(at=START + 500, worker="w", attempt=1)
ENDED = Ended(at=START + 2000, status=Status.SUCCEEDED, reason="Completed")
AT = "2023-11-14T22:13:20Z"


@pytest.mark.holds(
    "tasks.md",
    "Events are a public view: who reads a task sees what its calls were asked and answered, and no prompts",
)
@pytest.mark.parametrize(
    ("entry", "event"),
    [
        pytest.param(SUBMITTED, {"event": "submitted"}, id="submitted"),
        pytest.param(
            Claimed(at=START, worker="w", attempt=2),
            {"event": "started", "worker": "w", "attempt": 2},
            id="started",
        ),
        pytest.param(HandedOver(at=START, worker="w"), None, id="a hand-over is the workers' own matter"),
        pytest.param(
            intent(0, "turn/1/tool/pay", CallKind.TOOL, arguments={"to": "ann"}, effect=Effect.UNSAFE),
            {
                "event": "callStarted",
                "call": "turn/1/tool/pay",
                "kind": "Tool",
                "target": "m",
                "arguments": {"to": "ann"},
            },
            id="a tool, with its arguments",
        ),
        pytest.param(
            intent(0, "turn/1", arguments={"messages": ["the fleet's prompt"]}),
            {"event": "callStarted", "call": "turn/1", "kind": "Model", "target": "m"},
            id="a model, without its messages",
        ),
        pytest.param(
            done(0, "turn/1", input_tokens=40, output_tokens=2, nano_usd=1_500_000, value="so"),
            {
                "event": "callEnded",
                "call": "turn/1",
                "outcome": "Succeeded",
                "seconds": 0.9,
                "tries": 1,
                "tokens": 42,
                "costUSD": 0.0015,
                "result": "so",
            },
            id="a call that ended",
        ),
        pytest.param(
            done(0, "turn/1", cached=False, answered_by="small", rate_limit="openai", limited_ms=400),
            {
                "event": "callEnded",
                "call": "turn/1",
                "outcome": "Succeeded",
                "seconds": 0.9,
                "tries": 1,
                "cached": False,
                "answeredBy": "small",
                "rateLimit": "openai",
                "waitedSeconds": 0.4,
            },
            id="a call that waited for its turn, and was answered by another model",
        ),
        pytest.param(
            Suspended(at=START, waits_for=WaitKind.EFFECT, call="turn/1/tool/pay", until=START),
            {
                "event": "suspended",
                "waitsFor": {"kind": "Effect", "call": "turn/1/tool/pay", "untilTime": AT},
            },
            id="suspended",
        ),
        pytest.param(Resumed(at=START, waits_for=WaitKind.EFFECT), {"event": "resumed"}, id="resumed"),
        pytest.param(
            Resolved(at=START, call="turn/1/tool/pay", happened=True, by="secret:ann", result={"paid": 1}),
            {
                "event": "resolved",
                "call": "turn/1/tool/pay",
                "outcome": "Happened",
                "by": "secret:ann",
                "result": {"paid": 1},
            },
            id="resolved",
        ),
        pytest.param(
            Ended(at=START, status=Status.FAILED, reason="MaxSteps", message="no steps are left"),
            {"event": "ended", "outcome": "Failed", "reason": "MaxSteps", "problem": "no steps are left"},
            id="ended",
        ),
        pytest.param(Other(at=START, document={"type": "New", "prompt": "x"}), None, id="an unknown entry"),
    ],
)
def test_an_entry_is_one_event_or_none(entry: Entry, event: dict[str, Any] | None) -> None:
    assert told(entry)[1] == ([] if event is None else [{"at": AT, **event}])


@pytest.mark.holds(
    "tasks.md",
    "Events are a public view: who reads a task sees what its calls were asked and answered, and no prompts",
)
@pytest.mark.attack("A caller reads the fleet's prompt in the events of its task")
def test_no_event_has_what_models_are_sent() -> None:
    prompt = "the fleet's prompt"
    messages = {"messages": [{"role": "system", "content": prompt}], "headers": {"Authorization": prompt}}
    others = [
        intent(0, f"c{kind}", kind, arguments=messages) for kind in CallKind if kind not in ASKED_IN_PUBLIC
    ]
    _, events = told(*others, Other(at=START, document={"type": "Summary", **messages}))
    assert len(events) == len(others) > 0
    assert prompt not in str(events)


def test_each_kind_of_event_is_told_or_reserved() -> None:
    """`resolved` and the others are in the table above."""
    assert set(EventKind) - {EventKind.TEXT, EventKind.TEXT_WITHDRAWN} == {
        *("submitted", "started", "callStarted", "callEnded", "suspended", "resumed", "resolved", "ended")
    }


def test_the_end_of_a_call_says_of_which_one() -> None:
    _, events = told(intent(0, "a", CallKind.RETRIEVE, arguments="why?"), intent(1, "b"), done(2, "a"))
    assert [(event["call"], event["kind"]) for event in events] == [
        *(("a", "Retrieve"), ("b", "Model"), ("a", "Retrieve"))
    ]


@pytest.mark.holds(
    "tasks.md", "`time` says where a task's time went; `costUSD` is null where a price is unknown"
)
@pytest.mark.parametrize(
    ("calls", "cost"),
    [
        pytest.param([{"input_tokens": 1, "nano_usd": 2_000_000_000}], 2.0, id="a price"),
        pytest.param([{"input_tokens": 1, "nano_usd": 1}, {"input_tokens": 1}], None, id="one has no price"),
        pytest.param([{"input_tokens": 1}], None, id="no price"),
        pytest.param([], None, id="no call"),
        pytest.param([{"nano_usd": 5}, {}], 5e-9, id="a call that used nothing costs nothing"),
    ],
)
def test_an_unknown_price_makes_the_cost_unknown(calls: list[dict[str, Any]], cost: float | None) -> None:
    entries: list[Entry] = []
    for number, call in enumerate(calls):
        entries += [intent(number, f"c{number}"), done(number, f"c{number}", **call)]
    assert told(*entries)[0].cost_usd == cost


@pytest.mark.holds(
    "tasks.md", "`time` says where a task's time went; `costUSD` is null where a price is unknown"
)
@pytest.mark.parametrize(
    ("entries", "now", "time"),
    [
        pytest.param((SUBMITTED,), 700, {"queue": 0.7}, id="it waits"),
        pytest.param((SUBMITTED, CLAIMED), 700, {"queue": 0.5, "other": 0.2}, id="it runs"),
        pytest.param(
            (SUBMITTED, CLAIMED, intent(600, "a", CallKind.TOOL), intent(700, "b"), done(1000, "b")),
            1100,
            {"queue": 0.5, "other": 0.1, "tool": 0.2, "model": 0.3},
            id="a model and a tool at once",
        ),
        pytest.param(
            (
                *(SUBMITTED, CLAIMED, Suspended(at=START + 600, waits_for=WaitKind.TIMER, call="s")),
                *(
                    Resumed(at=START + 1600, waits_for=WaitKind.TIMER),
                    Claimed(at=START + 1700, worker="w", attempt=1),
                ),
                ENDED,
            ),
            9000,
            {"queue": 0.6, "other": 1.4},
            id="it was suspended, waited again, and has ended",
        ),
        pytest.param(
            (SUBMITTED, CLAIMED, intent(600, "a"), Claimed(at=START + 1600, worker="v", attempt=2)),
            1700,
            {"queue": 0.5, "other": 0.2, "model": 1.0},
            id="a lost call is over when another worker comes",
        ),
        pytest.param(
            (SUBMITTED, CLAIMED, intent(400, "a"), done(450, "a"), ENDED),
            2000,
            {"queue": 0.5, "other": 1.5},
            id="the worker's clock is behind",
        ),
    ],
)
def test_where_the_time_went(entries: tuple[Entry, ...], now: int, time: dict[str, float]) -> None:
    shown = time_of(told(*entries)[0], now)
    assert shown == pytest.approx({"queue": 0, "model": 0, "tool": 0, "other": 0, **time})


@pytest.mark.holds(
    "tasks.md", "`time` says where a task's time went; `costUSD` is null where a price is unknown"
)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_no_time_is_lost_or_counted_twice_whatever_the_clocks_say(times: list[int]) -> None:
    entries = [
        intent(at, f"c{number}") if number % 2 else done(at, f"c{number - 1}")
        for number, at in enumerate(times)
    ]
    history, _ = told(SUBMITTED, CLAIMED, *entries)
    total = sum(time_of(history, 20_000).values())
    assert total == pytest.approx(20)


RECORD = TaskRecord(
    id="t",
    status=Status.SUCCEEDED,
    priority=Priority.BATCH,
    caller="c",
    input="why?",
    limits=TaskLimits(),
    metadata={},
    submitted_at=START,
    started_at=START + 500,
    ended_at=START + 2000,
    attempts=1,
    cancel_requested=False,
    reason="Completed",
    message=None,
    result={"answer": "so"},
    partial=None,
    tenant="team",
)


@pytest.mark.holds("tasks.md", "A task is shown with status, reason, result, partial, usage and timeline")
def test_a_task_is_shown_with_usage_and_timeline() -> None:
    history = History()
    used = done(1900, "a", input_tokens=40, output_tokens=2, value="a long text")
    entries = (SUBMITTED, CLAIMED, intent(1000, "a", step=1), used, ENDED)
    events = [event for entry in entries if (event := history.told(entry)) is not None]
    view = task_view(RECORD, history, tuple(event.brief() for event in events), START)
    shown = view.model_dump(by_alias=True, mode="json", exclude_none=True)
    assert shown["usage"] == {"steps": 1, "tokens": 42}
    assert [moment["event"] for moment in shown["timeline"]] == [
        *("submitted", "started", "callStarted", "callEnded", "ended")
    ]
    assert shown["timeline"][3]["seconds"] == 0.9
    assert [(step.get("call"), step["kind"], step["seconds"]) for step in shown["criticalPath"]] == [
        (None, "Queue", 0.5),
        ("a", "Model", 0.9),
    ]
    assert "result" not in shown["timeline"][3], "a list of events has no texts of calls"
    assert (shown["tenant"], shown["limits"]["maxFanOut"]) == ("team", 5)
    assert datetime.fromisoformat(shown["submittedAt"]) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.mark.holds(
    "observability.md",
    "The critical path is the longest chain of calls and waits, never longer than the task, in the "
    "API and marked in the timeline",
)
def test_of_a_long_path_the_longest_steps_are_shown_in_their_order() -> None:
    calls = LONGEST_PATH + 10
    history = History()
    for n in range(calls):
        history.told(intent(100 * n, f"c{n}"))
        history.told(done(100 * n + (1 if n < 10 else 50), f"c{n}"))
    shown = history.critical_path(START)
    assert [step.call for step in shown] == [f"c{n}" for n in range(10, calls)]


@pytest.mark.parametrize(
    ("entries", "steps"),
    [
        pytest.param((intent(0, "a", step=1), intent(1, "b", step=1), intent(2, "c", step=2)), 2, id="0.1.0"),
        pytest.param((intent(0, "a", reserved_steps=1), intent(1, "b", CallKind.TOOL)), 1, id="reserved"),
    ],
)
def test_steps_are_counted(entries: tuple[Entry, ...], steps: int) -> None:
    assert told(*entries)[0].steps == steps


def test_a_call_that_goes_on_is_one_event_with_all_that_its_tries_used() -> None:
    history, events = told(
        intent(0, "a", reserved_steps=1),
        intent(1, "a", reserved_steps=1, spent_tokens=30, spent_nano_usd=500_000_000),
        intent(2, "a", reserved_steps=1, spent_tokens=20, spent_nano_usd=250_000_000),
        done(3, "a", input_tokens=4, output_tokens=1, nano_usd=250_000_000),
    )
    assert [event["event"] for event in events] == ["callStarted", "callEnded"]
    assert (events[1]["tokens"], events[1]["costUSD"]) == (55, 1.0)
    assert (history.steps, history.tokens, history.cost_usd) == (1, 55, 1.0)


def test_what_a_suspended_task_waits_for_is_shown() -> None:
    from dataclasses import replace

    waiting = replace(
        RECORD,
        status=Status.SUSPENDED,
        waits_for=WaitKind.EFFECT,
        waits_call="turn/1/tool/pay",
        waits_until=START,
    )
    view = task_view(waiting, History(), (), START).model_dump(by_alias=True, mode="json")
    assert view["waitsFor"] == {"kind": "Effect", "call": "turn/1/tool/pay", "untilTime": AT}
    goes_on = task_view(replace(waiting, status=Status.RUNNING), History(), (), START)
    assert goes_on.waits_for is None


def test_an_event_has_the_number_that_resumes_after_it() -> None:
    event = History().told(Claimed(at=START, worker="w", attempt=2))
    assert event is not None
    assert event_text(4, event) == (
        f'id: 4\nevent: started\ndata: {{"at":"{AT}","event":"started","attempt":2,"worker":"w"}}\n\n'
    )
