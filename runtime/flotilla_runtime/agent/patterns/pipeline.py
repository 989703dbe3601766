"""A pipeline: a model's calls begin while it still writes, each as soon as its arguments are complete.

Only tools that are Pure begin so early, because a try of the model can die, and the next one may want other
calls. What changes something begins when the answer is whole. A call is known by its name and its arguments,
so an answer that is written anew finds what was done for the first one; what it does not ask for is given up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flotilla_runtime.agent.answers import Answer
from flotilla_runtime.agent.failures import ScopeError
from flotilla_runtime.agent.futures import heard
from flotilla_runtime.agent.models import ToolCall, ToolDeclaration
from flotilla_runtime.agent.models.values import ModelEvent, OnEvent, ToolCallComplete, Withdrawn
from flotilla_runtime.agent.patterns.early import is_sound, keys_of, why_unknown, why_unsound
from flotilla_runtime.agent.patterns.plans import missing_of
from flotilla_runtime.agent.patterns.runtime import Branching, Calling, Place
from flotilla_runtime.agent.patterns.values import Missing, MissingReason
from flotilla_runtime.contract import Effect

MOST_CALLS: Final = 64
TOO_MANY: Final = f"not called: an answer may have at most {MOST_CALLS} calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A call of the model, and what came of it: a value, or None and why."""

    call: ToolCall
    value: Any = None
    missing: Missing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piped:
    """The model's answer, and what its calls gave, in their order."""

    answer: Answer
    used: tuple[Used, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every call gave a value."""
        return all(one.missing is None for one in self.used)


class EarlyCalls:
    """The calls of one answer, of which some begin before it is whole. `make` makes one, in its own scope."""

    def __init__(
        self,
        branching: Branching,
        place: Place,
        *,
        may_begin: Callable[[ToolCall], bool],
        make: Callable[[ToolCall], Awaitable[Any]],
        most: int = MOST_CALLS,
    ) -> None:
        self._branching = branching
        self._place = place
        self._may_begin = may_begin
        self._make = make
        self._most = most
        self._heard: list[ToolCall] = []
        self._places: dict[str, Place] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    def hear(self, event: ModelEvent) -> None:
        """Begin a call that is complete. The next try may ask for the same, so a dead one's calls go on."""
        match event:
            case ToolCallComplete(call=call):
                self._heard.append(call)
                if len(self._tasks) < self._most and self._may_begin(call):
                    self.begin(keys_of(self._heard)[-1], call)
            case Withdrawn():
                self._heard.clear()

    def begin(self, key: str, call: ToolCall) -> None:
        """Begin a call, unless it has begun."""
        if key not in self._tasks:
            task = asyncio.create_task(self._made(self._place_of(key), call))
            task.add_done_callback(heard)
            self._tasks[key] = task

    def begun(self, key: str, call: ToolCall) -> "asyncio.Task[Any] | None":
        """A call that has begun early, in this run or in an earlier one."""
        may_have = key not in self._tasks and self._may_begin(call)
        if may_have and self._branching.began_at(self._place_of(key)) is not None:
            self.begin(key, call)
        return self._tasks.get(key)

    def keep(self, keys: Collection[str]) -> None:
        """Give up all calls but these."""
        dropped = {key: self._tasks.pop(key) for key in self._tasks.keys() - set(keys)}
        self._branching.give_up([self._places[key] for key in dropped])
        for task in dropped.values():
            task.cancel()

    def close(self) -> None:
        """Cancel what still runs."""
        for task in self._tasks.values():
            task.cancel()

    def _place_of(self, key: str) -> Place:
        if key not in self._places:
            self._places[key] = self._branching.allotted(key, self._place)
        return self._places[key]

    async def _made(self, place: Place, call: ToolCall) -> Any:
        with self._branching.entered(place):
            return await self._make(call)


class Pipeline:
    """One answer and its calls. A call of a tool that was not `offered` is not made."""

    def __init__(self, ctx: Calling, place: Place, offered: Sequence[str]) -> None:
        self._ctx = ctx
        self._place = place
        self._offered = offered
        self._calls = EarlyCalls(
            ctx.branches,
            place,
            may_begin=self._changes_nothing,
            make=lambda call: ctx.tool(call.name, call.arguments, name="call"),
        )

    async def piped(self, ask: Callable[[OnEvent], Awaitable[Answer]]) -> Piped:
        """Ask the model, which tells what it writes, and make its calls."""
        try:
            with self._ctx.branches.entered(self._place):
                answer = await ask(self._calls.hear)
            pairs = list(zip(keys_of(answer.tool_calls), answer.tool_calls, strict=True))
            made = [(key, call) for key, call in pairs[:MOST_CALLS] if self._can_be_made(call)]
            self._calls.keep([key for key, _ in made])
            for key, call in made:
                self._calls.begin(key, call)
            tasks = {key: self._calls.begun(key, call) for key, call in made}
            used = [await self._used(call, tasks.get(key)) for key, call in pairs]
            return Piped(answer=answer, used=tuple(used))
        finally:
            self._calls.close()

    def _can_be_made(self, call: ToolCall) -> bool:
        return is_sound(call) and call.name in self._offered

    def _changes_nothing(self, call: ToolCall) -> bool:
        return self._can_be_made(call) and self._ctx.program.tools[call.name].config.effect is Effect.PURE

    async def _used(self, call: ToolCall, task: "asyncio.Task[Any] | None") -> Used:
        if task is None:
            return Used(call=call, missing=Missing(reason=MissingReason.REFUSED, problem=self._why_not(call)))
        try:
            return Used(call=call, value=await task)
        except ScopeError:
            raise
        except Exception as error:
            missing = missing_of(error)
            if missing is None:
                raise
            return Used(call=call, missing=missing)

    def _why_not(self, call: ToolCall) -> str:
        if call.name not in self._offered:
            return why_unknown(call, self._offered)
        return TOO_MANY if is_sound(call) else why_unsound(call)


def declarations_of(tools: Mapping[str, Any], names: Sequence[str] | None) -> list[ToolDeclaration]:
    """The declarations of these tools, or of all, for the model. Raises ValueError for an unknown one."""
    if names is None:
        return [tool.declaration for tool in tools.values()]
    if unknown := [name for name in names if name not in tools]:
        raise ValueError(f"the fleet has no tools {', '.join(unknown)}")
    return [tools[name].declaration for name in names]
