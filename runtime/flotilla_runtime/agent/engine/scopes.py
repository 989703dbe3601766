"""The ids of calls: the names along the path of scopes in which a call is made, not the order of completion.

A name that comes again in one scope is numbered (`tool/weather`, `tool/weather#2`). Branches that run at the
same time would be numbered by who comes first, and swap after a crash. So each branch makes its calls in a
scope of its own, and a call made in the scope of another branch is refused.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from flotilla_runtime.agent.failures import ScopeError

LONGEST_NAME: Final = 200
LONGEST_PATH: Final = 1000
NAME: Final = re.compile(r"[^\s#/\x00-\x1f][^#\x00-\x1f]*")


@dataclass(slots=True, kw_only=True)
class Scope:
    """A place on the path, with how often each name came. `owner` is the asyncio task that may call in it."""

    path: str
    owner: asyncio.Task[Any] | None
    times: dict[str, int] = field(default_factory=dict)

    def numbered(self, name: str) -> str:
        """The path of this name, numbered where it came before."""
        if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise ScopeError(
                f"{name[:LONGEST_NAME]!r} cannot be the name of a call or a scope: names have 1 to "
                f"{LONGEST_NAME} characters, without # and control characters, and begin with no / or space"
            )
        times = self.times[name] = self.times.get(name, 0) + 1
        return f"{self.path}{name}" if times == 1 else f"{self.path}{name}#{times}"


_CURRENT: ContextVar[Scope] = ContextVar("flotilla_scope")


class Scopes:
    """The scopes of one run."""

    def __init__(self) -> None:
        self._root = Scope(path="", owner=None)
        self._given: set[str] = set()
        self._aside: dict[str, Scope] = {}

    def enter_root(self) -> None:
        """Begin at the root, in the asyncio task that runs the agent."""
        self._root.owner = asyncio.current_task()
        _CURRENT.set(self._root)

    def call_id(self, name: str) -> str:
        """The id of the call that is made now under this name."""
        return self._once(self._own(name).numbered(name))

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """A scope for the calls that are made in it."""
        with self.entered(self._below(_CURRENT.get(self._root), name)):
            yield

    def allotted(self, name: str, within: Scope | None = None) -> Scope:
        """A scope that an asyncio task enters later. It has its path from now on, whenever that is."""
        return self._below(within or self._own(name), name)

    @contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """A scope of the runtime's own calls, whose path no name of an agent can have."""
        with self.entered(self._aside.setdefault(name, Scope(path=f"#{name}/", owner=None))):
            yield

    @contextmanager
    def entered(self, scope: Scope) -> Iterator[None]:
        """Let this asyncio task make its calls in a scope."""
        scope.owner = asyncio.current_task()
        token = _CURRENT.set(scope)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def _own(self, name: str) -> Scope:
        """The scope that this asyncio task may call in."""
        scope = _CURRENT.get(self._root)
        if scope.owner is not asyncio.current_task():
            raise ScopeError(
                f"the call {name} is made in a branch that has no scope of its own, so it could get another "
                "id when the task is resumed; write `with ctx.scope(NAME):` around the calls of each branch"
            )
        return scope

    def _below(self, scope: Scope, name: str) -> Scope:
        return Scope(path=self._once(scope.numbered(name) + "/"), owner=None)

    def _once(self, path: str) -> str:
        if len(path) > LONGEST_PATH:
            raise ScopeError(f"the path {path[:LONGEST_NAME]}… has more than {LONGEST_PATH} characters")
        if path in self._given:
            raise ScopeError(f"two calls or scopes have the path {path}; give one of them another name")
        self._given.add(path)
        return path
