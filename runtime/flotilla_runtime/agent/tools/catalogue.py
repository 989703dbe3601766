"""The tools of a worker: those of its configuration, and those that servers declare.

What servers declare is asked for when the worker starts and every minute after that. A run keeps the tools
with which it began, so its model sees no tool change in the middle; a tool that has gone meanwhile is a
failure of its call. A server that does not answer keeps the tools that it declared before. One that never
did is a tool that says why it cannot be called.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from flotilla_runtime.agent.tools.declarations import DeclarationError
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import ToolConfig, ToolReport, ToolTrouble

LOOK_EVERY_SECONDS: Final = 60.0
AGAIN_AFTER_SECONDS: Final = 5.0  # what could not be used

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The tools that a server declares. `trouble` is with some of them, which say so themselves."""

    tools: Sequence[Tool]
    trouble: DeclarationError | None = None


class Declaring(Protocol):
    """A tool of the configuration whose declaration a server has. `config.name` names it."""

    @property
    def config(self) -> ToolConfig:
        """The tool as the configuration has it."""

    async def look(self) -> Looked:
        """The tools that it stands for now. Raises DeclarationError."""

    async def close(self) -> None:
        """End what it holds open."""

    def placeholders(self, problem: str) -> Sequence[Tool]:
        """Return the tools that stand for them while they cannot be called; `problem` says why."""


class Catalogue(Mapping[str, Tool]):
    """The tools that a run gets when it begins now, by their names."""

    def __init__(self, fixed: Mapping[str, Tool], declaring: Sequence[Declaring] = ()) -> None:
        self._fixed: Final = dict(fixed)
        self._declaring: Final = tuple(declaring)
        unseen = "its server was not asked yet"
        self._found: dict[str, tuple[Tool, ...]] = {
            one.config.name: tuple(one.placeholders(unseen)) for one in declaring
        }
        self._usable: set[str] = set()
        self._tools: dict[str, Tool] = {}
        self.troubles: dict[str, ToolReport] = {}
        self._combine()

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def is_fixed(self) -> bool:
        """Whether no server declares anything."""
        return not self._declaring

    @property
    def pause_seconds(self) -> float:
        """How long to wait before the next look."""
        return AGAIN_AFTER_SECONDS if self.troubles else LOOK_EVERY_SECONDS

    async def look(self) -> None:
        """Ask all servers at once what they declare."""
        await asyncio.gather(*map(self._look_at, self._declaring))

    async def close(self) -> None:
        """End what the tools hold open."""
        await asyncio.gather(*(one.close() for one in self._declaring))

    async def _look_at(self, one: Declaring) -> None:
        name = one.config.name
        try:
            looked = await one.look()
        except DeclarationError as problem:
            self._is_in_trouble(one, problem)
        except Exception as broken:
            log.exception("declaration_broke", tool=name)
            unreadable = f"what its server declares cannot be read: {type(broken).__name__}"
            self._is_in_trouble(one, DeclarationError(ToolTrouble.UNUSABLE, unreadable))
        else:
            self._found[name] = tuple(looked.tools)
            self._usable.add(name)
            if looked.trouble is not None:
                self._report(name, looked.trouble)
            elif self.troubles.pop(name, None) is not None:
                log.info("tool_can_be_called", tool=name)
        self._combine()

    def _is_in_trouble(self, one: Declaring, problem: DeclarationError) -> None:
        name = one.config.name
        self._report(name, problem)
        if name not in self._usable or problem.trouble is not ToolTrouble.NO_ANSWER:
            self._usable.discard(name)
            self._found[name] = tuple(one.placeholders(problem.problem))

    def _report(self, name: str, problem: DeclarationError) -> None:
        report = ToolReport(tool=name, trouble=problem.trouble, message=problem.problem)
        if self.troubles.get(name) != report:
            log.warning("tool_cannot_be_called", tool=name, trouble=problem.trouble, problem=problem.problem)
        self.troubles[name] = report

    def _combine(self) -> None:
        """Combine the tools; one that the spec names goes before one that a server declares."""
        found = {
            tool.config.name: replace(tool, entry=entry)
            for entry, tools in self._found.items()
            for tool in tools
        }
        self._tools = {**found, **self._fixed}
