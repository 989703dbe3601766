"""Builds that cannot go on: each says why, and what was live stays live.

The store is one of dictionaries and the embedder one of words; whole builds on a real Milvus: test_builds.
"""

import argparse
import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from flotilla_runtime.contract import (
    EXIT_PERMANENT,
    EXIT_RETRY,
    BuildConfig,
    BuildReason,
    BuildStep,
    ChunkingConfig,
    CollectionConfig,
    Embedder,
    MilvusConnection,
    SourceConfig,
)
from flotilla_runtime.indexing.__main__ import attempt, secrets_of
from flotilla_runtime.indexing.embedding import EmbeddingClient, Patience
from flotilla_runtime.indexing.errors import BuildError, DocumentReason
from flotilla_runtime.indexing.parsing import ParserProcess, parse
from flotilla_runtime.indexing.plan import run_plan
from flotilla_runtime.indexing.promote import run_promote
from flotilla_runtime.indexing.records import ParsedDocument
from flotilla_runtime.indexing.shard import run_shard
from flotilla_runtime.indexing.steps import StepContext
from flotilla_runtime.indexing.workspace import Workspace
from indexing_support.embedder import DIMENSION, MODEL, REFUSED_WORD, EmbedderState, serving
from indexing_support.memory_store import Collection, MemoryStore
from leaks.planted import MARK, planted

ALIAS, FIRST, SECOND = "flotilla_a", "flotilla_a_g_one", "flotilla_a_g_two"


@dataclass(slots=True)
class Builds:
    """A source of two documents, of which a generation is live, and the build that is to replace it."""

    folder: Path
    embedder: EmbedderState
    store: MemoryStore
    dimension: int = DIMENSION
    url: str = ""

    @property
    def documents(self) -> Path:
        return self.folder / "documents"

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder / "workspace", "b2")

    def config(self) -> BuildConfig:
        return BuildConfig(
            build="b2",
            generation="g-two",
            source=SourceConfig(root=str(self.documents), uri="pvc://docs", max_document_mib=1),
            chunking=ChunkingConfig(chunk_tokens=60, overlap_tokens=8),
            embedder=Embedder(
                model_ref="words",
                url=self.url or self.embedder.url,
                model=MODEL,
                identity="words",
                dimension=self.dimension,
            ),
            milvus=MilvusConnection(uri="http://127.0.0.1:1"),
            collection=CollectionConfig(name=SECOND, alias=ALIAS, prefix=f"{ALIAS}_g_"),
            workspace=str(self.folder / "workspace"),
            max_failed_percent=0.0,
            shard_documents=1,
            keep_generations=2,
        )

    async def run(self, *steps: BuildStep) -> None:
        config = self.config()
        async with httpx2.AsyncClient(timeout=10) as http:
            context = StepContext(
                config=config,
                workspace=self.workspace,
                store=self.store,
                embedder=EmbeddingClient(config.embedder, http, patience=Patience(patience_seconds=0)),
                tokenizer_folder=self.folder / "model",
                job="j",
            )
            for step in steps:
                await self._step(step, context)

    async def _step(self, step: BuildStep, context: StepContext) -> None:
        if step is BuildStep.PLAN:
            await run_plan(context)
        elif step is BuildStep.PROMOTE:
            await asyncio.to_thread(run_promote, context, 1000.0)
        else:
            for number in (0, 1):
                await run_shard(context, number, Here())


class Here(ParserProcess):
    """Parses in this process; that a child may crash is in test_formats."""

    async def parse(self, content: bytes, path: str) -> ParsedDocument:
        return parse(content, path)


@pytest.fixture(scope="module")
def word_embedder() -> Iterator[EmbedderState]:
    with serving() as state:
        yield state


