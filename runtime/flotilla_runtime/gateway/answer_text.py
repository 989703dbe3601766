"""The answer of a task as it comes, from the events of its stream; pure.

The answer is the text of the calls that the agent has marked so. A call that is cut off is continued by the
next one. A call that wants tools was no answer yet: what it said stays, and the next text is a paragraph of
its own. Space around each is left out, as in the result. What was given to a client cannot be taken back:
where a try died, its text is given again only as far as it differs at the end, and else the text is broken.
"""

from dataclasses import dataclass, field

from flotilla_runtime.agent.models.journal_form import text_of, tool_calls_of
from flotilla_runtime.gateway.history import Event, EventKind

PARAGRAPH = "\n\n"


class TextBrokenError(Exception):
    """The text that was given does not go on: it was taken back, and another one came."""


@dataclass(slots=True)
class AnswerText:
    """The text given so far. Each method returns the new part."""

    given: str = ""
    _before: str = ""  # paragraphs that are whole
    _whole: str = ""  # of this paragraph, the calls that have ended
    _calls: dict[str, str] = field(default_factory=dict)  # that answer and are under way

    def heard(self, event: Event) -> str:
        """Hear an event."""
        call = event.call or ""
        match event.event:
            case EventKind.CALL_STARTED if event.answers:
                self._calls[call] = ""
            case EventKind.TEXT if call in self._calls:
                self._calls[call] = self._calls[call][: event.offset] + (event.text or "")
            case EventKind.TEXT_WITHDRAWN if call in self._calls:
                self._calls[call] = ""
            case EventKind.STARTED:
                self._calls.clear()
            case EventKind.CALL_ENDED if call in self._calls:
                return self._ended(call, event)
            case _:
                return ""
        return self._new(self._paragraph(), is_whole=False)

    def ended(self, answer: str) -> str:
        """The task has ended with this answer."""
        shown = self.given[len(self._before) :]
        if not answer.startswith(shown):
            self._before = self.given + PARAGRAPH
        return self._new(answer, is_whole=True)

    def again(self) -> str:
        """The whole text anew, for a client to whom it can be given again."""
        self.given = ""
        return self._new(self._paragraph(), is_whole=True)

    def _ended(self, call: str, event: Event) -> str:
        del self._calls[call]
        if event.problem is not None:
            return ""
        self._whole += text_of(event.result)
        new = self._new(self._paragraph(), is_whole=True)
        if tool_calls_of(event.result):
            self._before = self.given + PARAGRAPH if self.given else ""
            self._whole = ""
        return new

    def _paragraph(self) -> str:
        """The text of this paragraph: of several calls at once, only that of the first counts."""
        return (self._whole + next(iter(self._calls.values()), "")).strip()

    def _new(self, paragraph: str, *, is_whole: bool) -> str:
        text = self._before + paragraph if paragraph else self.given
        if not text.startswith(self.given):
            if is_whole or not self.given.startswith(text):
                raise TextBrokenError
            return ""  # the new try has not come as far as the one before
        new = text[len(self.given) :]
        self.given = text
        return new
