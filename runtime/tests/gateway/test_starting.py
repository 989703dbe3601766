"""When a gateway that starts says that it is ready."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from flotilla_runtime.contract import ENV_REDIS_URL, GatewayAuth, GatewayConfig, QueueConfig
from flotilla_runtime.gateway import __main__ as gateway
from flotilla_runtime.serving import serving
from local_cluster.processes import free_port
from router_support.waiting import until_told


async def status_of(url: str) -> int | None:
    """The status of an answer; None while nobody listens."""
    async with httpx2.AsyncClient() as client:
        try:
            return (await client.get(url)).status_code
        except httpx2.ConnectError:
            return None


def answers(url: str, status: int) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return await status_of(url) == status

    return ask


@pytest.mark.holds("tasks.md", "A gateway is ready once it takes requests")
async def test_a_gateway_is_ready_once_it_takes_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    port, metrics_port, may_listen = free_port(), free_port(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def late(application: Any, asked: int, **options: Any) -> AsyncIterator[int]:
        if asked == port:
            await may_listen.wait()
        async with serving(application, asked, **options) as listening:
            yield listening

    monkeypatch.setattr(gateway, "serving", late)
    config = GatewayConfig(
        queue=QueueConfig(fleet="ns/fleet"),  # an external Redis, which is not waited for
        namespace="ns",
        name="fleet",
        auth=GatewayAuth.NONE,
        port=port,
        metrics_port=metrics_port,
    )
    serves = asyncio.create_task(gateway.serve(config, {ENV_REDIS_URL: "redis://127.0.0.1:1"}))
    try:
        readyz = f"http://127.0.0.1:{metrics_port}/readyz"
        await until_told(answers(readyz, 503))
        may_listen.set()
        await until_told(answers(readyz, 200))
        assert await status_of(f"http://127.0.0.1:{port}/no-such-page") == 404
    finally:
        serves.cancel()
        await asyncio.gather(serves, return_exceptions=True)
