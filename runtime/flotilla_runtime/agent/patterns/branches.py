"""Runs the branches of a pattern, each in a scope of its own, and ends those that nobody needs any more.

A branch that fails, or whose time is up, has a `Missing` in its place; it stops no other one. Its time counts
from its first call on, also through the loss of its worker.

Which branches counted is written to the journal before the agent hears of it, if it depends on the time. When
that is written the calls of the others are given up in the same write, and their requests are closed at once.
A replay that finds a choice runs only those that counted; all their calls have results by then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from flotilla_runtime.agent.failures import ScopeError
from flotilla_runtime.agent.patterns.plans import (
    MILLISECONDS,
    Bucket,
    Plan,
    Standing,
    begins_at,
    missing_of,
)
from flotilla_runtime.agent.patterns.runtime import Branching, Place
from flotilla_runtime.agent.patterns.values import Missing, MissingReason, PatternEnd

REPLAY_MS: Final = 250  # in which a branch whose time was up before a crash may still end from the journal
CLOSING_SECONDS: Final = 1.0  # in which branches that were cancelled must end
ENDED: Final = "ended"
MISSING: Final = "missing"
# What stands in journals for both is NotNeeded: an agent may have told it on.
NEVER_BEGUN: Final = Missing(
    reason=MissingReason.NOT_NEEDED, problem="it was not begun, since enough others had ended"
)
LOST: Final = Missing(reason=MissingReason.NOT_NEEDED, problem="enough others had ended before it")

log = structlog.get_logger(__name__)

Make = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One of the things that are done at the same time.

    It begins when those `after` which it comes have ended, and `make` is given what they came to, in that
    order. `cost` counts against the plan's rate.
    """

    key: str
    make: Callable[..., Awaitable[Any]]
    after: tuple[str, ...] = ()
    timeout_seconds: float | None = None
    cost: float = 1


@dataclass(slots=True, kw_only=True)
class _Running:
    branch: Branch
    place: Place
    task: asyncio.Task[Any]
    until: int | None


