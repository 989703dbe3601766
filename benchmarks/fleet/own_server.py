"""A server of ours as a process of its own, which a run starts and kills."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fleet.site import answers
from local_cluster.processes import Daemon, free_port, wait_until

STARTED_SECONDS: Final = 60.0


@contextmanager
def started(folder: Path, name: str, module: str, asked: str, *arguments: Any) -> Iterator[str]:
    """The URL of `python -m MODULE --port N ARGUMENTS`, once its path `asked` answers."""
    port = free_port()
    command = [sys.executable, "-m", module, "--port", str(port), *map(str, arguments)]
    daemon = Daemon(name, command, directory=folder, dies_with_parent=True)
    daemon.start()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(
            lambda: answers(f"{url}/{asked}"),
            part=name,
            timeout_seconds=STARTED_SECONDS,
            daemons=[daemon],
        )
        yield url
    finally:
        daemon.kill()


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options of such a server."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    return parser


def serve(application: web.Application, port: int, *, hears_closing: bool) -> None:
    """Serve until SIGTERM. A handler that `hears_closing` is cancelled when its client goes away."""
    web.run_app(
        application,
        host="127.0.0.1",
        port=port,
        access_log=None,
        print=None,
        handler_cancellation=hears_closing,
    )
