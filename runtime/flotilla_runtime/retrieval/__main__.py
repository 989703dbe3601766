"""`python -m flotilla_runtime.retrieval`: serve one index until SIGTERM, then let open questions end."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import httpx
import uvicorn

from flotilla_runtime.contract import CONFIG_PATH, ENV_EMBEDDER_KEY, ENV_MILVUS_TOKEN, RetrieverConfig
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.logs import configure_logs
from flotilla_runtime.retrieval.application import RetrieverApplication
from flotilla_runtime.retrieval.generations import Generations
from flotilla_runtime.retrieval.retriever import Retriever


async def serve(config: RetrieverConfig, host: str | None) -> None:
    """Serve until the process is told to stop."""
    store = Store(config.milvus, os.environ.get(ENV_MILVUS_TOKEN))
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
    async with httpx.AsyncClient(limits=limits, timeout=config.deadline_milliseconds / 1000) as http:
        generations = Generations(store, config.alias)
        retriever = Retriever(store, generations, http, key=os.environ.get(ENV_EMBEDDER_KEY))
        application = RetrieverApplication(config, retriever, generations).build()
        server = uvicorn.Server(
            # "::" takes both families wherever the kernel has IPv6; None lets asyncio bind each family alone.
            uvicorn.Config(
                application, host=host or "", port=config.port, log_level="warning", access_log=False
            )
        )
        await server.serve()
    store.close()


def main() -> int:
    """Serve the index the configuration names."""
    parser = argparse.ArgumentParser(prog="flotilla_runtime.retrieval", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH))
    parser.add_argument("--host", help="the address to listen on; all of both families by default")
    options = parser.parse_args()
    configure_logs()
    # The server ends its questions and then raises the signal again; that shall not look like a crash.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = RetrieverConfig.model_validate_json(options.config.read_bytes())
    asyncio.run(serve(config, options.host))
    return 0


if __name__ == "__main__":
    sys.exit(main())
