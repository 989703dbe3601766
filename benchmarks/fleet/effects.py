"""A server whose requests have effects, which it counts: `python -m fleet.effects --port N --log FILE`.

`POST /TOOL` waits, lets the effect happen, waits again and answers, so a client may be killed before and
after the effect. Each effect is written to the log before it is answered. `book` knows the keys that it has
seen, as an idempotent tool does. Every other tool has an effect at each request. `POST /happened` says
whether there was an effect with a key, `GET /happened?task=N&step=NAME` whether there was one of a step.

A client that goes away changes nothing: what has arrived happens, and counts as happened from then on.
"""

import asyncio
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fleet.arrivals import Arrival, arrivals_of
from fleet.calls import EFFECTS, Kind
from fleet.log import Log
from fleet.own_server import parser_of, serve, started

KEY: Final = "Idempotency-Key"
LOG: Final = "effects.jsonl"


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


def effect_server(folder: Path) -> AbstractContextManager[str]:
    """The server as a process of its own, with its log in this folder; its URL."""
    asked = "happened?task=0&step=none"
    return started(folder, "effects", "fleet.effects", asked, "--log", folder / LOG)


def main() -> None:
    """Serve until SIGTERM."""
    parser = parser_of(__doc__)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    serve(Effects(options.log).application(), options.port, hears_closing=False)


if __name__ == "__main__":
    main()
