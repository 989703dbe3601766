"""The watch over the spawned tasks that a run waits for."""

import asyncio
from typing import Final

from flotilla_runtime.agent.protocols import ChildEnd, TaskJournal

LOOK_SECONDS: Final = 1.0  # between two looks, while other calls of the run keep it from being suspended


class ChildWatch:
    """Asks for the ends of spawned tasks, all in one request."""

    def __init__(self, journal: TaskJournal) -> None:
        self._journal = journal
        self._waiting: dict[str, asyncio.Future[ChildEnd]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def end_of(self, child: str) -> ChildEnd:
        """Return when this task has ended."""
        future = self._waiting.setdefault(child, asyncio.get_running_loop().create_future())
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(future)

    def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)
                for child, end in (await self._journal.children(tuple(self._waiting))).items():
                    if (future := self._waiting.pop(child, None)) is not None:
                        future.set_result(end)
                await asyncio.sleep(LOOK_SECONDS)
        except Exception as problem:
            for future in self._waiting.values():
                future.set_exception(problem)
            self._waiting.clear()
        finally:
            self._looking = None
