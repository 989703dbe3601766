"""The answer as it comes from a task's events."""

from datetime import UTC, datetime
from typing import Any

import pytest

from flotilla_runtime.gateway.answer_text import AnswerText, TextBrokenError
from flotilla_runtime.gateway.history import Event, EventKind

AT = datetime(2026, 1, 1, tzinfo=UTC)
CUT = {"isCut": True}
WANTS_TOOLS = {"toolCalls": [{"id": "1", "name": "pay", "arguments": "{}"}]}


def event(kind: EventKind, call: str = "a", **fields: Any) -> Event:
    return Event(at=AT, event=kind, call=call, **fields)


def begins(call: str = "a", *, answers: bool = True) -> Event:
    return event(EventKind.CALL_STARTED, call, answers=answers or None)


def writes(text: str, offset: int = 0, call: str = "a") -> Event:
    return event(EventKind.TEXT, call, text=text, offset=offset)


def ends(result: Any, call: str = "a", **fields: Any) -> Event:
    return event(EventKind.CALL_ENDED, call, result=result, **fields)


WITHDRAWN = event(EventKind.TEXT_WITHDRAWN)
STARTED = event(EventKind.STARTED)


@pytest.mark.holds(
    "front-ends.md",
    "A stream has what an agent says between its calls, goes on where a try died and says the "
    "same, and else breaks",
)
@pytest.mark.parametrize(
    ("events", "answer", "pieces"),
    [
        pytest.param(
            [begins(), writes("It "), writes("is.", 3), ends("It is.")], "It is.", ["It", " is."], id="whole"
        ),
        pytest.param([begins(), ends(" It is. ")], "It is.", ["It is."], id="shown at the end of the call"),
        pytest.param([], "It is.", ["It is."], id="shown at the end of the task"),
        pytest.param([begins(answers=False), writes("no"), ends("no")], "yes", ["yes"], id="of another call"),
        pytest.param(
            [begins(), ends({"text": "It ", **CUT}), begins("b"), ends("is.", "b")],
            "It is.",
            ["It", " is."],
            id="continued",
        ),
        pytest.param(
            [begins(), ends({"text": "Let me see.", **WANTS_TOOLS}), begins("b"), writes("It", call="b")],
            "It is.",
            ["Let me see.", "\n\nIt", " is."],
            id="a turn before it",
        ),
        pytest.param(
            [begins(), writes("It is"), WITHDRAWN, writes("It"), writes(" is.", 2)],
            "It is.",
            ["It is", "."],
            id="a try that died said the same",
        ),
        pytest.param(
            [begins(), writes("It is"), WITHDRAWN, STARTED, begins(), ends("It is.")],
            "It is.",
            ["It is", "."],
            id="a worker was lost",
        ),
        pytest.param(
            [begins(), ends("draft")], "It is.", ["draft", "\n\nIt is."], id="the agent says another"
        ),
        pytest.param([begins(), ends(None, problem="it failed")], "", [], id="nothing"),
    ],
)
def test_the_pieces_of_an_answer(events: list[Event], answer: str, pieces: list[str]) -> None:
    text = AnswerText()
    given = [text.heard(one) for one in events]
    given.append(text.ended(answer))
    assert list(filter(None, given)) == pieces
    assert text.given == "".join(pieces)


@pytest.mark.holds(
    "front-ends.md",
    "A stream has what an agent says between its calls, goes on where a try died and says the "
    "same, and else breaks",
)
def test_a_text_that_was_given_and_comes_otherwise_is_broken() -> None:
    text = AnswerText()
    for one in (begins(), writes("It is"), WITHDRAWN):
        text.heard(one)
    with pytest.raises(TextBrokenError):
        text.heard(writes("No"))
