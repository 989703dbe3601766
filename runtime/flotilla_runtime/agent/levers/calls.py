"""Calls that wait for their turn at a rate limit, and leave alone who has failed.

A model whose limit has no room, or whose circuit is open, hands its calls to the role of `overflowTo`, as far
as that one takes them at once. What the other model may use is reserved in the place of what was reserved,
so budgets hold. Where no model takes a call, it waits for its turn at the first one whose circuit is closed;
where all circuits are open, for the first trial. A tool with an open circuit is not called: the agent hears
at once that it failed, and when to try again. A wait is no part of a call's own time-outs; the task's time
goes on.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.journal import CallKind
from flotilla_runtime.agent.levers.buckets import Taken, Turns
from flotilla_runtime.agent.levers.circuits import Ended, Pass
from flotilla_runtime.agent.levers.guards import Circuits, how_ended, not_called
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.models import ModelRequest, bound_of
from flotilla_runtime.agent.programs import ContextOf
from flotilla_runtime.agent.protocols import Call, Calls, Reconciled, Reply, Session, Spent
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import Effect, ModelConnection

EXPECTED_ANSWER_TOKENS: Final = 1024  # most answers are shorter, and what is used more is taken afterwards
BYTES_PER_TOKEN: Final = 3  # of a prompt that nobody has counted; most have more
LEAST_ANSWER_TOKENS: Final = 256  # for which another model must have room
PATIENCE_SECONDS: Final = 120.0  # with a model whose circuit is open; then its call has failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a call goes: with which pass, and what it has taken from a rate limit."""

    call: Call
    target: str
    passed: Pass
    taken: Taken | None = None


