"""The gateway's broom against a real Redis; what is forgotten, and when, is in the store's tests."""

import asyncio
from typing import Any

import pytest
import structlog

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import NewTask
from flotilla_runtime.contract import QueueConfig, TaskLimits
from flotilla_runtime.gateway.__main__ import forget_ended
from router_support.waiting import until

pytestmark = pytest.mark.services


class StumblingStore(TaskStore):
    """A store that is away once, and then fails in a way nobody thought of."""

    sweeps = 0

    async def forget_ended(self) -> int:
        self.sweeps += 1
        if self.sweeps == 1:
            raise StoreUnavailableError("away")
        if self.sweeps == 2:
            raise RuntimeError("unthought of")
        return await super().forget_ended()


async def test_a_sweep_that_goes_wrong_is_logged_and_is_not_the_last(redis_server: Any) -> None:
    config = QueueConfig(
        fleet="default/support",
        url=redis_server.url,
        password_path=redis_server.password_path,
        result_ttl_seconds=0,
    )
    store = StumblingStore(connect(config), config)
    await store.submit(NewTask(id="t1", input="why?", caller="ann", limits=TaskLimits()))
    await store.cancel("t1")
    with structlog.testing.capture_logs() as logged:
        sweeping = asyncio.create_task(forget_ended(store, every_seconds=0.01))
        await until(lambda: store.sweeps > 3 or sweeping.done())
        sweeping.cancel()
    assert [line["log_level"] for line in logged] == ["warning", "error"]
    assert await store.load("t1") is None
    await store.close()