@pytest.fixture
def builds(tmp_path: Path, word_embedder: EmbedderState) -> Builds:
    word_embedder.failures, word_embedder.longest_tokens = [], 256
    made = Builds(folder=tmp_path, embedder=word_embedder, store=MemoryStore())
    made.documents.mkdir()
    (made.documents / "tides.md").write_text("# Tides\n\nThe moon moves the sea twice a day.\n")
    (made.documents / "sails.txt").write_text("Wind fills them.")
    made.store.held[FIRST] = Collection(about=None)
    made.store.point(ALIAS, FIRST)
    return made


def no_folder(builds: Builds) -> None:
    builds.documents.rename(builds.folder / "elsewhere")


def bad_document(builds: Builds) -> None:
    (builds.documents / "tides.md").write_text("")


def no_documents(builds: Builds) -> None:
    for file in builds.documents.iterdir():
        file.unlink()


def another_dimension(builds: Builds) -> None:
    builds.dimension = 384


def short_inputs(builds: Builds) -> None:
    builds.embedder.longest_tokens = 50


def refused_key(builds: Builds) -> None:
    builds.embedder.failures += [401]


def no_such_model(builds: Builds) -> None:
    builds.embedder.failures += [404]


def busy_model(builds: Builds) -> None:
    builds.embedder.failures += [503] * 9


def no_model(builds: Builds) -> None:
    builds.url = "http://127.0.0.1:1/v1"


def one_more_chunk(builds: Builds) -> None:
    builds.store.held[SECOND].rows["stray"] = ("nobody's", "hash", 1, 0)
    builds.store.loses_deletes = True


def counted_wrong(builds: Builds) -> None:
    count = builds.store.count
    builds.store.count = lambda *arguments: count(*arguments) + 1  # type: ignore[method-assign]


def lost_workspace(builds: Builds) -> None:
    builds.workspace.clear()


def lost_marker(builds: Builds) -> None:
    (builds.folder / "workspace" / "builds" / "b2" / "done" / "00000.json").unlink()


def lost_letter(builds: Builds) -> None:
    marker = builds.folder / "workspace" / "builds" / "b2" / "done" / "00000.json"
    marker.write_text(marker.read_text().replace('"indexed":1', '"indexed":0'))


def no_descriptor(builds: Builds) -> None:
    builds.store.held[SECOND].about = None


PLAN, SHARDS, PROMOTE = BuildStep


async def test_a_build_that_goes_on_to_its_end_is_live(builds: Builds) -> None:
    await builds.run(*BuildStep)
    assert builds.store.resolve(ALIAS) == SECOND
    assert builds.store.count(SECOND) == 2


