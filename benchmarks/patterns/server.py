"""A server whose answers take a given time, fail, or never come: `python -m patterns.server --port N`.

It notes for each race when the winner was answered and when the loser's connection was closed, by one clock.
Whether a step fails is drawn from the seed, the task, the step and the try, so no two tries are alike.
"""

import asyncio
import random
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fleet.own_server import parser_of, serve, started

FAIL_SHARE: Final = 1 / 20
WINS, LOSES = "wins", "loses"  # what a request of a race does


class Server:
    """The handlers, and what they saw."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tries: Counter[str] = Counter()
        self._won: dict[str, float] = {}
        self._lost: dict[str, float] = {}

    def application(self) -> web.Application:
        """The paths."""
        application = web.Application()
        application.router.add_post("/work", self._work)
        application.router.add_post("/once", self._work)
        application.router.add_get("/losers", self._losers)
        return application

    async def _work(self, request: web.Request) -> web.Response:
        asked: dict[str, Any] = await request.json()
        name, ends = str(asked["name"]), asked.get("ends", "well")
        try:
            await asyncio.sleep(3600 if ends in ("hangs", LOSES) else asked["ms"] / 1000)
        except asyncio.CancelledError:
            if ends == LOSES:
                self._lost[name] = time.monotonic()
            raise
        self._tries[name] += 1
        drawn = random.Random(f"{self._seed}/{name}/{self._tries[name]}").random()
        if ends == "fails" or (ends == "sometimes" and drawn < FAIL_SHARE):
            return web.json_response({"error": "not now"}, status=503)
        if ends == WINS:
            self._won[name] = time.monotonic()
        return web.json_response({"results": [{"id": f"{name}/{place}"} for place in range(3)]})

    async def _losers(self, _request: web.Request) -> web.Response:
        """How many milliseconds after its winner's answer each loser was closed."""
        known = self._won.keys() & self._lost.keys()
        closed = {name: 1000 * (self._lost[name] - self._won[name]) for name in known}
        return web.json_response({"closed": closed, "won": len(self._won)})


def slow_server(folder: Path, seed: int) -> AbstractContextManager[str]:
    """The server as a process of its own; its URL."""
    return started(folder, "slow", "patterns.server", "losers", "--seed", seed)


def main() -> None:
    """Serve until SIGTERM."""
    parser = parser_of(__doc__)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    serve(Server(options.seed).application(), options.port, hears_closing=True)


if __name__ == "__main__":
    main()
