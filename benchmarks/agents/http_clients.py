"""Cost of a streamed answer in the worker's HTTP client, by the number of answers that it waits for at once.

Beside it the same is measured of httpx 0.28, which workers used before: `python -m agents.http_clients --port
N` is the server for both, which answers in eight pieces.
"""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx
from aiohttp import web

from fleet.own_server import parser_of, serve, started
from flotilla_runtime.agent.worker.calls import http_client
from flotilla_runtime.contract import QueueConfig, WorkerConfig

AT_ONCE: Final = (10, 100, 500)
LEAST_ANSWERS: Final = 300
PIECES: Final = 8
PIECE: Final = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
PAUSE_SECONDS: Final = 0.02
PROMPT: Final = {"prompt": "Tell me about the weather. " * 20}


def run(folder: Path) -> dict[str, Any]:
    """Milliseconds of processor time of one answer, for each client and number, and how ours grows."""
    folder.mkdir(parents=True, exist_ok=True)
    with started(folder, "pieces", "agents.http_clients", "ready") as url:
        ours = {str(number): asyncio.run(_worker_ms(url, number)) for number in AT_ONCE}
        httpx_ms = {str(number): asyncio.run(_httpx_ms(url, number)) for number in AT_ONCE}
    few, *_, many = ours.values()
    return {
        "answer_cpu_ms": _rounded(ours),
        "httpx_answer_cpu_ms": _rounded(httpx_ms),
        "answer_cpu_growth": round(many / few, 2),
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {number: round(milliseconds, 1) for number, milliseconds in figures.items()}


async def _worker_ms(url: str, at_once: int) -> float:
    queue = QueueConfig(fleet="bench/fleet")
    async with http_client(WorkerConfig(queue=queue, models=(), concurrency=at_once)) as client:
        return await _answer_ms(client, url, at_once)


async def _httpx_ms(url: str, at_once: int) -> float:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=2 * at_once)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        return await _answer_ms(client, url, at_once)


async def _answer_ms(client: Any, url: str, at_once: int) -> float:
    """Measured once each caller has a connection, which is kept."""
    await _answers(client, url, at_once, at_once)
    answers, began = max(LEAST_ANSWERS, at_once), time.process_time()
    await _answers(client, url, at_once, answers)
    return 1000 * (time.process_time() - began) / answers


async def _answers(client: Any, url: str, at_once: int, answers: int) -> None:
    left = iter(range(answers))

    async def caller() -> None:
        for _ in left:
            async with client.stream("POST", f"{url}/answer", json=PROMPT) as response:
                async for _ in response.aiter_raw():
                    pass

    await asyncio.gather(*(caller() for _ in range(at_once)))


async def _answer(request: web.Request) -> web.StreamResponse:
    await request.read()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(PIECES):
        await asyncio.sleep(PAUSE_SECONDS)
        await response.write(PIECE)
    return response


async def _ready(_: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    """Serve until SIGTERM."""
    options = parser_of(__doc__).parse_args()
    application = web.Application()
    application.add_routes([web.get("/ready", _ready), web.post("/answer", _answer)])
    serve(application, options.port, hears_closing=False)


if __name__ == "__main__":
    main()