@pytest.mark.parametrize(
    ("spoil", "before", "reason"),
    [
        pytest.param(no_folder, PLAN, BuildReason.PATH_MISSING, id="the folder is gone"),
        pytest.param(no_documents, PLAN, BuildReason.SOURCE_EMPTY, id="the folder is empty"),
        pytest.param(another_dimension, PLAN, BuildReason.DIMENSION_MISMATCH, id="another dimension"),
        pytest.param(short_inputs, PLAN, BuildReason.CHUNKS_TOO_LONG, id="chunks are too long for the model"),
        pytest.param(
            refused_key, PLAN, BuildReason.EMBEDDER_UNAUTHORIZED, id="the embedder wants another key"
        ),
        pytest.param(no_such_model, PLAN, BuildReason.MODEL_UNKNOWN, id="another model is served"),
        pytest.param(busy_model, PLAN, BuildReason.EMBEDDER_UNREACHABLE, id="the embedder stays busy"),
        pytest.param(no_model, PLAN, BuildReason.EMBEDDER_UNREACHABLE, id="nobody answers for the embedder"),
        pytest.param(
            bad_document, PLAN, BuildReason.TOO_MANY_DEAD_LETTERS, id="a document cannot be indexed"
        ),
        pytest.param(lost_workspace, SHARDS, BuildReason.WORKSPACE_INCOMPLETE, id="the plan is gone"),
        pytest.param(counted_wrong, SHARDS, BuildReason.COUNT_MISMATCH, id="a shard's chunks are too many"),
        pytest.param(lost_workspace, PROMOTE, BuildReason.WORKSPACE_INCOMPLETE, id="the workspace is gone"),
        pytest.param(lost_marker, PROMOTE, BuildReason.WORKSPACE_INCOMPLETE, id="a shard is not done"),
        pytest.param(no_descriptor, PROMOTE, BuildReason.WORKSPACE_INCOMPLETE, id="nothing describes it"),
        pytest.param(lost_letter, PROMOTE, BuildReason.COUNT_MISMATCH, id="a document is unaccounted for"),
        pytest.param(one_more_chunk, PROMOTE, BuildReason.COUNT_MISMATCH, id="a document does not go"),
        pytest.param(counted_wrong, PROMOTE, BuildReason.COUNT_MISMATCH, id="there is a chunk too many"),
    ],
)
async def test_a_build_that_cannot_go_on_says_why_and_leaves_what_is_live(
    builds: Builds, spoil: Callable[[Builds], None], before: BuildStep, reason: BuildReason
) -> None:
    done = list(BuildStep).index(before)
    await builds.run(*list(BuildStep)[:done])
    spoil(builds)
    with pytest.raises(BuildError) as refused:
        await builds.run(*list(BuildStep)[done:])
    assert refused.value.reason is reason
    assert builds.store.resolve(ALIAS) == FIRST


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param("", DocumentReason.EMPTY, id="an empty document"),
        pytest.param(REFUSED_WORD, DocumentReason.EMBEDDER_REFUSED, id="one that the model refuses"),
        pytest.param(" \n", DocumentReason.NO_TEXT, id="one without text"),
    ],
)
async def test_a_document_that_cannot_be_indexed_is_a_dead_letter(
    builds: Builds, content: str, reason: DocumentReason
) -> None:
    (builds.documents / "tides.md").write_text(content)
    await builds.run(PLAN, SHARDS)
    assert [(one.document, one.reason) for one in builds.workspace.dead_letters()] == [("tides.md", reason)]


@pytest.mark.parametrize(
    ("config", "reason", "status"),
    [
        pytest.param("{", BuildReason.UNEXPECTED, EXIT_RETRY, id="something nobody thought of"),
        pytest.param(None, BuildReason.PATH_MISSING, EXIT_PERMANENT, id="what waits for a person"),
    ],
)
def test_a_step_that_fails_reports_its_reason_and_whether_another_try_helps(
    builds: Builds, config: str | None, reason: BuildReason, status: int
) -> None:
    no_folder(builds)
    file = builds.folder / "config.json"
    file.write_text(builds.config().model_dump_json() if config is None else config)
    folder = builds.folder / "model"
    options = argparse.Namespace(config=file, shard=0, job="j", index_uid="", tokenizer=folder)
    report, ended = attempt(BuildStep.PLAN, options)
    assert (report.reason, ended) == (reason, status)


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        pytest.param("FLOTILLA_MILVUS_TOKEN", BuildReason.SECRET_UNUSABLE, id="the token of Milvus"),
        pytest.param("FLOTILLA_EMBEDDER_KEY", BuildReason.SECRET_UNUSABLE, id="the key of the embedder"),
        pytest.param("HF_TOKEN", BuildReason.SECRET_UNUSABLE, id="the token of the hub"),
    ],
)
def test_a_secret_that_no_header_can_have_ends_the_step(variable: str, reason: BuildReason) -> None:
    for value in (f"{planted('h')}\nX-Evil: 1", f"{planted('h')}\x01", f"{planted('h')} é", " "):
        with pytest.raises(BuildError) as refused:
            secrets_of({variable: value})
        assert (refused.value.reason, refused.value.permanent) == (reason, True)
        assert variable in refused.value.message
        assert MARK not in refused.value.message
