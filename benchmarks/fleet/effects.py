"""A server whose requests have effects, which it counts: `python -m fleet.effects --port N --log FILE`.

`POST /TOOL` waits, lets the effect happen, waits again and answers, so a client may be killed before and
after the effect. Each effect is written to the log before it is answered. `book` knows the keys that it has
seen, as an idempotent tool does. Every other tool has an effect at each request. `POST /happened` says
whether there was an effect with a key, `GET /happened?task=N&step=NAME` whether there was one of a step.

A client that goes away changes nothing: what has arrived happens, and counts as happened from then on.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fleet.arrivals import Arrival, arrivals_of
from fleet.calls import EFFECTS, Kind
from fleet.log import Log
from fleet.site import answers
from local_cluster.processes import Daemon, free_port, wait_until

KEY: Final = "Idempotency-Key"
LOG: Final = "effects.jsonl"
STARTED_SECONDS: Final = 60.0


class Effects:
    """The handlers. What happened before a restart is read from the log."""

    def __init__(self, path: Path) -> None:
        known = arrivals_of(path)
        self._log = Log(path)
        self._booked = {one.key for one in known if one.kind == Kind.BOOK}
        self._arrived = {one.key for one in known}
        self._steps = {(one.task, one.step) for one in known}

    def application(self) -> web.Application:
        """The paths."""
        application = web.Application()
        for tool in EFFECTS:
            application.router.add_post(f"/{tool}", self._effect)
        application.router.add_post("/happened", self._key_asked)
        application.router.add_get("/happened", self._step_asked)
        return application

    async def _effect(self, request: web.Request) -> web.Response:
        asked: dict[str, Any] = await request.json()
        key, tool = request.headers.get(KEY, ""), request.path.removeprefix("/")
        self._arrived.add(key)
        self._steps.add((asked["task"], asked["step"]))
        await asyncio.sleep(asked["beforeMs"] / 1000)
        again = tool == Kind.BOOK and key in self._booked
        if tool == Kind.BOOK:
            self._booked.add(key)
        self._log.write(
            Arrival(
                at=time.time_ns() // 1_000_000,
                kind=tool,
                task=asked["task"],
                step=asked["step"],
                key=key,
                applied=not again,
            )
        )
        await asyncio.sleep(asked["afterMs"] / 1000)
        return web.json_response({"step": asked["step"], "again": again})

    async def _key_asked(self, request: web.Request) -> web.Response:
        return web.json_response({"happened": request.headers.get(KEY, "") in self._arrived})

    async def _step_asked(self, request: web.Request) -> web.Response:
        step = (int(request.query["task"]), request.query["step"])
        return web.json_response({"happened": step in self._steps})


@contextmanager
def effect_server(folder: Path) -> Iterator[str]:
    """The server as a process of its own, with its log in this folder; its URL."""
    port = free_port()
    daemon = Daemon(
        "effects",
        [sys.executable, "-m", "fleet.effects", "--port", str(port), "--log", folder / LOG],
        directory=folder,
        dies_with_parent=True,
    )
    daemon.start()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(
            lambda: answers(f"{url}/happened?task=0&step=none"),
            part="effects",
            timeout_seconds=STARTED_SECONDS,
            daemons=[daemon],
        )
        yield url
    finally:
        daemon.kill()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    web.run_app(
        Effects(options.log).application(),
        host="127.0.0.1",
        port=options.port,
        access_log=None,
        print=None,
        handler_cancellation=False,
    )


if __name__ == "__main__":
    main()
