"""One index on a real Milvus Lite and the word embedder, built step by step as its Jobs would."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from flotilla_runtime.contract import (
    BuildConfig,
    ChunkingConfig,
    CollectionConfig,
    Embedder,
    MilvusConnection,
    SourceConfig,
    StepReport,
)
from flotilla_runtime.indexing.embedding import EmbeddingClient, Patience
from flotilla_runtime.indexing.parsing import ParserProcess
from flotilla_runtime.indexing.plan import run_plan
from flotilla_runtime.indexing.promote import run_promote
from flotilla_runtime.indexing.shard import run_shard
from flotilla_runtime.indexing.steps import StepContext, no_crash
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.indexing.workspace import Workspace
from indexing_support.embedder import DIMENSION, MODEL


class Killed(BaseException):
    """The process ends here; nothing that catches exceptions catches this."""


class Deaths:
    """Kills one run after the other, each at the first point where none was killed before in the same state.

    `life` gives the crash points of the next run, which begins with so many rows in the collection. So the
    runs that follow each other die at every point there is, each after what the runs before it left undone.
    """

    def __init__(self) -> None:
        self.points: list[str] = []
        self._seen: set[tuple[int, tuple[str, ...]]] = set()

    def life(self, rows: int) -> Callable[[str], None]:
        passed: list[str] = []

        def crash(point: str) -> None:
            passed.append(point)
            here = (rows, tuple(passed))
            if here not in self._seen:
                self._seen.add(here)
                self.points.append(point)
                raise Killed(point)

        return crash


INDEX_UID = "the-index"


@dataclass(slots=True)
class Index:
    """A folder of documents, and how it is indexed."""

    folder: Path
    milvus_uri: str
    embedder_url: str
    parser: ParserProcess
    alias: str
    generation: str = "g-one"
    dimension: int = DIMENSION
    settings: dict[str, Any] = field(default_factory=dict)
    now: float = 1_000.0
    job: str = "job-1"

    @property
    def prefix(self) -> str:
        return f"{self.alias}_g_"

    @property
    def collection(self) -> str:
        """The name of the current generation's collection."""
        return self.prefix + self.generation.replace("-", "_")

    @property
    def documents(self) -> Path:
        return self.folder / "documents"

    def write(self, path: str, content: str | bytes) -> None:
        file = self.documents / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def config(self, build: str) -> BuildConfig:
        settings = {"max_failed_percent": 0.0, "shard_documents": 2, **self.settings}
        return BuildConfig(
            build=build,
            generation=self.generation,
            source=SourceConfig(root=str(self.documents), uri="pvc://docs", max_document_mib=1),
            chunking=ChunkingConfig(chunk_tokens=60, overlap_tokens=8),
            embedder=Embedder(
                model_ref="words",
                url=self.embedder_url,
                model=MODEL,
                identity="words",
                dimension=self.dimension,
                batch_size=4,
            ),
            milvus=MilvusConnection(uri=self.milvus_uri),
            collection=CollectionConfig(name=self.collection, alias=self.alias, prefix=self.prefix),
            workspace=str(self.folder / "workspace"),
            **settings,
        )

    async def step(
        self,
        build: str,
        run: Callable[[StepContext], Any],
        crash: Callable[[str], None] = no_crash,
        patience_seconds: float = 30.0,
    ) -> Any:
        config = self.config(build)
        async with httpx2.AsyncClient(timeout=10, verify=False) as http:  # loading certificates takes longest
            store = Store(config.milvus)
            context = StepContext(
                config=config,
                workspace=Workspace(Path(config.workspace), build),
                store=store,
                embedder=EmbeddingClient(
                    config.embedder, http, patience=Patience(patience_seconds=patience_seconds)
                ),
                tokenizer_folder=self.folder / "model",
                crash_point=crash,
                job=self.job,
                index_uid=INDEX_UID,
            )
            try:
                return await run(context)
            finally:
                store.close()

    async def plan(self, build: str, crash: Callable[[str], None] = no_crash) -> StepReport:
        report: StepReport = await self.step(build, run_plan, crash)
        return report

    async def shard(self, build: str, number: int, crash: Callable[[str], None] = no_crash) -> StepReport:
        async def run(context: StepContext) -> StepReport:
            return await run_shard(context, number, self.parser)

        report: StepReport = await self.step(build, run, crash)
        return report

    async def promote(self, build: str, crash: Callable[[str], None] = no_crash) -> StepReport:
        async def run(context: StepContext) -> StepReport:
            return await asyncio.to_thread(run_promote, context, self.now)

        report: StepReport = await self.step(build, run, crash)
        return report

    async def build(self, build: str, crash: Callable[[str], None] = no_crash) -> StepReport:
        """All three steps."""
        plan = await self.plan(build, crash)
        for number in range(plan.shards):
            await self.shard(build, number, crash)
        return await self.promote(build, crash)

    def rows(self) -> dict[str, str]:
        """The text of every chunk by id, as Milvus has it."""
        store = Store(MilvusConnection(uri=self.milvus_uri))
        found = {
            row["id"]: f"{row['document']}: {row['text']}"
            for row in store._rows(
                store.resolve(self.alias) or "", "ordinal >= 0", ["id", "document", "text"]
            )
        }
        store.close()
        return found

    async def build_dying(self, build: str) -> list[str]:
        """The build, killed and run again until a run gets through; the points at which it was killed."""
        deaths, ended = Deaths(), False
        while not ended:
            try:
                await self.build(build, deaths.life(self.count()))
                ended = True
            except* Killed:
                pass
        return deaths.points

    def count(self) -> int:
        """The number of chunks of the current generation; 0 while it has no collection."""
        store = Store(MilvusConnection(uri=self.milvus_uri))
        try:
            return store.count(self.collection) if self.collection in store.collections(self.prefix) else 0
        finally:
            store.close()

    def live(self) -> str | None:
        """The collection that the alias leads to."""
        store = Store(MilvusConnection(uri=self.milvus_uri))
        try:
            return store.resolve(self.alias)
        finally:
            store.close()

    def collections(self) -> list[str]:
        store = Store(MilvusConnection(uri=self.milvus_uri))
        try:
            return store.collections(self.prefix)
        finally:
            store.close()
