"""Has the Python functions of tools called by executors, over their queue in Redis.

A request is named by the key and the id of its call. So a worker that takes a task over joins the request
that is there, and each try of a compensation, all of which have one key, is a request of its own. The
journal's intent stays the truth: an Unsafe call whose executor was lost gets a reply that does not say
whether it happened. While a request waits for an executor, the time of its task goes on, and the tool's
`timeoutSeconds` does not.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.protocols import Call, Certainty, Reconciled, Reply
from flotilla_runtime.agent.retries import STORE_BACKOFF
from flotilla_runtime.agent.store.worker_tasks import new_request
from flotilla_runtime.agent.tool_requests import (
    AsksExecutors,
    FunctionKind,
    RequestState,
    RequestTooLargeError,
    Seen,
    ToolRequest,
)
from flotilla_runtime.agent.tools.results import reply_of
from flotilla_runtime.agent.worker.patience import until_answered
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import Effect
from flotilla_runtime.contract.failure_texts import what_failed

Answer = TypeVar("Answer")

NEWS_SECONDS: Final = 1.0
LOOK_AT_ONCE: Final = 200
WITHDRAW_TRIES: Final = 3
CLOSE_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingSettings:
    """The process that asks, its executors, how often it looks, and how many may be lost with a request.

    Where the fleet has no executors, those of an older revision may still have calls of its tasks.
    """

    process: str
    revision: str
    has_executors: bool = True
    look_seconds: float
    most_lost: int


class Executors:
    """The executors of a fleet, as one worker sees them."""

    def __init__(
        self, queue: AsksExecutors, settings: AskingSettings, *, draw: Draw = random.uniform
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._draw = draw
        self._awaited: dict[str, asyncio.Future[Seen]] = {}
        self._some = asyncio.Event()
        self._withdrawing: set[asyncio.Task[None]] = set()

    async def make(
        self, call: Call, name: str, kind: FunctionKind = FunctionKind.TOOL, *, most_kib: int
    ) -> Reply:
        """Run the function of the tool `name`, and return its reply; failures are replies."""
        request = ToolRequest(
            id=named(call) if kind is FunctionKind.TOOL else f"{call.key}/{kind}/{new_request()}",
            kind=kind,
            name=name,
            call=call.id,
            key=call.key,
            arguments=call.request,
            effect=call.effect,
            most_lost=self._settings.most_lost,
        )
        try:
            request.encoded()
        except RequestTooLargeError as problem:
            return Reply(outcome=CallOutcome.INVALID, problem=what_failed(problem))
        try:
            return reply_of_seen(await self._end_of(request), request, most_kib)
        except asyncio.CancelledError:
            if call.goes_on is None or not call.goes_on():
                self._withdraw(request.id)
            raise

    async def kept(self, call: Call, *, most_kib: int) -> Reconciled | None:
        """Find out whether a call happened that an earlier run has asked for; None if nobody knows.

        One that an executor runs is waited for. What waits goes to executors of this worker's revision, or
        is taken back where there are none.
        """
        name = named(call)
        seen = await self._seen([name])
        end = await self._awaited_end(name, seen[name])
        if end.state is RequestState.TAKEN_BACK:
            return Reconciled(happened=False, was_begun=False)
        if end.reply is None or end.reply.certainty is not Certainty.KNOWN:
            return None
        reply = bounded(end.reply, call.effect, most_kib)
        return Reconciled(happened=reply.outcome is CallOutcome.SUCCEEDED, reply=reply)

    async def run(self) -> None:
        """Follow what becomes of the requests, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever(self._hear))
            group.create_task(self._for_ever(self._look_again))

    async def close(self) -> None:
        """Let withdrawals reach Redis."""
        if self._withdrawing:
            await asyncio.wait(self._withdrawing, timeout=CLOSE_SECONDS)

    async def _end_of(self, request: ToolRequest) -> Seen:
        """Wait for the end of a request. One that has gone is put again, unless it may have happened."""
        while True:
            end = await self._awaited_end(request.id, await self._asked(request, new_request()))
            if end.state is not RequestState.GONE or request.effect is Effect.UNSAFE:
                return end

    async def _asked(self, request: ToolRequest, asked: str) -> Seen:
        revision, process = self._settings.revision, self._settings.process
        return await self._repeated(lambda: self._queue.ask(request, revision, process, asked))

    async def _awaited_end(self, request_id: str, seen: Seen) -> Seen:
        if seen.state.is_final:
            return seen
        future = self._awaited.setdefault(request_id, asyncio.get_running_loop().create_future())
        self._some.set()
        try:
            return await asyncio.shield(future)
        finally:
            if self._awaited.get(request_id) is future:
                del self._awaited[request_id]
            if not self._awaited:
                self._some.clear()

    async def _hear(self) -> None:
        ids = await self._repeated(lambda: self._queue.news(self._settings.process, NEWS_SECONDS))
        await self._look(ids)

    async def _look_again(self) -> None:
        """Look at all, which also says that they are still wanted."""
        await asyncio.sleep(self._settings.look_seconds)
        await self._look(list(self._awaited))

    async def _for_ever(self, step: Callable[[], Awaitable[None]]) -> None:
        """While a request is awaited. What an executor wrote into the queue must stop no other call."""
        while True:
            await self._some.wait()
            try:
                await step()
            except Exception:
                log.exception("executors_queue_unreadable")
                await asyncio.sleep(self._settings.look_seconds)

    async def _look(self, ids: Iterable[str]) -> None:
        wanted = [one for one in dict.fromkeys(ids) if one in self._awaited]
        for start in range(0, len(wanted), LOOK_AT_ONCE):
            found = await self._seen(wanted[start : start + LOOK_AT_ONCE])
            for one, seen in found.items():
                future = self._awaited.get(one)
                if seen.state.is_final and future is not None and not future.done():
                    future.set_result(seen)

    async def _seen(self, ids: list[str]) -> Mapping[str, Seen]:
        settings = self._settings
        revision = settings.revision if settings.has_executors else None
        return await self._repeated(lambda: self._queue.look(settings.process, revision, ids))

    def _withdraw(self, request_id: str) -> None:
        task = asyncio.create_task(self._withdrawn(request_id))
        self._withdrawing.add(task)
        task.add_done_callback(self._withdrawing.discard)

    async def _withdrawn(self, request_id: str) -> None:
        """If this does not reach Redis, nobody looks at the request any more, and it is given up."""
        for failures in range(1, WITHDRAW_TRIES + 1):
            with contextlib.suppress(StoreUnavailableError):
                await self._queue.withdraw(request_id, self._settings.process)
                return
            await asyncio.sleep(STORE_BACKOFF.seconds_after(failures, self._draw))

    async def _repeated(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a request until Redis answers; a task that may run no longer cancels it."""
        return await until_answered(ask, lambda _: None, draw=self._draw)


def named(call: Call) -> str:
    """The id of the request for a call of a tool. Pure."""
    return f"{call.key}/{call.id}"


def reply_of_seen(seen: Seen, request: ToolRequest, most_kib: int) -> Reply:
    """The reply of a call whose request has ended. Pure."""
    if seen.state is RequestState.ANSWERED and seen.reply is not None:
        return bounded(seen.reply, request.effect, most_kib)
    if seen.state is RequestState.LOST and request.effect is not Effect.UNSAFE:
        problem = f"{request.most_lost + 1} executors were lost while they ran it"
        return Reply(outcome=CallOutcome.FAILED, problem=problem)
    name = seen.executor.partition("#")[0]
    lost = f"the executor {name} was lost while it ran the function"
    gone = "its request has gone from the executors' queue"
    problem = lost if seen.state is RequestState.LOST else gone
    return Reply(outcome=CallOutcome.FAILED, problem=problem, certainty=Certainty.UNKNOWN)


def bounded(reply: Reply, effect: Effect, most_kib: int) -> Reply:
    """A reply with a result within the tool's limit, which an executor may not have kept. Pure."""
    if reply.outcome is not CallOutcome.SUCCEEDED:
        return replace(reply, value=None)
    return reply_of(reply.value, most_kib, effect)
