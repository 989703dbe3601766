"""The events of a reader of the text of calls under way, whatever became of the pieces."""

from typing import Any

import pytest

from flotilla_runtime.agent.journal import CallOutcome, Claimed, Done, Entry
from flotilla_runtime.agent.store.texts import Piece, Shown
from flotilla_runtime.gateway.history import Event
from flotilla_runtime.gateway.texts import TextView

WITHDRAWN = "withdrawn"


def piece(text: str, at: int = 0, number: int = 0, token: int = 1, place: int = 1, **fields: Any) -> Shown:
    told = Piece(call="c", number=number, at=at, text=text, **fields)
    return Shown(place=f"{place}-0", token=token, piece=told)


def done(value: Any, problem: str | None = None) -> Done:
    outcome = CallOutcome.SUCCEEDED if problem is None else CallOutcome.FAILED
    return Done(at=1, call="c", outcome=outcome, took_ms=1, value=value, problem=problem)


def seen(events: list[Event]) -> list[str]:
    return [WITHDRAWN if event.text is None else f"{event.offset}:{event.text}" for event in events]


def told(*heard: Shown | Entry) -> list[str]:
    """The events of a reader who reads piece after piece."""
    view = TextView()
    events: list[Event] = []
    for one in heard:
        events += view.shown([one]) if isinstance(one, Shown) else view.before(one)
    return seen(events)


CLAIMED = Claimed(at=1, worker="w2", attempt=2)


@pytest.mark.holds(
    "tasks.md",
    "`text` comes as the model writes it, whole for who comes late, taken back with its try, and "
    "is not written to the append-only file",
)
@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        pytest.param([piece("a"), piece("b", at=1), done("ab")], ["0:a", "1:b"], id="whole"),
        pytest.param([piece("a"), done("abc")], ["0:a", "1:bc"], id="the end is in the result"),
        pytest.param([piece("a"), done({"text": "ab", "isCut": True})], ["0:a", "1:b"], id="cut"),
        pytest.param([piece("a"), piece("c", at=2), done("abc")], ["0:a", "1:bc"], id="a piece was lost"),
        pytest.param([piece("b", at=1), done("ab")], ["0:ab"], id="the beginning was lost"),
        pytest.param([piece("a"), piece("a"), done("ab")], ["0:a", "1:b"], id="a piece comes twice"),
        pytest.param([done("ab")], [], id="nothing was shown"),
        pytest.param(
            [piece("a"), piece("", number=1), piece("x", number=1)], ["0:a", WITHDRAWN, "0:x"], id="a try"
        ),
        pytest.param([piece("a"), piece("x", token=9)], ["0:a", WITHDRAWN, "0:x"], id="another worker"),
        pytest.param([piece("a", token=9), piece("b", at=1)], ["0:a"], id="a worker that lost the task"),
        pytest.param([piece("a"), CLAIMED, piece("x", token=9)], ["0:a", WITHDRAWN, "0:x"], id="a claim"),
        pytest.param([piece("a"), done("xyz")], ["0:a", WITHDRAWN, "0:xyz"], id="it was something else"),
        pytest.param([piece("a"), done(None, "it failed")], ["0:a", WITHDRAWN], id="it failed"),
    ],
)
def test_what_a_reader_is_told(heard: list[Shown | Entry], expected: list[str]) -> None:
    assert told(*heard) == expected


def test_a_call_that_has_ended_is_not_shown_to_who_comes_late() -> None:
    view = TextView()
    assert seen(list(view.shown([piece("a"), piece("", ends=True, place=2)]))) == []
    assert view.place == "2-0"


def test_the_text_of_an_answer_is_marked() -> None:
    view = TextView()
    assert [event.answers for event in view.shown([piece("a", answers=True)])] == [True]
    assert [event.answers for event in view.before(done("ab"))] == [True]