class LimitedCalls:
    """Calls of one worker under rate limits and circuits."""

    def __init__(
        self,
        calls: Calls,
        models: Sequence[ModelConnection],
        *,
        tools: Mapping[str, Tool],
        turns: Turns,
        circuits: Circuits,
        metrics: LeverMetrics,
        context_of: ContextOf,
        monotonic_seconds: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._models = models
        self._tools = tools
        self._turns = turns
        self._circuits = circuits
        self._metrics = metrics
        self._context_of = context_of
        self._now = monotonic_seconds

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """Return the call cut to what is left, and the most that it can use.

        An Unsafe call waits for its turn here, before its intent is written: where its worker is lost
        meanwhile, it is known that it was not made. It takes no turn where the circuit is open.
        """
        limit = self._limit_of(call) if call.effect is Effect.UNSAFE else None
        if (
            limit is not None
            and call.waited_ms is None
            and self._circuits.look(call.kind, call.target).may_call
        ):
            taken = await self._turns.waited(limit, 0)
            call = replace(call, waited_ms=round(taken.waited_seconds * 1000))
        return await self._calls.reservation(call, session, budget)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """Find out whether an Unsafe call happened; None if nobody knows."""
        return await self._calls.reconcile(call, session)

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call when it may begin."""
        match call.kind:
            case CallKind.MODEL if chain := overflow_chain(self._models, call.target):
                route = await self._model_route(call, chain)
            case CallKind.TOOL:
                route = await self._tool_route(call)
            case _:
                return await self._calls.make(call, session)
        return route if isinstance(route, Reply) else await self._made(route, call, session)

    async def _made(self, route: Route, asked: Call, session: Session) -> Reply:
        how = Ended.NOT_MADE
        try:
            reply = await self._calls.make(route.call, session)
            how = how_ended(reply)
        finally:
            self._circuits.end(asked.kind, route.target, route.passed, how)
        if route.target != asked.target:
            self._metrics.overflows.labels(asked.target, route.target).inc()
            reply = replace(reply, answered_by=route.target)
        if (taken := route.taken) is None:
            return reply
        self._metrics.waits.labels(taken.limit).observe(taken.waited_seconds)
        used = reply.input_tokens + reply.output_tokens
        await self._turns.settle(taken, tries=reply.tries, tokens=used)
        waited_ms = round(taken.waited_seconds * 1000)
        return replace(reply, rate_limit=taken.limit, limited_ms=waited_ms) if waited_ms else reply

    async def _tool_route(self, call: Call) -> Route | Reply:
        passed = self._circuits.ask(call.kind, call.target)
        limit, taken = self._limit_of(call), None
        if limit is not None and call.waited_ms is not None:
            taken = Taken(limit=limit, tokens=0, waited_seconds=call.waited_ms / 1000)
        if not passed.may_call:
            if taken is not None:
                self._turns.give_back(taken)
            return not_called(call.kind, call.target, passed.retry_after_seconds)
        if limit is not None and taken is None and call.effect is Effect.UNSAFE:
            # Its circuit was open until a moment ago, so it has no turn, and its intent is written already.
            self._circuits.end(call.kind, call.target, passed, Ended.NOT_MADE)
            return not_called(call.kind, call.target, 0)
        if limit is not None and taken is None:
            with self._held(call, call.target, passed):
                taken = await self._turns.waited(limit, 0)
        return Route(call=call, target=call.target, passed=passed, taken=taken)

    def _limit_of(self, call: Call) -> str | None:
        """The rate limit of a tool."""
        tool = self._tools.get(call.target) if call.kind is CallKind.TOOL else None
        return None if tool is None else tool.config.rate_limit

    async def _model_route(self, call: Call, chain: Sequence[ModelConnection]) -> Route | Reply:
        until = self._now() + PATIENCE_SECONDS
        while True:
            route = await self._first_free(call, chain) if len(chain) > 1 else None
            if route is not None:
                return route
            pause = math.inf
            for model in chain:
                passed = self._circuits.ask(call.kind, model.name)
                if not passed.may_call:
                    pause = min(pause, passed.retry_after_seconds)
                elif (route := await self._in_turn(call, model, passed)) is not None:
                    return route
            if self._now() + pause > until:
                return not_called(call.kind, call.target, pause)
            await asyncio.sleep(pause)

    async def _first_free(self, call: Call, chain: Sequence[ModelConnection]) -> Route | None:
        """The first model that takes the call at once."""
        for model in chain:
            passed = self._circuits.ask(call.kind, model.name)
            if not passed.may_call:
                continue
            with self._held(call, model.name, passed):
                limit, taken = model.rate_limit, None
                if limit is not None:
                    taken = await self._turns.at_once(limit, expected_tokens(call))
                is_free = limit is None or taken is not None
                route = await self._at(call, model, passed, taken) if is_free else None
            if route is not None:
                return route
            self._circuits.end(call.kind, model.name, passed, Ended.NOT_MADE)
        return None

    async def _in_turn(self, call: Call, model: ModelConnection, passed: Pass) -> Route | None:
        """This model when the call has its turn there; None where the call cannot go to it."""
        with self._held(call, model.name, passed):
            limit = model.rate_limit
            taken = await self._turns.waited(limit, expected_tokens(call)) if limit is not None else None
            route = await self._at(call, model, passed, taken)
        if route is None:
            self._circuits.end(call.kind, model.name, passed, Ended.NOT_MADE)
        return route

    async def _at(
        self, call: Call, model: ModelConnection, passed: Pass, taken: Taken | None
    ) -> Route | None:
        """The call at this model. At another one than asked for, it reserves what it may use there."""
        moved: Call | None = call
        try:
            if model.name != call.target:
                moved = await self._moved(call, model)
        except BaseException:
            moved = None
            raise
        finally:
            if moved is None and taken is not None:
                self._turns.give_back(taken)
        return None if moved is None else Route(call=moved, target=model.name, passed=passed, taken=taken)

    async def _moved(self, call: Call, model: ModelConnection) -> Call | None:
        """The call for another model; None if its context or the task's budget has no room for it."""
        request = call.request
        assert isinstance(request, ModelRequest)
        context = await self._context_of(model)
        if bound_of(request) + min(request.max_tokens, LEAST_ANSWER_TOKENS) > context:
            return None
        moved = replace(call, target=model.name)
        if call.more is None:
            return moved
        now = asyncio.get_running_loop().time()
        return await call.more(moved, Spent(tokens=0, nano_usd=0, waits_until=now))

    @contextmanager
    def _held(self, call: Call, target: str, passed: Pass) -> Iterator[None]:
        """Let another call try if this one ends before it was made."""
        try:
            yield
        except BaseException:
            self._circuits.end(call.kind, target, passed, Ended.NOT_MADE)
            raise


def overflow_chain(models: Sequence[ModelConnection], name: str) -> list[ModelConnection]:
    """The model of this name, and those to which its calls overflow, in order; each once."""
    by_role = {model.role: model for model in models}
    chain: list[ModelConnection] = []
    model = next((model for model in models if model.name == name), None)
    while model is not None and all(model.name != known.name for known in chain):
        chain.append(model)
        model = by_role.get(model.overflow_to) if model.overflow_to is not None else None
    return chain


def expected_tokens(call: Call) -> int:
    """The tokens that a call of a model takes from a rate limit before it begins."""
    request = call.request
    assert isinstance(request, ModelRequest)
    bound = bound_of(replace(request, prompt_tokens=None))
    counted = request.prompt_tokens
    prompt = bound // BYTES_PER_TOKEN if counted is None or counted >= bound else counted
    return prompt + min(request.max_tokens, EXPECTED_ANSWER_TOKENS)
