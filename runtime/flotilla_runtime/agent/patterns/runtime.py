"""The interface under the patterns: the calls of an agent, and the branches of its run."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from flotilla_runtime.agent.answers import Answer, Found
from flotilla_runtime.agent.models import NamedTool, ToolChoice, ToolDeclaration
from flotilla_runtime.agent.models.values import OnEvent
from flotilla_runtime.agent.patterns.values import PatternEnd
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.contract import DEFAULT_ROLE

Value = TypeVar("Value")


class Place(Protocol):
    """A scope of calls."""

    @property
    def path(self) -> str:
        """The names along the way to it, each with a slash behind it."""


class Branching(Protocol):
    """The branches of a run."""

    def now_ms(self) -> int:
        """The time, in milliseconds since the epoch."""

    def allotted(self, name: str, within: Any = None) -> Any:
        """A scope that is entered later, here or below another one."""

    def entered(self, scope: Any) -> AbstractContextManager[None]:
        """Let this asyncio task make its calls in a scope."""

    def began_at(self, scope: Any) -> int | None:
        """When an earlier run made the first call in this scope; None if none did."""

    async def chosen(self, scope: Any, keys: Sequence[str]) -> Any:
        """Return the choice that an earlier run made in this scope, or None."""

    def choose(self, scope: Any, keys: Sequence[str], value: Any, losers: Collection[Any]) -> Any:
        """Begin to write a choice, and that the losers' calls are given up. They may be cancelled at once."""

    async def confirmed(self, choice: Any) -> None:
        """Return when a choice stands in the journal."""

    def abandon(self, scope: Any, keys: Sequence[str], branches: Collection[Any]) -> None:
        """Note that the agent no longer waits for a pattern, so that it is given up in every replay."""

    def count(self, scope: Any, end: PatternEnd) -> None:
        """Note how a pattern ended, for metrics, unless it had ended in an earlier run."""

    def give_up(self, branches: Collection[Any]) -> None:
        """Note that the calls of these branches are given up."""

    async def woken(self, wake: asyncio.Event, scope: Any, until: int | None) -> bool:
        """Return when the event is set, or True at this moment. Meanwhile the task may be suspended."""

    async def aside(self, work: Callable[[], Value]) -> Value:
        """Run a function that would block the event loop in a thread, and return its value."""


class Calling(Protocol):
    """The calls of an agent that patterns make themselves."""

    program: Program
    branches: Branching

    def llm(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        role: str = DEFAULT_ROLE,
        tools: Sequence[ToolDeclaration] = (),
        tool_choice: ToolChoice | NamedTool | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0,
        name: str | None = None,
        continues: bool = False,
        hashed: Any = None,
        on_event: OnEvent | None = None,
    ) -> Awaitable[Answer]:
        """Ask the model with this role."""

    def tool(
        self, tool: str, arguments: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> Awaitable[Any]:
        """Call a tool of the fleet."""

    def retrieve(
        self, index: str, query: str, *, top_k: int | None = None, name: str | None = None, steps: int = 0
    ) -> Awaitable[Found]:
        """Search an index of the fleet."""
