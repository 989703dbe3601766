"""The text of calls under way, as far as one reader has been told of it; pure.

Pieces come from a stream that may be cut, lost, or of a try that has died meanwhile. A piece that does not
follow what the reader has is not told. When the call ends, its result has the whole text: what is missing is
told then, and what was told wrongly is taken back.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flotilla_runtime.agent.journal import Claimed, Done, Entry
from flotilla_runtime.agent.models.journal_form import text_of
from flotilla_runtime.agent.store.texts import Shown
from flotilla_runtime.gateway.history import Event, EventKind, moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The part of a call that a reader has: the text of this try under this claim."""

    token: int
    number: int
    text: str
    answers: bool


@dataclass(slots=True)
class TextView:
    """The text that one reader has of all calls of a task that are under way."""

    place: str = ""
    calls: dict[str, Told] = field(default_factory=dict)

    def before(self, entry: Entry) -> Iterator[Event]:
        """Yield the events that come before the event of this entry of the journal."""
        match entry:
            case Claimed():  # the calls of the worker that had the task are made again
                for call, told in list(self.calls.items()):
                    yield from self._withdrawn(call, told, entry.at)
            case Done(call=call) if call in self.calls:
                told, text = self.calls[call], text_of(entry.value) if entry.problem is None else ""
                if not text.startswith(told.text):
                    yield from self._withdrawn(call, told, entry.at)
                    told = Told(token=told.token, number=told.number, text="", answers=told.answers)
                if text[len(told.text) :]:
                    yield _text(call, told, text[len(told.text) :], entry.at)
                self.calls.pop(call, None)

    def shown(self, pieces: Iterable[Shown]) -> Iterator[Event]:
        """Yield the events of these pieces, which were read together."""
        read = list(pieces)
        ended = {shown.piece.call for shown in read if shown.piece.ends}
        for shown in read:
            self.place = shown.place
            if shown.piece.call not in ended:
                yield from self._shown(shown)

    def _shown(self, shown: Shown) -> Iterator[Event]:
        piece, told = shown.piece, self.calls.get(shown.piece.call)
        if told is not None and (told.token, told.number) > (shown.token, piece.number):
            return
        if told is not None and (told.token, told.number) != (shown.token, piece.number):
            yield from self._withdrawn(piece.call, told, shown.at_ms)
            told = None
        if told is None:
            told = Told(token=shown.token, number=piece.number, text="", answers=piece.answers)
        if piece.at == len(told.text) and piece.text:
            yield _text(piece.call, told, piece.text, shown.at_ms)
            told = Told(
                token=told.token, number=told.number, text=told.text + piece.text, answers=piece.answers
            )
        self.calls[piece.call] = told

    def _withdrawn(self, call: str, told: Told, at: int) -> Iterator[Event]:
        del self.calls[call]
        if told.text:
            yield Event(at=moment(at), event=EventKind.TEXT_WITHDRAWN, call=call)


def _text(call: str, told: Told, text: str, at: int) -> Event:
    return Event(
        at=moment(at),
        event=EventKind.TEXT,
        call=call,
        answers=told.answers or None,
        offset=len(told.text),
        text=text,
    )
