"""An engine's metrics → requests in it, and engines whose metrics stall or lie; that draining engines are
asked is in test_router_recovery.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from flotilla_runtime.contract import ServerState
from flotilla_runtime.router.engine_looks import METRICS_LIMIT_BYTES, EngineLooks, in_flight
from flotilla_runtime.router.pods import Replica
from free_ports import free_ports
from router_support.waiting import until

RUNNING = 'vllm:num_requests_running{engine="0",model_name="m"} '
WAITING = 'vllm:num_requests_waiting{engine="0",model_name="m"} '


@pytest.mark.parametrize(
    ("text", "requests"),
    [
        pytest.param(f"# HELP x\n{RUNNING}2.0\n{WAITING}3.0\n", 5, id="both are added"),
        pytest.param(f"{RUNNING}0\n{WAITING}0.0", 0, id="idle"),
        pytest.param(f"{RUNNING}1\n{RUNNING}1\n{WAITING}0", 2, id="several engine cores"),
        pytest.param(f"{RUNNING}0\n", None, id="one is missing, so nothing is known"),
        pytest.param("", None, id="no metrics"),
        pytest.param(f"{RUNNING}zero\n{WAITING}0", None, id="not a number"),
        pytest.param(f"{RUNNING}1\n{WAITING}-1", None, id="below zero, so they would add up to idle"),
        pytest.param(f"{RUNNING}NaN\n{WAITING}0", None, id="not a number, in the format's own words"),
        pytest.param(f"{RUNNING}0\n{WAITING}+Inf", None, id="without end"),
        pytest.param("vllm:num_requests_running\nvllm:num_requests_waiting 0", None, id="no value"),
        pytest.param(f"vllm:num_requests_waiting_total 9\n{RUNNING}0\n{WAITING}0", 0, id="another metric"),
    ],
)
def test_in_flight(text: str, requests: float | None) -> None:
    assert in_flight(text) == requests


IDLE = f"{RUNNING}0\n{WAITING}0\n"


async def idle(_: web.Request) -> web.StreamResponse:
    return web.Response(text=IDLE)


async def stalls(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response(text=IDLE)


async def stalls_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(IDLE.encode())
    await asyncio.sleep(60)
    return response


async def never_ends(_: web.Request) -> web.StreamResponse:
    return web.Response(text=IDLE + "#" * METRICS_LIMIT_BYTES)


async def fails(_: web.Request) -> web.StreamResponse:
    return web.Response(text=IDLE, status=500)


ENGINES: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
    "idle": idle,
    "stalls": stalls,
    "stalls-in-the-middle": stalls_in_the_middle,
    "never-ends": never_ends,
    "fails": fails,
}


async def test_an_engine_that_stalls_or_lies_is_never_called_idle() -> None:
    (port,) = free_ports(1)
    replicas = [
        Replica(name=name, id=number, ip=f"127.0.3.{number}", state=ServerState.DRAINING, drain_epoch=7)
        for number, name in enumerate(ENGINES, start=1)
    ]
    looks = EngineLooks(lambda: replicas, port=port, between_seconds=0.01, answer_seconds=0.2)
    async with AsyncExitStack() as stack:
        for replica in replicas:
            app = web.Application()
            app.router.add_get("/metrics", ENGINES[replica.name])
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, replica.ip, port).start()
        asking = asyncio.create_task(looks.run())
        await until(lambda: looks.idle("idle", 7) >= 2)
        assert [looks.idle(name, 7) for name in ENGINES if name != "idle"] == [0, 0, 0, 0]
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
