"""Metrics of engines, also of those whose metrics stall or lie. That draining engines are asked is in
test_router_recovery, and that serving ones are in test_agent_load.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from flotilla_runtime.contract import ServerState
from flotilla_runtime.router.cache_looks import CacheLooks
from flotilla_runtime.router.engine_looks import EngineLooks
from flotilla_runtime.router.engine_metrics import METRICS_LIMIT_BYTES, in_flight, kv_usage
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


KV = 'vllm:kv_cache_usage_perc{engine="0",model_name="m"} '


@pytest.mark.holds("router.md", "An engine that stalls or says what cannot be is left out")
@pytest.mark.parametrize(
    ("text", "share"),
    [
        pytest.param(f"# HELP x\n{KV}0.25\n{RUNNING}3\n", 0.25, id="the share"),
        pytest.param(f"{KV}0\n", 0, id="an empty cache"),
        pytest.param(f"{KV}1.0", 1, id="a full one"),
        pytest.param(f"{KV}0.2\n{KV}0.6\n", pytest.approx(0.4), id="the mean of several engine cores"),
        pytest.param(f"{RUNNING}0\n", None, id="the engine does not say"),
        pytest.param("", None, id="no metrics"),
        pytest.param(f"{KV}much", None, id="not a number"),
        pytest.param(f"{KV}NaN", None, id="not a number, in the format's own words"),
        pytest.param(f"{KV}+Inf", None, id="without end"),
        pytest.param(f"{KV}-0.1", None, id="below zero"),
        pytest.param(f"{KV}37", None, id="more than all of it"),
        pytest.param(f"{KV}0.5\n{KV}1.5", None, id="one of several lies"),
    ],
)
def test_kv_usage(text: str, share: float | None) -> None:
    assert kv_usage(text) == share


IDLE = f"{RUNNING}0\n{WAITING}0\n{KV}0.5\n"


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


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Every engine at an address of its own, all at this port."""
    (port,) = free_ports(1)
    async with AsyncExitStack() as stack:
        for number, answer in enumerate(ENGINES.values(), start=1):
            app = web.Application()
            app.router.add_get("/metrics", answer)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, f"127.0.3.{number}", port).start()
        yield port


@asynccontextmanager
async def running(loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(loop)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def replicas(**fields: Any) -> list[Replica]:
    return [
        Replica(name=name, id=number, ip=f"127.0.3.{number}", **fields)
        for number, name in enumerate(ENGINES, start=1)
    ]


@pytest.mark.holds(
    "draining.md",
    "An engine that is busy, answers with an error or does not say what it has is not known to be idle",
)
async def test_an_engine_that_stalls_or_lies_is_never_called_idle(port: int) -> None:
    draining = replicas(state=ServerState.DRAINING, drain_epoch=7)
    looks = EngineLooks(lambda: draining, port=port, between_seconds=0.01, answer_seconds=0.2)
    async with running(looks.run()):
        await until(lambda: looks.idle("idle", 7) >= 2)
        assert [looks.idle(name, 7) for name in ENGINES if name != "idle"] == [0, 0, 0, 0]


@pytest.mark.holds("router.md", "An engine that stalls or says what cannot be is left out")
async def test_an_engine_that_stalls_has_no_kv_usage_not_even_that_of_before(port: int) -> None:
    serving = replicas(state=ServerState.READY)[:3]
    looks = CacheLooks(lambda: serving, port=port, between_seconds=0.01, answer_seconds=0.2)
    async with running(looks.run()):
        await until(lambda: looks.usage("idle") == 0.5)
        assert [looks.usage(replica.name) for replica in serving[1:]] == [None, None]
        serving[0] = replace(serving[0], ip="127.0.3.2")  # its engine now stalls
        await until(lambda: looks.usage("idle") is None)
