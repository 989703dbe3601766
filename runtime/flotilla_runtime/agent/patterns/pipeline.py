"""A pipeline: a model's calls begin while it still writes, each as soon as its arguments are complete.

Only tools that are Pure begin so early, because a try of the model can die, and the next one may want other
calls. What changes something begins when the answer is whole. A call is known by its name and its arguments,
so an answer that is written anew finds what was done for the first one; what it does not ask for is given up.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flotilla_runtime.agent.answers import Answer
from flotilla_runtime.agent.failures import ScopeError
from flotilla_runtime.agent.models import ToolCall, ToolDeclaration
from flotilla_runtime.agent.models.values import ModelEvent, ToolCallComplete, Withdrawn
from flotilla_runtime.agent.patterns.early import is_sound, keys_of
from flotilla_runtime.agent.patterns.plans import missing_of
from flotilla_runtime.agent.patterns.runtime import Calling, Place
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


class Pipeline:
    """One answer and its calls."""

    def __init__(self, ctx: Calling, place: Place) -> None:
        self._ctx = ctx
        self._place = place
        self._branching = ctx.branches
        self._heard: list[ToolCall] = []
        self._places: dict[str, Place] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    async def piped(self, ask: Callable[[Callable[[ModelEvent], None]], Any]) -> Piped:
        """Ask the model, which tells what it writes, and make its calls."""
        try:
            with self._branching.entered(self._place):
                answer = await ask(self._hear)
            calls = answer.tool_calls
            keys = keys_of(calls)
            self._drop(self._tasks.keys() - set(keys[:MOST_CALLS]))
            for key, call in zip(keys[:MOST_CALLS], calls, strict=False):
                self._begin(key, call)
            used = [await self._used(key, call) for key, call in zip(keys, calls, strict=True)]
            return Piped(answer=answer, used=tuple(used))
        finally:
            for task in self._tasks.values():
                task.cancel()

    def _hear(self, event: ModelEvent) -> None:
        """Begin a call that is complete. The next try may ask for the same, so a dead one's calls go on."""
        match event:
            case ToolCallComplete(call=call):
                self._heard.append(call)
                if len(self._tasks) < MOST_CALLS and self._changes_nothing(call):
                    self._begin(keys_of(self._heard)[-1], call)
            case Withdrawn():
                self._heard.clear()

    def _changes_nothing(self, call: ToolCall) -> bool:
        tool = self._ctx.program.tools.get(call.name)
        return is_sound(call) and tool is not None and tool.config.effect is Effect.PURE

    def _begin(self, key: str, call: ToolCall) -> None:
        if key in self._tasks or not is_sound(call) or call.name not in self._ctx.program.tools:
            return
        place = self._places.get(key) or self._branching.allotted(key, self._place)
        self._places[key] = place
        task = asyncio.create_task(self._made(place, call))
        task.add_done_callback(_heard)
        self._tasks[key] = task

    async def _made(self, place: Place, call: ToolCall) -> Any:
        with self._branching.entered(place):
            return await self._ctx.tool(call.name, call.arguments, name="call")

    def _drop(self, keys: Any) -> None:
        """Give calls up that the answer does not have."""
        dropped = {key: self._tasks.pop(key) for key in list(keys)}
        self._branching.give_up([self._places[key] for key in dropped])
        for task in dropped.values():
            task.cancel()

    async def _used(self, key: str, call: ToolCall) -> Used:
        task = self._tasks.get(key)
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
        if call.name not in self._ctx.program.tools:
            known = ", ".join(self._ctx.program.tools) or "none"
            return f"not called: there is no tool {call.name[:100]!r}; there are {known}"
        if is_sound(call):
            return TOO_MANY
        return f"not called: {call.problem.message if call.problem else 'the arguments are no object'}"


def declarations_of(tools: Mapping[str, Any], names: Sequence[str] | None) -> list[ToolDeclaration]:
    """What the model is told of these tools, or of all."""
    if names is None:
        return [tool.declaration for tool in tools.values()]
    if unknown := [name for name in names if name not in tools]:
        raise ValueError(f"the fleet has no tools {', '.join(unknown)}")
    return [tools[name].declaration for name in names]


def _heard(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()
