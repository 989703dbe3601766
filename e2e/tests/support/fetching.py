"""The model fetcher as a process of its own, as an init container runs it, and a server for it to ask."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """How a run of the fetcher ended."""

    status: int
    output: str
    message: str
    folder: Path

    @property
    def reason(self) -> str:
        return self.message.partition(":")[0]


@contextmanager
def served(application: web.Application, port: int) -> Iterator[str]:
    """Run an application on a loop of its own, so that blocking clients can talk to it."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application, access_log=None)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def run_fetcher(
    url: str,
    scratch: Path,
    source: str,
    *arguments: str,
    token: str | None = None,
    to: Path | None = None,
    module: str = "flotilla_runtime.models",
    under: Sequence[str] = (),
) -> Fetched:
    """Run the fetcher against the hub at an address; without `to`, into a folder below `scratch`."""
    folder = to or scratch / "models" / source.rpartition("/")[2]
    log = scratch / "termination-log"
    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_HOME": str(scratch / "home"),
        "PYTHONPATH": str(ROOT / "runtime"),
    }
    environment.pop("HF_TOKEN", None)
    if token is not None:
        environment["HF_TOKEN"] = token
    done = subprocess.run(
        [
            *under,
            *(sys.executable, "-m", module, "--source", source, "--to", str(folder)),
            *("--termination-log", str(log), "--attempts", "1", *arguments),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    message = log.read_text() if log.exists() else ""
    return Fetched(status=done.returncode, output=done.stdout + done.stderr, message=message, folder=folder)
