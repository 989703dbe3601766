"""The ids of spawned tasks, and the watch over those that a run waits for."""

import asyncio
import hashlib
from typing import Final

from flotilla_runtime.agent.protocols import ChildEnd, TaskJournal

LOOK_SECONDS: Final = 1.0  # between two looks, while other calls of the run keep it from being suspended
ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, as in all task ids
TIME_LETTERS: Final = 10
RANDOM_LETTERS: Final = 16


def child_id(parent: str, call: str) -> str:
    """The id of a spawned task: made from its parent's and its call's, so spawning it twice is one task.

    It has the form of all task ids, and sorts beside its parent.
    """
    number = int.from_bytes(hashlib.sha256(f"{parent}/{call}".encode()).digest())
    letters = (ALPHABET[(number >> 5 * place) & 31] for place in range(RANDOM_LETTERS))
    return parent[:TIME_LETTERS] + "".join(letters)


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
