"""A request that finds no replica waits for one: the real HAProxy, as in test_router_service.py.

What the operator makes of the number held is in operator/tests/autoscaling/test_from_zero.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from router_support.haproxy_version import ON_BOTH, looks_for_callers_that_left_while_it_holds
from router_support.routers import Answer, Caller, Fleet, Router, fleet
from router_support.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("haproxy")]


@asynccontextmanager
async def at_zero(**fields: Any) -> AsyncIterator[tuple[Fleet, Router, Caller]]:
    async with fleet() as made:
        config = {"engine_port": made.engine_port, "hold_at_zero": True, **fields}
        async with Router(made.api, "router-1", **config) as router, Caller(router) as caller:
            yield made, router, caller


@pytest.mark.holds("router.md", "With `minReplicas: 0` requests are held, streams and long bodies too")
@ON_BOTH
async def test_requests_are_held_until_there_is_a_replica() -> None:
    """Longer than a client may be silent, with bodies that fit HAProxy's buffer and bodies that do not."""
    sizes = {f"{size}-{number}": size for size in (1_000, 500_000) for number in range(10)}
    async with at_zero(client_timeout_seconds=1) as (made, router, caller):
        waiting = [
            asyncio.create_task(caller.post(data=b"x" * size, session=name)) for name, size in sizes.items()
        ]
        await until(lambda: router.status.held == len(sizes))
        await asyncio.sleep(2)  # the point: twice the client's time-out passes
        assert router.status.held == len(sizes)
        assert router.status.idle_seconds < 1
        await made.add("a", 1)
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)
        assert [(answer.status, answer.body["bytes"]) for answer in answers] == [
            (200, size) for size in sizes.values()
        ]
        await until(lambda: router.status.held == 0)
        await until(lambda: router.status.idle_seconds > 0.5)


@pytest.mark.holds("router.md", "With `minReplicas: 0` requests are held, streams and long bodies too")
async def test_a_stream_is_held_too() -> None:
    async with at_zero() as (made, router, caller):

        async def whole() -> bytes:
            async with caller.stream() as response:
                content: bytes = await response.read()
                return content

        waiting = asyncio.create_task(whole())
        await until(lambda: router.status.held == 1)
        await made.add("a", 1)
        assert await asyncio.wait_for(waiting, 30) == b"data: first\n\ndata: [DONE]\n\n"


@pytest.mark.holds(
    "router.md", "No more than `maxQueue` are held, and none longer than `queueTimeoutSeconds`"
)
async def test_no_more_are_held_than_may_wait() -> None:
    async with at_zero(max_queue=3) as (made, router, caller):
        waiting = [asyncio.create_task(caller.post(session=str(number))) for number in range(3)]
        await until(lambda: router.status.held == 3)
        refused = await caller.post()
        assert (refused.status, refused.body["error"]["code"]) == (429, "queue_full")
        assert refused.headers["Retry-After"] == "5"
        await made.add("a", 1)
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}


@pytest.mark.holds(
    "router.md", "No more than `maxQueue` are held, and none longer than `queueTimeoutSeconds`"
)
async def test_none_is_held_longer_than_it_may_wait() -> None:
    async with at_zero(queue_timeout_seconds=1) as (_, router, caller):
        answer: Answer = await asyncio.wait_for(caller.post(), 30)
        assert (answer.status, answer.body["error"]["code"]) == (503, "queue_timeout")
        assert answer.headers["Retry-After"] == "5"
        await until(lambda: router.status.refused == {"QueueTimeout": 1})
        await until(lambda: router.status.held == 0)


@pytest.mark.holds("router.md", "A caller that leaves while it is held is noticed as the page says")
@ON_BOTH
async def test_a_caller_that_leaves_is_held_no_longer() -> None:
    """HAProxy 3.x notices it when it connects to the first replica, which has nothing to do then."""
    async with at_zero() as (made, router, caller):
        waiting = asyncio.create_task(caller.post())
        await until(lambda: router.status.held == 1)
        waiting.cancel()
        if looks_for_callers_that_left_while_it_holds():
            await until(lambda: router.status.held == 0)
        engine = await made.add("a", 1, blocked=True)
        await until(lambda: router.ready_servers() == {"a"})
        await until(lambda: (router.status.held, router.status.in_flight, engine.running) == (0, 0, 0))
        assert len(engine.seen) == engine.cancelled
        if looks_for_callers_that_left_while_it_holds():
            assert engine.seen == []


async def test_a_router_that_is_deleted_waits_for_what_it_holds() -> None:
    async with at_zero() as (made, router, caller):
        waiting = asyncio.create_task(caller.post())
        await until(lambda: router.status.held == 1)
        assert router.agent is not None
        assert not router.agent._is_idle()
        await made.add("a", 1)
        assert (await waiting).status == 200
        await until(router.agent._is_idle)


async def test_what_is_refused_keeps_no_set_awake() -> None:
    async with at_zero() as (made, router, caller):
        await made.add("a", 1)
        await until(lambda: router.ready_servers() == {"a"})
        await caller.post()
        await until(lambda: router.status.idle_seconds > 0.2)
        before = router.status.idle_seconds
        await caller.post(path="/unknown")
        await until(lambda: bool(router.status.refused))
        assert router.status.idle_seconds > before