class Group:
    """The branches of one pattern, in the scope of the pattern. Await `ended` once."""

    def __init__(self, branching: Branching, place: Place, branches: Sequence[Branch], plan: Plan) -> None:
        self.place: Final = place
        self._branching = branching
        self._plan = plan
        self._places = {branch.key: branching.allotted(branch.key, self.place) for branch in branches}
        if len(self._places) < len(branches):
            raise ValueError(f"two branches of {place.path} have the same key")
        self._all = {branch.key: branch for branch in branches}
        self._keys = tuple(self._all)
        self._is_decided = plan.is_decided or any(branch.timeout_seconds is not None for branch in branches)
        self._waiting = list(branches)
        self._running: dict[str, _Running] = {}
        self._ended: dict[str, Any] = {}
        self._fatal: BaseException | None = None
        self._wake = asyncio.Event()
        self._last_began: int | None = None
        self._bucket: Bucket | None = None
        self._now = 0
        self._spans: dict[str, tuple[int, int]] = {}
        self._is_of_one_run = True

    async def ended(self) -> dict[str, Any]:
        """Wait for enough branches; return a value or a Missing for each, in the order of their ends."""
        chosen = await self._branching.chosen(self.place, self._keys) if self._is_decided else None
        if chosen is not None:
            return await self._replayed(chosen)
        try:
            await self._until_enough()
        except asyncio.CancelledError:
            if self._is_decided:
                self._branching.abandon(self.place, self._keys, list(self._places.values()))
            raise
        finally:
            late = self._cancelled()
        await self._closed(late)
        return self._ended

    async def _replayed(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Those that counted, run from the journal in the order in which they had ended."""
        told = {
            key: Missing(reason=MissingReason(one["reason"]), problem=one["problem"])
            for key, one in chosen[MISSING].items()
        }
        self._branching.give_up([self._places[key] for key in told])  # what a crash has left open
        counted = [self._all[key] for key in chosen[ENDED] if key not in told]
        self._waiting = [replace(branch, timeout_seconds=None) for branch in counted]
        self._plan = Plan(kind=self._plan.kind)
        self._is_decided = False
        self._ended = dict(told)
        ran = await self.ended()
        return {key: ran[key] for key in chosen[ENDED]}

    async def _until_enough(self) -> None:
        while True:
            self._now = max(self._now, self._branching.now_ms())
            self._expire()
            if self._fatal is not None:
                raise self._fatal
            if not (self._waiting or self._running) or self._plan.enough(self._ended):
                await self._decide()
                return
            begins = self._begin()
            moments = [one.until for one in self._running.values() if one.until is not None]
            until = min([*moments, *([begins] if begins is not None else [])], default=None)
            if await self._branching.woken(self._wake, self.place, until) and until is not None:
                self._now = max(self._now, until)
            self._wake.clear()

    # Beginnings

    def _begin(self) -> int | None:
        """Begin what may begin now; the moment of the next one, if it only waits for the time."""
        while (branch := self._next()) is not None:
            began = self._branching.began_at(self._places[branch.key])
            if began is None:
                moment = begins_at(self._plan, self._standing(), branch.cost)
                if moment is None or moment > self._now:
                    return moment
                if self._bucket is not None:
                    self._bucket = self._bucket.taken(branch.cost)
            elif self._plan.at_once is not None and len(self._running) >= self._plan.at_once:
                return None
            self._last_began = self._now if began is None else began
            self._waiting.remove(branch)
            self._start(branch, began)
        return None

    def _next(self) -> Branch | None:
        """The first branch that comes after none that has not ended."""
        ready = (one for one in self._waiting if all(key in self._ended for key in one.after))
        return next(ready, None)

    def _standing(self) -> Standing:
        rate = self._plan.rate
        if rate is not None:
            full = Bucket(tokens=rate.burst, at=self._now)
            self._bucket = (self._bucket or full).filled(rate, self._now)
        return Standing(
            running=len(self._running), last_began=self._last_began, bucket=self._bucket, now=self._now
        )

    def _start(self, branch: Branch, began: int | None) -> None:
        until = None
        if branch.timeout_seconds is not None:
            until = (self._now if began is None else began) + round(branch.timeout_seconds * MILLISECONDS)
            if began is not None:
                until = max(until, self._now + REPLAY_MS)
        self._is_of_one_run = self._is_of_one_run and began is None
        self._spans[branch.key] = (self._now, self._now)
        place = self._places[branch.key]
        task = asyncio.create_task(self._run(branch, place))
        self._running[branch.key] = _Running(branch=branch, place=place, task=task, until=until)
        task.add_done_callback(lambda done: self._end(branch.key, done))

    async def _run(self, branch: Branch, place: Place) -> Any:
        with self._branching.entered(place):
            return await branch.make(*(self._ended[key] for key in branch.after))

    # Ends

    def _end(self, key: str, task: "asyncio.Task[Any]") -> None:
        """Note how a branch ended by itself."""
        error = None if task.cancelled() else task.exception()
        if self._running.pop(key, None) is None:
            return  # given up
        self._note_end(key)
        self._wake.set()
        if task.cancelled():
            self._ended[key] = Missing(
                reason=MissingReason.FAILED, problem="the branch's code cancelled itself"
            )
        elif error is None:
            self._ended[key] = task.result()
        elif isinstance(error, ScopeError) or (missing := missing_of(error)) is None:
            self._fatal = self._fatal or error
        else:
            self._ended[key] = missing

    def _expire(self) -> None:
        """End the branches whose time is up."""
        late = [one for one in self._running.values() if one.until is not None and one.until <= self._now]
        self._branching.give_up([one.place for one in late])
        for one in late:
            self._give_up(one, MissingReason.TIMED_OUT, f"no result within {one.branch.timeout_seconds:g} s")

    def _give_up(self, one: _Running, reason: MissingReason, problem: str) -> None:
        del self._running[one.branch.key]
        self._note_end(one.branch.key)
        self._ended[one.branch.key] = Missing(reason=reason, problem=problem)
        one.task.cancel()

    def _note_end(self, key: str) -> None:
        self._spans[key] = (self._spans[key][0], self._branching.now_ms())

    async def _decide(self) -> None:
        """Write which branches counted, and end the others, also those that only an earlier run has begun."""
        began = {one.key: self._branching.began_at(self._places[one.key]) for one in self._waiting}
        not_begun = [key for key, moment in began.items() if moment is None]
        losers = [*self._running, *(key for key, moment in began.items() if moment is not None)]
        self._ended |= dict.fromkeys(not_begun, NEVER_BEGUN) | dict.fromkeys(losers, LOST)
        self._waiting.clear()
        for key in self._running:
            self._note_end(key)
        spans = tuple(self._spans.values()) if self._is_of_one_run else ()
        end = PatternEnd.of(self._plan.kind, self._keys, self._ended, spans, not_begun)
        self._branching.count(self.place, end)
        if not self._is_decided:
            return
        losing = [self._places[key] for key in losers]
        choice = self._branching.choose(self.place, self._keys, self._choice(), losing)
        await self._closed(self._cancelled())
        await self._branching.confirmed(choice)

    def _choice(self) -> dict[str, Any]:
        """The keys of the branches, in the order of their ends; those that were given up have a reason."""
        given_up = (MissingReason.TIMED_OUT, MissingReason.NOT_NEEDED)
        told = {key: one for key, one in self._ended.items() if isinstance(one, Missing)}
        return {
            ENDED: list(self._ended),
            MISSING: {key: one.document for key, one in told.items() if one.reason in given_up},
        }

    def _cancelled(self) -> set["asyncio.Task[Any]"]:
        """Cancel what still runs."""
        tasks = {one.task for one in self._running.values()}
        self._running.clear()
        for task in tasks:
            task.cancel()
        return tasks

    async def _closed(self, tasks: set["asyncio.Task[Any]"]) -> None:
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSING_SECONDS)
            if late:
                log.warning("branch_ignores_cancellation", scope=self.place.path)
