"""An executor: one event loop that runs Python functions for workers, many at once.

It claims requests while it has room and is not stuck, renews their leases every third of a lease, and writes
each reply once. A request whose lease it lost, or for which nobody waits any more, is stopped: a coroutine is
cancelled, a thread is left behind. When Redis does not answer, functions go on, and a reply is sent again
until it is written or the lease is known to be lost. When it is told to stop, it claims no more and lets
functions end for `handover_seconds`. What then still runs goes to another executor, but for Unsafe calls, of
which it says that nobody knows whether they happened.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar

import structlog

from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.executor.metrics import ExecutorMetrics
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Certainty, Reply, Threads
from flotilla_runtime.agent.retries import STORE_BACKOFF
from flotilla_runtime.agent.store.worker_tasks import new_request
from flotilla_runtime.agent.tool_requests import FunctionKind, Granted, ServesWorkers
from flotilla_runtime.agent.worker.patience import until_answered
from flotilla_runtime.agent.worker.stuck import ThreadWatch
from flotilla_runtime.agent.worker.vitals import Vitals
from flotilla_runtime.contract import Effect, ExecutorConfig

Answer = TypeVar("Answer")

CLAIM_AT_ONCE: Final = 32
IDLE_SECONDS: Final = 1.0
RENEWALS_PER_LEASE: Final = 3
LAST_WORDS_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class CallsFunctions(Protocol):
    """Calls functions of the fleet's image in this process."""

    async def make(self, call: Call, task: str = "") -> Reply:
        """Call the function of a tool; failures are replies."""

    async def say_whether_happened(self, call: Call) -> Reply:
        """Call a tool's `reconcile`."""


class Cut(StrEnum):
    """Why a call is cut off."""

    LOST = "Lost"
    WITHDRAWN = "Withdrawn"
    LEAVING = "Leaving"


@dataclass(slots=True)
class Held:
    """A request that this executor was granted, and the task that carries it out."""

    granted: Granted
    task: "asyncio.Task[None] | None" = None
    cut: Cut | None = None

    def cut_off(self, why: Cut) -> None:
        """Stop the call, unless it is being stopped already."""
        if self.cut is None and self.task is not None:
            self.cut = why
            self.task.cancel()


