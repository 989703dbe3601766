"""`python -m flotilla_runtime.retrieval`: serves one index until SIGTERM, then finishes open queries."""

import argparse
import asyncio
import math
import os
import signal
import sys
from functools import partial
from pathlib import Path

import httpx2

from flotilla_runtime.contract import (
    CONFIG_PATH,
    ENV_EMBEDDER_KEY,
    ENV_MILVUS_TOKEN,
    RetrieverConfig,
    SecretError,
    secret_of,
)
from flotilla_runtime.direct import DIRECT
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.logs import configure_logs
from flotilla_runtime.retrieval.addresses import address_of
from flotilla_runtime.retrieval.application import RetrieverApplication
from flotilla_runtime.retrieval.generations import Generations
from flotilla_runtime.retrieval.retriever import Retriever
from flotilla_runtime.serving import serving


async def serve(config: RetrieverConfig) -> None:
    """Serve until SIGTERM or SIGINT; queries that are open then still have their whole deadline."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    deadline_seconds = config.deadline_milliseconds / 1000
    milvus_token = secret_of(os.environ, ENV_MILVUS_TOKEN, "spec.milvus.tokenSecretRef")
    key = secret_of(os.environ, ENV_EMBEDDER_KEY, "router.authSecretRef of spec.embedding.modelRef")
    store = Store(config.milvus, milvus_token)
    limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20)
    async with httpx2.AsyncClient(limits=limits, timeout=deadline_seconds, mounts=DIRECT) as http:
        generations = Generations(store, config.alias)
        retriever = Retriever(
            store,
            generations,
            http,
            key=key,
            address_of=partial(address_of, config=config),
        )
        application = RetrieverApplication(config, retriever, generations).build()
        async with serving(application, config.port, grace_seconds=math.ceil(deadline_seconds) + 1):
            await stopping.wait()
    store.close()


def main() -> None:
    """Serve the index that the configuration names."""
    parser = argparse.ArgumentParser(prog="flotilla_runtime.retrieval", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH))
    options = parser.parse_args()
    configure_logs()
    try:
        asyncio.run(serve(RetrieverConfig.model_validate_json(options.config.read_bytes())))
    except SecretError as problem:
        sys.exit(str(problem))  # the last line of a pod becomes its message, which the operator shows


if __name__ == "__main__":
    main()
