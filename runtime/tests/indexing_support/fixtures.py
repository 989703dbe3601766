"""The fixtures of tests that build an index."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flotilla_runtime.indexing.parsing import ParserProcess
from indexing_support.builds import Index
from indexing_support.embedder import EmbedderState, serving
from indexing_support.milvus import MilvusServer


@pytest.fixture
def embedder() -> Iterator[EmbedderState]:
    """A running word embedder."""
    with serving() as state:
        yield state


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    """A running Milvus Lite; it takes seconds to start, so tests share it and have an alias each."""
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def parser() -> Iterator[ParserProcess]:
    """The process that parses; its lock belongs to one event loop, and every test has its own."""
    process = ParserProcess()
    yield process
    process.close()


@pytest.fixture
def index(tmp_path: Path, milvus: MilvusServer, embedder: EmbedderState, parser: ParserProcess) -> Index:
    """An index over an empty folder."""
    (tmp_path / "documents").mkdir()
    return Index(
        folder=tmp_path,
        milvus_uri=milvus.uri,
        embedder_url=embedder.url,
        parser=parser,
        alias=f"flotilla_{uuid.uuid4().hex}",
    )
