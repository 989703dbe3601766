"""Keeps a worker's catalogue of tools current, and reports the tools that cannot be called."""

import asyncio
import random
from collections.abc import Iterable
from typing import Final, Protocol

import structlog

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.tools.catalogue import Catalogue
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import ToolReport

FIRST_LOOK_SECONDS: Final = 10.0
SPREAD: Final = 0.2  # workers that started together do not ask together

log = structlog.get_logger(__name__)


class Reports(Protocol):
    """Where reports go."""

    async def tell(self, found: Iterable[ToolReport], over: Iterable[ToolReport] = ()) -> None:
        """Write what was found just now, and take back what is over."""


class ToolWatch:
    """Looks at what servers declare, again and again."""

    def __init__(self, catalogue: Catalogue, reports: Reports, *, draw: Draw = random.uniform) -> None:
        self._catalogue = catalogue
        self._reports = reports
        self._draw = draw
        self._told: dict[str, ToolReport] = {}
        self._has_looked = asyncio.Event()

    async def run(self) -> None:
        """Look until cancelled."""
        while not self._catalogue.is_fixed:
            await self._catalogue.look()
            self._has_looked.set()
            await self._tell()
            pause = self._catalogue.pause_seconds
            await asyncio.sleep(self._draw(pause * (1 - SPREAD), pause * (1 + SPREAD)))

    async def looked(self, stopping: asyncio.Event, seconds: float = FIRST_LOOK_SECONDS) -> None:
        """Wait for the first look, but not longer than this, and not in a worker that is to stop."""
        if self._catalogue.is_fixed:
            return
        waiting = [asyncio.create_task(event.wait()) for event in (self._has_looked, stopping)]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    async def _tell(self) -> None:
        found = dict(self._catalogue.troubles)
        over = [report for tool, report in self._told.items() if found.get(tool) != report]
        if not (found or over):
            return
        try:
            await self._reports.tell(found.values(), over)
            self._told = found
        except StoreUnavailableError as problem:
            log.warning("tools_not_reported", problem=problem.problem)
