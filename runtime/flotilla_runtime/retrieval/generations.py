"""Follows the alias in Milvus to the live generation, and reads which model embeds for it.

The alias is read every few seconds, so that a promotion takes effect within seconds. It is also read when a
search fails, because the generation may have been dropped in between. The descriptor of the collection says
which model made its vectors.
"""

import asyncio
from dataclasses import dataclass

import structlog

from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.store import Descriptor, Store

LOG = structlog.get_logger()
REFRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveGeneration:
    """The generation that is served."""

    collection: str
    descriptor: Descriptor
    chunks: int


class Generations:
    """Keeps the live generation up to date; `problem` says why there is none, or why it may be outdated."""

    def __init__(self, store: Store, alias: str) -> None:
        self._store = store
        self._alias = alias
        self.live: LiveGeneration | None = None
        self.problem: str | None = "the retriever has not read the live generation from Milvus yet"

    async def refresh(self) -> None:
        """Resolve the alias; when that fails for any reason, the last generation stays."""
        try:
            live = await asyncio.to_thread(self._resolve)
        except BuildError as error:
            self.problem = error.message
            LOG.warning("alias_unresolved", problem=error.message)
            return
        except Exception as error:  # any error: the alias is read again later
            self.problem = f"the live generation could not be read from Milvus: {what_failed(error)}"
            LOG.exception("alias_unresolved")
            return
        if live is not None and (
            self.live is None or live.descriptor.generation != self.live.descriptor.generation
        ):
            LOG.info("generation_live", generation=live.descriptor.generation, chunks=live.chunks)
        self.live = live
        self.problem = None if live else "no build of this index has been promoted yet"

    def _resolve(self) -> LiveGeneration | None:
        collection = self._store.resolve(self._alias)
        descriptor = self._store.describe(collection) if collection else None
        if collection is None or descriptor is None:
            return None
        return LiveGeneration(
            collection=collection, descriptor=descriptor, chunks=self._store.count(collection)
        )

    async def keep_fresh(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)
