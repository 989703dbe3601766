"""The text of models while they write it, shown to whoever watches the task.

A worker keeps the text of each call under way. A few times a second it asks Redis, with one command for all
its tasks, which of them are watched, and sends what these have not got yet: from the beginning, so who comes
late misses nothing. Where nobody watches, that command is all it costs. Text beyond a call's or a task's
share is not shown; the result of the call has it. When Redis does not answer, text comes later or not at all.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.models import ModelEvent, TextDelta, Withdrawn
from flotilla_runtime.agent.store.texts import Piece, TaskPieces

EVERY_SECONDS: Final = 0.2  # so a task's text comes in five pieces a second at most
MOST_OF_A_CALL: Final = 256 * 1024  # characters
MOST_OF_A_TASK: Final = 1024 * 1024  # of all calls since none was under way

log = structlog.get_logger(__name__)


class Shows(Protocol):
    """Where text is shown."""

    async def watched(self, tasks: list[str]) -> set[str]:
        """Those of these tasks that somebody watches."""

    async def show(self, tasks: list[TaskPieces]) -> None:
        """Add pieces, and wake who watches these tasks."""


@dataclass(slots=True, eq=False)
class CallText:
    """The text of one call. What a try wrote before it was taken back is forgotten."""

    call: str
    answers: bool
    news: asyncio.Event
    number: int = 0
    length: int = 0  # of all that was written, shown or not
    shown: int = 0
    is_shown: bool = False  # whether there is anything of it in Redis
    is_new_try: bool = False
    is_over: bool = False  # there was no room for the rest
    has_ended: bool = False
    _waiting: list[str] = field(default_factory=list)

    def take(self, event: ModelEvent) -> None:
        """Hear what happens to the call."""
        match event:
            case TextDelta(text=text) if self.length < MOST_OF_A_CALL and not self.is_over:
                self._waiting.append(text[: MOST_OF_A_CALL - self.length])
                self.length += len(text)
                self.news.set()
            case Withdrawn():
                self.number += 1
                self.length = self.shown = 0
                self._waiting.clear()
                self.is_new_try, self.is_over = self.is_shown, False
                self.news.set()

    def end(self) -> None:
        """The call has ended; what nobody has seen of it is forgotten."""
        self.has_ended = True
        self._waiting.clear()
        self.news.set()

    @property
    def has_news(self) -> bool:
        return bool(self._waiting) or self.is_new_try or (self.has_ended and self.is_shown)

    def pieces(self, room: int) -> list[Piece]:
        """Take the new text, at most so many characters; it counts as shown from now on."""
        if self.has_ended:
            return [Piece(call=self.call, number=self.number, ends=True)] if self.is_shown else []
        written = "".join(self._waiting).encode(errors="replace").decode()
        text = written[: max(0, room)]
        self.is_over = len(text) < len(written)
        self._waiting.clear()
        if not text and not self.is_new_try:
            return []
        piece = Piece(call=self.call, number=self.number, at=self.shown, text=text, answers=self.answers)
        self.shown += len(text)
        self.is_shown, self.is_new_try = True, False
        return [piece]


@dataclass(slots=True)
class TaskTexts:
    """The calls of one task that are under way, and how much of them is in Redis."""

    token: int
    calls: list[CallText] = field(default_factory=list)
    shown: int = 0

    def told(self, task: str) -> TaskPieces:
        """Take the new text of all calls. With the last call that was shown, all of it is dropped."""
        pieces: list[Piece] = []
        for call in self.calls:
            new = call.pieces(MOST_OF_A_TASK - self.shown)
            self.shown += sum(len(piece.text) for piece in new)
            pieces += new
        self.calls = [call for call in self.calls if not call.has_ended]
        if not any(call.is_shown for call in self.calls):
            pieces, self.shown = [], 0
        return TaskPieces(task=task, token=self.token, pieces=pieces)


class Texts:
    """The texts of a worker's tasks."""

    def __init__(self, shows: Shows, every_seconds: float = EVERY_SECONDS) -> None:
        self._shows = shows
        self._every_seconds = every_seconds
        self._news = asyncio.Event()
        self._tasks: dict[str, TaskTexts] = {}

    @property
    def tasks(self) -> int:
        """How many tasks have calls under way."""
        return len(self._tasks)

    def begin(self, task: str, token: int, call: str, *, answers: bool) -> CallText:
        """The text of a call that begins; `end` it with the call."""
        texts = self._tasks.get(task)
        if texts is None or texts.token != token:
            texts = self._tasks[task] = TaskTexts(token=token)
        text = CallText(call=call, answers=answers, news=self._news)
        texts.calls.append(text)
        return text

    async def follow(self) -> None:
        """Show text, forever."""
        is_away = False
        while True:
            await self._news.wait()
            try:
                await self.look()
                is_away = False
            except StoreUnavailableError as problem:
                if not is_away:
                    log.warning("text_not_shown", problem=problem.problem)
                is_away = True
            except Exception:
                log.exception("text_not_shown")
            await asyncio.sleep(self._every_seconds)

    async def look(self) -> None:
        """Show what is new of the tasks that somebody watches, and forget calls that have ended."""
        self._news.clear()
        new = [task for task, texts in self._tasks.items() if any(call.has_news for call in texts.calls)]
        try:
            watched = await self._shows.watched(new) if new else set()
            told = [self._tasks[task].told(task) for task in new if self._wants(task, watched)]
            if told:
                await self._shows.show(told)
        finally:
            self._forget_ended()

    def _wants(self, task: str, watched: set[str]) -> bool:
        """Whether somebody watches it, or something that was shown of it is to be dropped."""
        return task in watched or any(call.has_ended and call.is_shown for call in self._tasks[task].calls)

    def _forget_ended(self) -> None:
        for task, texts in list(self._tasks.items()):
            texts.calls = [call for call in texts.calls if not call.has_ended]
            if not texts.calls:
                del self._tasks[task]
            elif any(call.has_news for call in texts.calls):
                self._news.set()
