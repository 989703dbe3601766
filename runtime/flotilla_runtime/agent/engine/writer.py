"""Writes a run's entries to its journal, in order, one write at a time.

Entries that are handed in while a write is under way, or in the same turn of the event loop, share the next
one. Whoever hands in entries may be cancelled; the write is not, so the journal's position stays known. After
a write that failed nothing more is written: another worker may hold the task.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from flotilla_runtime.agent.budgets import Budget, LimitName, Refusal
from flotilla_runtime.agent.engine.history import reserve_of, spent_of, use_of
from flotilla_runtime.agent.journal import Done, Entry, Intended
from flotilla_runtime.agent.protocols import Post, StateRequest, TaskJournal, Written
from flotilla_runtime.agent.tasks import Claim


@dataclass(slots=True, kw_only=True)
class _Piece:
    """Entries that one caller waits for; with `child_input`, the intent of a spawned task.

    With `state`, the intent of an access to the state, which gets its result as `done`; with `post`, that of
    a message to an actor.
    """

    entries: tuple[Entry, ...]
    child_input: str | None = None
    state: StateRequest | None = None
    post: Post | None = None
    done: Done | None = None
    written: "asyncio.Future[Refusal | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def is_alone(self) -> bool:
        """Whether it needs a write of its own."""
        return self.child_input is not None or self.state is not None or self.post is not None


class Writer:
    """The writes of one run. `cancel_requested` is set by an answer that says so."""

    def __init__(
        self,
        journal: TaskJournal,
        claim: Claim,
        *,
        length: int,
        budget: Budget,
        open_intents: Mapping[str, Intended],
    ) -> None:
        self.budget = budget
        self.cancel_requested: Final = asyncio.Event()
        self.failed: BaseException | None = None
        self._journal = journal
        self._claim = claim
        self._length = length
        self._waiting: list[_Piece] = []
        self._writing: asyncio.Task[None] | None = None
        self._open: dict[str, Intended] = dict(open_intents)
        self._settled = asyncio.Event()

    @property
    def length(self) -> int:
        """The journal's length, as far as it is written."""
        return self._length

    @property
    def open(self) -> Mapping[str, Intended]:
        """The intents in the journal that have no result."""
        return self._open

    async def spawn(self, intent: Intended, child_input: str) -> Refusal | None:
        """Write the intent of a spawned task and submit the task."""
        return await asyncio.shield(self._add(_Piece(entries=(intent,), child_input=child_input)))

    async def deliver(self, intent: Intended, post: Post) -> Refusal | None:
        """Write the intent of a message to an actor and submit its task."""
        return await asyncio.shield(self._add(_Piece(entries=(intent,), post=post)))

    async def state(self, intent: Intended, request: StateRequest) -> Done | Refusal:
        """Read or write a value of the state, and write this call of it with its result; or the refusal."""
        piece = _Piece(entries=(intent,), state=request)
        told = await asyncio.shield(self._add(piece)) or piece.done
        assert told is not None
        return told

    def hand_in(self, *entries: Entry) -> "asyncio.Future[Refusal | None]":
        """Have these entries written: its value is the refusal, if a limit does not allow their intent."""
        return self._add(_Piece(entries=entries))

    async def settled(self, seconds: float) -> None:
        """Return when a call of this run has settled what it reserved, or after this time."""
        self._settled.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            return

    async def drained(self) -> None:
        """Return when nothing is left to write; raise what made a write fail."""
        while self._writing is not None:
            await asyncio.wait({self._writing})
        if self.failed is not None:
            raise self.failed

    def _add(self, piece: _Piece) -> "asyncio.Future[Refusal | None]":
        if self.failed is not None:
            piece.written.set_exception(self.failed)
        else:
            self._waiting.append(piece)
            if self._writing is None:
                self._writing = asyncio.create_task(self._write_all())
        return piece.written

    async def _write_all(self) -> None:
        await asyncio.sleep(0)  # so that calls which begin at the same moment share a write
        try:
            while self._waiting:
                pieces = self._next()
                try:
                    await self._write(pieces)
                except BaseException as problem:
                    self._fail(problem, pieces)
                    if isinstance(problem, asyncio.CancelledError):
                        raise
        finally:
            self._writing = None

    def _next(self) -> list[_Piece]:
        """The pieces of the next write: all up to the next that needs a write of its own, or that alone."""
        if self._waiting[0].is_alone:
            return [self._waiting.pop(0)]
        alone = (place for place, piece in enumerate(self._waiting) if piece.is_alone)
        end = next(alone, len(self._waiting))
        pieces, self._waiting = self._waiting[:end], self._waiting[end:]
        return pieces

    async def _write(self, pieces: Sequence[_Piece]) -> None:
        entries = [entry for piece in pieces for entry in piece.entries]
        child_input, state, post = pieces[0].child_input, pieces[0].state, pieces[0].post
        if post is not None and isinstance(entries[0], Intended):
            written = await self._journal.deliver(self._claim, self._length, entries[0], post)
        elif state is not None and isinstance(entries[0], Intended):
            written = await self._journal.state(self._claim, self._length, entries[0], state)
            pieces[0].done = written.done
            entries = [*entries, *([written.done] if written.done else [])]
        elif child_input is not None and isinstance(entries[0], Intended):
            written = await self._journal.spawn(self._claim, self._length, entries[0], child_input)
        else:
            written = await self._journal.append(self._claim, self._length, entries)
        self._note(entries, written)
        refused = {refusal.call: refusal for refusal in written.refused}
        for piece in pieces:
            if not piece.written.done():
                piece.written.set_result(_refusal_of(piece, refused))

    def _note(self, entries: Sequence[Entry], written: Written) -> None:
        self._length = written.length
        refused = {refusal.call for refusal in written.refused}
        for entry in entries:
            if isinstance(entry, Intended) and entry.call not in refused:
                earlier, self._open[entry.call] = self._open.get(entry.call), entry
                if earlier is not None:
                    self.budget = self.budget.settled(reserve_of(earlier), spent_of(earlier, entry))
                reserved = self.budget.reserved + reserve_of(entry)
                self.budget = replace(self.budget, reserved=reserved)
            elif (
                isinstance(entry, Done)
                and entry.call not in refused
                and (intent := self._open.pop(entry.call, None)) is not None
            ):
                self.budget = self.budget.settled(reserve_of(intent), use_of(intent, entry))
                self._settled.set()
        if written.budget is not None:
            self.budget = written.budget
        for refusal in written.refused:
            self._learn(refusal)
        if written.cancel_requested:
            self.cancel_requested.set()

    def _learn(self, refusal: Refusal) -> None:
        """Learn the usage of the whole tree from a refusal, where the answer had no budget."""
        if refusal.limit is not LimitName.TOKENS:
            return
        committed, used = int(refusal.committed), self.budget.used.tokens
        if not refusal.may_change:
            used = committed
        self.budget = replace(
            self.budget,
            used=replace(self.budget.used, tokens=used),
            reserved=replace(self.budget.reserved, tokens=max(0, committed - used)),
        )

    def _fail(self, problem: BaseException, pieces: Sequence[_Piece]) -> None:
        self.failed = problem
        for piece in (*pieces, *self._waiting):
            if not piece.written.done():
                piece.written.set_exception(problem)
                piece.written.exception()  # whoever handed it in may be gone
        self._waiting.clear()


def _refusal_of(piece: _Piece, refused: dict[str, Refusal]) -> Refusal | None:
    calls = (entry.call for entry in piece.entries if isinstance(entry, Intended | Done))
    return next((refused[call] for call in calls if call in refused), None)
