"""Nodes that pods name and the cache lacks: when they count as gone, and for how long they are remembered."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.absent_nodes import (
    FORGOTTEN_AFTER_SECONDS,
    MISSED_FOR_SECONDS,
    AbsentNodesByCache,
)
from flotilla_operator.objects.resources import NODES
from tests.support.fake_api import FakeApi


@dataclass
class Bench:
    """Memory of the absent nodes, beside an API server and a clock that a test sets."""

    api: FakeApi
    caches: Caches
    now: float = 0.0
    absent: AbsentNodesByCache | None = None

    async def look(self, *names: str, after: float = 0.0) -> frozenset[str]:
        assert self.absent is not None
        self.now += after
        await self.absent.look_for(names)
        return self.absent.gone()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench(FakeApi(), Caches())
    async with made.api.running(), made.api.client() as client:
        made.absent = AbsentNodesByCache(client, made.caches, clock=lambda: made.now)
        yield made


async def test_a_node_is_gone_when_it_was_missed_for_long_and_the_server_knows_none(bench: Bench) -> None:
    assert await bench.look("a") == frozenset()
    assert await bench.look("a", after=MISSED_FOR_SECONDS - 1) == frozenset()
    assert bench.api.requests == []
    assert await bench.look("a", after=1) == {"a"}
    assert await bench.look("a", after=60) == {"a"}
    assert len(bench.api.requests) == 1, "it is asked for once"


async def test_a_node_that_only_the_cache_lacks_is_not_gone(bench: Bench) -> None:
    bench.api.put(NODES, {"metadata": {"name": "a"}})
    await bench.look("a")
    assert await bench.look("a", after=MISSED_FOR_SECONDS) == frozenset()
    assert bench.caches.get(NODES, "", "a") is not None


async def test_a_node_that_returns_is_not_gone_any_more(bench: Bench) -> None:
    await bench.look("a")
    assert await bench.look("a", after=MISSED_FOR_SECONDS) == {"a"}
    bench.caches.store(NODES).put({"metadata": {"name": "a", "uid": "u"}})
    assert await bench.look() == frozenset()


async def test_a_node_that_no_pod_names_any_more_is_forgotten(bench: Bench) -> None:
    await bench.look("a")
    assert await bench.look("a", after=MISSED_FOR_SECONDS) == {"a"}
    assert await bench.look("b", after=FORGOTTEN_AFTER_SECONDS + 1) == frozenset()
