"""The reservations of a run's calls, and the intents that record them.

A refusal tells what is left. A call is cut to that if it can be; else it waits while other calls may settle
what they hold. A call whose tries have spent what it reserved settles that and reserves anew, as the same
step. Where the limits leave no room for that in time, it keeps what it holds, and its result settles that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Final, Never

from flotilla_runtime.agent.budgets import NOTHING, Amount, Budget, Refusal
from flotilla_runtime.agent.engine.entries import Wanted, given_up, intent_of, refused_entries
from flotilla_runtime.agent.engine.figures import CallFigures
from flotilla_runtime.agent.engine.history import MAY_BE_GIVEN_UP, PastCall, reserve_of, spent_of
from flotilla_runtime.agent.engine.pace import LOST, Pace, never
from flotilla_runtime.agent.engine.recording import FIRST_PAUSE_SECONDS, Recording
from flotilla_runtime.agent.engine.writer import Writer
from flotilla_runtime.agent.errors import LeaseLostError, StoreUnavailableError
from flotilla_runtime.agent.failures import LimitReachedError
from flotilla_runtime.agent.journal import Done, Intended
from flotilla_runtime.agent.protocols import Call, Calls, Session, Spent

MORE_WITHIN_SECONDS: Final = 10.0  # others that wait for more, too, settle nothing meanwhile


class Reserving:
    """The intents of one run."""

    def __init__(
        self,
        calls: Calls,
        session: Session,
        writer: Writer,
        recording: Recording,
        pace: Pace,
        figures: CallFigures,
        *,
        steps: int,
    ) -> None:
        self._calls = calls
        self._session = session
        self._writer = writer
        self._recording = recording
        self._pace = pace
        self._figures = figures
        self._steps = steps
        self._begun: dict[str, Intended] = {}
        self._closed: set[str] = set()
        self._renewals: dict[str, asyncio.Task[Refusal | None]] = {}

    def step(self, wanted: Wanted) -> int:
        """The number of the step that a new call belongs to."""
        self._steps += wanted.steps
        return self._steps

    async def begin(self, call: Call, wanted: Wanted, past: PastCall | None) -> Call:
        """Reserve what the call can use, and write its intent. Raises LimitReachedError."""
        step = self.step(wanted) if past is None else past.intent.step

        async def written(cut: Call, amount: Amount) -> Refusal | None:
            intent = intent_of(
                wanted, self._pace.now_ms(), step, amount, effect=call.effect, most_bytes=cut.most_bytes
            )
            self._begun[wanted.id] = intent
            refused = await self._recording.write(intent)
            if refused is not None:
                self.let_go(wanted.id)
            return refused

        reserved = await self._reserved(call, lambda: self._writer.budget, written)
        if isinstance(reserved, Refusal):
            await self.refuse(wanted, step, reserved)
        await self._pace.not_barred()
        return replace(reserved, more=partial(self._more, wanted))

    def hold(self, intent: Intended) -> None:
        """Know a call that reserves nothing, so that it can be given up."""
        self._begun[intent.call] = intent

    def let_go(self, call: str) -> None:
        """Know a call no longer: its intent was refused."""
        self._begun.pop(call, None)

    def newest(self, call: str) -> Intended | None:
        """The newest intent of a call under way; None if it was given up."""
        return self._begun.get(call)

    def end(self, call: str) -> Intended | None:
        """The newest intent of a call that has ended; None if it was given up before."""
        self._renewals.pop(call, None)
        self._closed.add(call)
        return self._begun.pop(call, None)

    async def ended(self, call: str) -> Intended:
        """The newest intent of a call that has ended. Does not return if a pattern has given the call up."""
        intent = self.end(call)
        return await never() if intent is None else intent

    def losses(self, scopes: Collection[str]) -> list[Done]:
        """The results of the calls within these scopes, which are given up from now on.

        Calls that an earlier run has left open are among them. One that reserves anew at this moment is not:
        `give_up` notes it when it is known what it holds.
        """
        within = tuple(scopes)
        if not within:
            return []
        lost = [
            intent
            for call, intent in {**self._writer.open, **self._begun}.items()
            if call.startswith(within) and intent.kind in MAY_BE_GIVEN_UP and not self._is_closed(call)
        ]
        for intent in lost:
            self._begun.pop(intent.call, None)
        return [self._given_up(intent) for intent in lost]

    def _is_closed(self, call: str) -> bool:
        """Whether a call has its result, or gets it as soon as it is known what it holds."""
        renewal = self._renewals.get(call)
        return call in self._closed or (renewal is not None and not renewal.done())

    @contextmanager
    def giving_up(self, call: str) -> Iterator[None]:
        """Give a call up if the agent cancels it meanwhile."""
        try:
            yield
        except asyncio.CancelledError:
            self.give_up(call)
            raise

    def give_up(self, call: str) -> None:
        """Note that the agent itself cancelled a call, with what it holds when it is known."""
        renewal = self._renewals.get(call)
        if renewal is not None and not renewal.done():
            renewal.add_done_callback(lambda _: self.give_up(call))
            return
        self._renewals.pop(call, None)
        intent = self._begun.pop(call, None)
        if intent is None or self._pace.stopped.done():
            return
        self._recording.hand_in(self._given_up(intent))

    def _given_up(self, intent: Intended) -> Done:
        self._closed.add(intent.call)
        done = given_up(intent, self._pace.now_ms())
        self._figures.count(intent, done)
        return done

    async def refuse(self, wanted: Wanted, step: int, refusal: Refusal) -> Never:
        """Write that the call is refused for good, so that an agent which handles that is replayed alike."""
        self._steps = min(self._steps, step - wanted.steps)
        await self._recording.write(
            *refused_entries(wanted, self._pace.now_ms(), step - wanted.steps, refusal)
        )
        raise LimitReachedError(refusal)

    async def _reserved(
        self,
        call: Call,
        budget: Callable[[], Budget],
        written: Callable[[Call, Amount], Awaitable[Refusal | None]],
        until: float | None = None,
    ) -> Call | Refusal:
        """The call, cut to what is left, when its intent is `written`; or the last refusal."""
        pause = FIRST_PAUSE_SECONDS
        refused: Refusal | None = None
        before = NOTHING
        while True:
            cut, amount = await self._calls.reservation(call, self._session, budget())
            call = replace(call, waited_ms=cut.waited_ms)  # it has its turn at a rate limit
            if refused is not None and not _is_less(amount, before):
                if not refused.may_change or (until is not None and _now() + pause > until):
                    return refused
                pause = await self._recording.others_settle(pause)
                refused = None
                continue
            before = amount
            refused = await written(cut, amount)
            if refused is None:
                return cut

    async def _more(self, wanted: Wanted, call: Call, spent: Spent) -> Call | None:
        """The call with what it reserves anew; None if no limit leaves room in time."""
        intent = self._begun.get(wanted.id)
        if intent is None:
            return await never()  # a pattern has given the call up
        used = spent_of(intent, replace(intent, spent_tokens=spent.tokens, spent_nano_usd=spent.nano_usd))

        async def written(cut: Call, amount: Amount) -> Refusal | None:
            anew = intent_of(
                wanted,
                self._pace.now_ms(),
                intent.step,
                amount,
                effect=call.effect,
                most_bytes=cut.most_bytes,
                spent=spent,
                asks=cut.target,
            )
            renewal = self._renewals[wanted.id] = asyncio.create_task(self._renewed(anew))
            return await asyncio.shield(renewal)

        until = min(spent.waits_until, _now() + MORE_WITHIN_SECONDS)
        try:
            reserved = await self._reserved(
                call, lambda: self._writer.budget.settled(reserve_of(intent), used), written, until
            )
        except (LeaseLostError, StoreUnavailableError):
            self._pace.stop(LOST)
            return await never()
        return None if isinstance(reserved, Refusal) else reserved

    async def _renewed(self, anew: Intended) -> Refusal | None:
        """Write an intent, also if its call is cancelled meanwhile: it is known what the call holds."""
        refused = await self._recording.write(anew)
        if refused is None:
            self._begun[anew.call] = anew
        return refused


def _is_less(amount: Amount, before: Amount) -> bool:
    return amount.tokens < before.tokens or amount.nano_usd < before.nano_usd


def _now() -> float:
    return asyncio.get_running_loop().time()