class Executor:
    """Claims requests, runs them, and hands them over when it must stop."""

    def __init__(
        self,
        *,
        name: str,
        queue: ServesWorkers,
        functions: CallsFunctions,
        threads: Threads,
        config: ExecutorConfig,
        clock: Clock,
    ) -> None:
        self.name: Final = name
        self.metrics: Final = ExecutorMetrics()
        self._queue = queue
        self._functions = functions
        self._config = config
        self._clock = clock
        watch = ThreadWatch(threads, self.metrics.left_behind, clock.monotonic_seconds)
        self.vitals: Final = Vitals(watch, clock.monotonic_seconds)
        self._process = f"{name}#{new_request()}"
        self._held: dict[str, Held] = {}
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._token = new_request()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run functions until `stopping` is set, then hand over what is left and return."""
        self._stopping = stopping
        beside = [asyncio.create_task(self._renew_leases()), asyncio.create_task(self._hear())]
        try:
            await self._take_requests()
            await self._leave()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _take_requests(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self.vitals.looked()
            try:
                await self._take_some()
                self.vitals.answered()
                failures = 0
            except StoreUnavailableError as problem:
                failures += 1
                self._unavailable(problem, failures)
                await asyncio.sleep(STORE_BACKOFF.seconds_after(failures, random.uniform))

    async def _take_some(self) -> None:
        """Claim requests for the free places, or wait for one or for a place."""
        free = 0 if self.vitals.is_stuck else self._config.concurrency - len(self._tasks)
        if free <= 0:
            await self._wait_for_a_place()
            return
        wanted = min(free, CLAIM_AT_ONCE)
        # Sent again under the same token until it is granted some, because an answer may have been lost.
        granted = await self._queue.claim(self._process, self._config.revision, wanted, self._token)
        if granted:
            self._token = new_request()
        for one in granted:
            self._start(one)
        if not granted:
            await self._queue.wait_for_work(self._config.revision, IDLE_SECONDS)

    async def _wait_for_a_place(self) -> None:
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({*self._tasks, stopped}, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    def _start(self, granted: Granted) -> None:
        request_id = granted.request.id
        if (earlier := self._held.get(request_id)) is not None:
            if earlier.granted.token == granted.token:
                return  # the answer to a claim that was sent again
            earlier.cut_off(Cut.LOST)
        held = self._held[request_id] = Held(granted)
        held.task = asyncio.create_task(self._carry_out(held), name=request_id)
        self._tasks.add(held.task)
        held.task.add_done_callback(self._tasks.discard)
        self.metrics.running.set(len(self._held))

    async def _carry_out(self, held: Held) -> None:
        request_id, token = held.granted.request.id, held.granted.token
        try:
            reply = await self._reply(held)
            if reply is None:
                return
            if reply.certainty is Certainty.NOT_BEGUN:
                written = await self._repeated(lambda: self._queue.give_back(request_id, token))
            else:
                written = await self._repeated(lambda: self._queue.answer(request_id, token, reply))
            if not written:
                self.metrics.lost.inc()
                log.warning("lease_lost", request=request_id, tool=held.granted.request.name)
        finally:
            if self._held.get(request_id) is held:
                del self._held[request_id]
            self.metrics.running.set(len(self._held))

    async def _reply(self, held: Held) -> Reply | None:
        """Call the function, and return the reply; None for a request that another executor may have."""
        request, started = held.granted.request, self._clock.monotonic_seconds()
        call = Call(
            id=request.call,
            kind=CallKind.TOOL,
            target=request.name,
            request=dict(request.arguments),
            key=request.key,
            effect=request.effect,
        )
        try:
            match request.kind:
                case FunctionKind.TOOL:
                    reply = await self._functions.make(call)
                case FunctionKind.RECONCILE:
                    reply = await self._functions.say_whether_happened(call)
        except asyncio.CancelledError:
            if held.cut is None:
                raise
            return reply_when_cut(held.cut, request.effect)
        except Exception as problem:
            log.exception("call_broke", tool=request.name)
            said = f"the executor failed: {type(problem).__name__}"
            reply = Reply(outcome=CallOutcome.FAILED, problem=said, certainty=Certainty.UNKNOWN)
        self.metrics.calls.labels(reply.outcome).observe(self._clock.monotonic_seconds() - started)
        return reply

    async def _renew_leases(self) -> None:
        """Renew the leases every third of a lease; a renewal that fails is tried again a third later."""
        while True:
            await asyncio.sleep(self._config.queue.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self._renew()
            except Exception:
                log.exception("leases_not_renewed", requests=len(self._held))

    async def _hear(self) -> None:
        """Renew at once when a request was withdrawn, which stops it."""
        while True:
            if await self._repeated(lambda: self._queue.news(self._process, IDLE_SECONDS)):
                await self._renew()

    async def _renew(self) -> None:
        held: Mapping[str, Held] = dict(self._held)
        if not held:
            return
        try:
            tokens = {request_id: one.granted.token for request_id, one in held.items()}
            renewal = await self._queue.renew(self._process, tokens)
        except StoreUnavailableError as problem:
            self._unavailable(problem, 1)
            return
        for request_id in renewal.lost:
            held[request_id].cut_off(Cut.LOST)
        for request_id in renewal.withdrawn:
            held[request_id].cut_off(Cut.WITHDRAWN)

    async def _leave(self) -> None:
        if self._tasks:
            log.info("letting_functions_end", functions=len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._config.handover_seconds)
        for held in list(self._held.values()):
            held.cut_off(Cut.LEAVING)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS_SECONDS)

    async def _repeated(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a request until Redis answers."""
        return await until_answered(ask, lambda _: self.metrics.store_problems.inc())

    def _unavailable(self, problem: StoreUnavailableError, failures: int) -> None:
        self.metrics.store_problems.inc()
        log.warning("store_unavailable", problem=problem.problem, failures=failures)


def reply_when_cut(cut: Cut, effect: Effect) -> Reply | None:
    """The reply of a call that was cut off while it ran; None if the lease is another's. Pure."""
    match cut:
        case Cut.LOST:
            return None
        case Cut.WITHDRAWN:
            problem = "nobody waited for it any more"
            return Reply(outcome=CallOutcome.CANCELLED, problem=problem, certainty=Certainty.UNKNOWN)
        case Cut.LEAVING:
            problem = "the executor had to stop before the function ended"
            unsafe = effect is Effect.UNSAFE
            certainty = Certainty.UNKNOWN if unsafe else Certainty.NOT_BEGUN
            return Reply(outcome=CallOutcome.FAILED, problem=problem, certainty=certainty)
