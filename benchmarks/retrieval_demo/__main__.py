"""`make bench-retrieval-demo`: index the demo's pages with the real model, ask thirty questions, count the
hits.

It runs the same code as the cluster does: the three steps of a build, and the retriever's HTTP server. The
model is all-MiniLM-L6-v2 on the CPU engine and the store is Milvus Lite, both on this machine. A question is
a hit when one of its right pages is among the first five passages; two passages of one page count as two.

The last line of the output is one JSON object; the exit status is 1 when there are too few hits.
"""

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2

from demo.corpus import MANUAL, Corpus, demo_corpus
from engine.environment import ensure as ensure_engine
from engine.models import EMBEDDER, ensure_models
from engine.serve import running
from flotilla_runtime.contract import (
    BuildConfig,
    BuildStep,
    CollectionConfig,
    Embedder,
    MilvusConnection,
    RetrieverConfig,
    SourceConfig,
)
from flotilla_runtime.indexing.__main__ import run_step
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.retrieval.application import RetrieverApplication
from flotilla_runtime.retrieval.generations import Generations
from flotilla_runtime.retrieval.retriever import Retriever
from local_cluster.processes import free_port
from retrieval_demo.pairs import PAIRS, Pair
from wanted import add_only_print, at_least, conclude

FIRST = 5
DIMENSION = 384
ALIAS = "flotilla_retrieval_demo"
MILVUS_START_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result for one question: the documents of its passages, best first."""

    pair: Pair
    documents: tuple[str, ...]
    seconds: float

    @property
    def rank(self) -> int | None:
        """The position of the first right page, from 1."""
        places = [place for place, page in enumerate(self.documents, 1) if page in self.pair.pages]
        return min(places, default=None)


@contextmanager
def milvus_lite(folder: Path) -> Iterator[str]:
    """A Milvus Lite server while the block runs; yields its URI."""
    port = free_port()
    program = Path(sys.executable).with_name("milvus-lite")
    command = [str(program), "server", "--data-dir", str(folder / "milvus"), "--host", "127.0.0.1"]
    with (folder / "milvus.log").open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + MILVUS_START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "milvus.log").read_text()) from None
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def copied(corpus: Corpus, folder: Path) -> Path:
    """A copy of the corpus, as on the demo's volume."""
    for name in corpus.names:
        copy = folder / "documents" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((corpus.folder / name).read_bytes())
    return folder / "documents"


def build_config(documents: Path, folder: Path, engine_url: str, milvus_uri: str) -> BuildConfig:
    """The build configuration of the index in examples/agentfleet.yaml, with the defaults of the API."""
    return BuildConfig(
        build="bench-0",
        generation="g-bench",
        source=SourceConfig(root=str(documents), uri=str(documents)),
        embedder=Embedder(
            model_ref="minilm",
            url=f"{engine_url}/v1",
            model=EMBEDDER.name,
            identity=EMBEDDER.name,
            dimension=DIMENSION,
        ),
        milvus=MilvusConnection(uri=milvus_uri),
        collection=CollectionConfig(
            name=f"{ALIAS}_g_bench",
            alias=ALIAS,
            prefix=f"{ALIAS}_g_",
            parameters={"M": 16, "efConstruction": 200},
        ),
        workspace=str(folder / "workspace"),
    )


async def build(config: BuildConfig, model: Path) -> int:
    """All steps of the build; the number of chunks."""
    step = partial(run_step, config=config, job="bench", tokenizer_folder=model, environment={})
    plan = await step(BuildStep.PLAN, shard=0)
    print(f"tokenizer: {plan.tokenizer}")
    for number in range(plan.shards):
        await step(BuildStep.SHARDS, shard=number)
    return (await step(BuildStep.PROMOTE, shard=0)).chunks


async def ask(config: BuildConfig) -> list[Found]:
    """Ask every question, one after another, over the retriever's HTTP server."""
    retriever_config = RetrieverConfig(
        index="bench", milvus=config.milvus, alias=ALIAS, deadline_milliseconds=30_000
    )
    store = Store(config.milvus)
    generations = Generations(store, ALIAS)
    await generations.refresh()
    found = []
    async with httpx2.AsyncClient(timeout=30) as outgoing:
        retriever = Retriever(store, generations, outgoing)
        application = RetrieverApplication(retriever_config, retriever, generations).build()
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://retriever") as client:
            for pair in PAIRS:
                started = time.perf_counter()
                answer = await client.post("/v1/retrieve", json={"query": pair.question, "topK": FIRST})
                answer.raise_for_status()
                documents = tuple(passage["document"] for passage in answer.json()["passages"])
                found.append(Found(pair=pair, documents=documents, seconds=time.perf_counter() - started))
    store.close()
    return found


def report(found: list[Found]) -> None:
    """Print a line for each question; those without a hit come last, with the pages that were found."""
    for one in sorted(found, key=lambda one: one.rank or FIRST + 1):
        print(f"{one.rank or '-':>2}  {one.pair.question}")
        if one.rank is None:
            print(
                f"      wanted {' or '.join(one.pair.pages)}, found {', '.join(dict.fromkeys(one.documents))}"
            )


def main() -> int:
    """Run the benchmark; 1 when there are too few hits."""
    parser = argparse.ArgumentParser(prog="retrieval_demo", description=__doc__)
    parser.add_argument(
        "--share", type=float, default=0.8, help="the share of questions that must be hits (default: 0.8)"
    )
    add_only_print(parser)
    options = parser.parse_args()
    if not MANUAL.is_dir():
        print(f"{MANUAL} does not exist; install it: apt-get install postgresql-doc-15", file=sys.stderr)
        return 1
    corpus = demo_corpus()
    engine, model = ensure_engine(), ensure_models() / EMBEDDER.name
    arguments = [str(model), "--served-model-name", EMBEDDER.name, *EMBEDDER.serve_arguments]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with (
            running(engine, arguments, free_port(), folder / "engine.log") as served,
            milvus_lite(folder) as milvus_uri,
        ):
            config = build_config(copied(corpus, folder), folder, served.url, milvus_uri)
            started = time.perf_counter()
            chunks = asyncio.run(build(config, model))
            build_seconds = time.perf_counter() - started
            found = asyncio.run(ask(config))
    report(found)
    times = sorted(one.seconds for one in found)
    figures = {
        "pairs": len(found),
        "in_top_5": sum(one.rank is not None for one in found),
        "first": sum(one.rank == 1 for one in found),
        "pages": len(corpus.names),
        "chunks": chunks,
        "build_seconds": round(build_seconds, 1),
        "median_query_milliseconds": round(1000 * times[len(times) // 2], 1),
    }
    wanted = (at_least(options.share * len(found), "in_top_5"),)
    return conclude(figures, wanted, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
