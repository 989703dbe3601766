"""Requests that came, answers that kept the promise and the fill of the caches, as the agent beside a real
HAProxy tells them; the operator's part: operator/tests/controllers/model_replica_set/test_router_load.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from flotilla_runtime.router.admin_socket import AdminSocket
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.rates import SHORTEST_SECONDS, WINDOW_SECONDS
from flotilla_runtime.router.servers import Observed
from router_support.haproxy_version import ON_BOTH
from router_support.routers import Caller, Fleet, Router, fleet
from router_support.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("haproxy")]


@asynccontextmanager
async def routed(*engines: str, **fields: Any) -> AsyncIterator[tuple[Fleet, Router, Caller]]:
    async with fleet() as made:
        for server_id, name in enumerate(engines, start=1):
            await made.add(name, server_id)
        config = {"engine_port": made.engine_port, **fields}
        async with Router(made.api, "router-1", **config) as router, Caller(router) as caller:
            await until(lambda: router.ready_servers() == set(engines))
            yield made, router, caller


async def observed(router: Router) -> Observed:
    """The figures of HAProxy itself."""
    return await AdminSocket(RunFiles(str(router.directory))).observe(with_keys=False)


async def arrived(router: Router) -> int | None:
    """The requests that HAProxy itself has counted."""
    return (await observed(router)).arrived


@pytest.mark.holds("router.md", "Waiting and in-flight requests are told")
@ON_BOTH
async def test_a_request_is_here_until_its_answer_has_gone_whether_it_runs_or_waits() -> None:
    async with routed("a", max_num_seqs=1) as (made, router, caller):
        made.engines["a"].gate.clear()
        calls = [asyncio.create_task(caller.post(session=str(number))) for number in range(5)]
        await until(lambda: router.status.in_flight == 2)
        await until(lambda: router.status.waiting == 3)
        assert (await observed(router)).unanswered == 5
        made.engines["a"].gate.set()
        await asyncio.gather(*calls)
        assert not (await observed(router)).busy


def can_be(rate: float | None, count: int) -> bool:
    """Whether so many can be told as this rate, in the first minute of an agent."""
    return rate is not None and count / WINDOW_SECONDS <= rate <= count / SHORTEST_SECONDS


@pytest.mark.holds("router.md", "`goodputPerSecond` counts answers that kept the SLO")
async def test_requests_that_came_and_answers_that_kept_the_promise() -> None:
    async with routed("a", "b", promised_total_seconds=60.0) as (_, router, caller):
        assert (router.status.arrivals_per_second, router.status.kept_per_second) == (0, 0)
        answers = await asyncio.gather(*(caller.post(session=str(number)) for number in range(24)))
        assert {answer.status for answer in answers} == {200}
        await until(lambda: can_be(router.status.arrivals_per_second, 24))
        await until(lambda: can_be(router.status.kept_per_second, 24))
        assert await arrived(router) == 24


@pytest.mark.holds("router.md", "`goodputPerSecond` counts answers that kept the SLO")
async def test_late_answers_came_and_kept_nothing() -> None:
    async with routed("a", promised_total_seconds=0.0001) as (made, router, caller):
        made.engines["a"].gate.clear()
        waiting = [asyncio.create_task(caller.post(session=str(number))) for number in range(3)]
        await until(lambda: router.status.in_flight == 3)
        await until(lambda: can_be(router.status.arrivals_per_second, 3))  # they count when they come
        made.engines["a"].gate.set()
        await asyncio.gather(*waiting)
        await until(lambda: [row.answers for row in router.status.servers] == [3])
        assert router.status.kept_per_second == 0


@pytest.mark.holds("router.md", "`arrivalPerSecond` counts what needs a replica, and no mistakes of callers")
async def test_what_is_refused_for_want_of_replicas_came_and_a_callers_mistake_did_not() -> None:
    async with routed(max_request_mib=1) as (_, router, caller):
        assert (await caller.get("/v1/models")).status == 200
        assert (await caller.post(path="/other")).status == 404
        assert (await caller.post(data=b"x" * 2 * 2**20)).status == 413
        assert await arrived(router) == 0
        assert (await caller.post()).status == 503
        assert await arrived(router) == 1


@pytest.mark.holds("router.md", "`arrivalPerSecond` counts what needs a replica, and no mistakes of callers")
async def test_what_is_held_has_come() -> None:
    async with routed(hold_at_zero=True) as (made, router, caller):
        waiting = asyncio.create_task(caller.post())
        await until(lambda: router.status.held == 1)
        await until(lambda: can_be(router.status.arrivals_per_second, 1))
        await made.add("a", 1)
        assert (await waiting).status == 200
        assert await arrived(router) == 1, "who is let through comes once"


async def test_haproxy_begins_anew_and_the_rate_does_not_leap() -> None:
    async with routed("a") as (_, router, caller):
        for number in range(5):
            await caller.post(session=str(number))
        await until(lambda: can_be(router.status.arrivals_per_second, 5))
        await router.stop_haproxy()
        await router.start_haproxy()
        await until(lambda: router.log.count("Server engines/a is UP/READY") == 2)
        assert (await caller.post(session="x")).status == 200
        assert await arrived(router) == 1
        await until(lambda: 0 < (router.status.arrivals_per_second or 0) <= 6 / SHORTEST_SECONDS)


@pytest.mark.holds(
    "router.md", "`kvUsage` is the mean over the replicas that serve, absent where fewer than half are known"
)
async def test_how_full_the_caches_are_that_say_so() -> None:
    async with fleet() as made:
        for server_id, (name, usage) in enumerate((("a", "0.25"), ("b", "37.0"), ("c", "0.5")), start=1):
            (await made.add(name, server_id)).kv_usage = usage
        made.change("c", drain_epoch=1)
        async with Router(made.api, "router-1", engine_port=made.engine_port) as router:

            def told() -> dict[str, float | None]:
                return {server.name: server.kv_usage for server in router.status.servers}

            await until(lambda: told().get("a") is not None)
            assert told() == {"a": 0.25, "b": None, "c": None}
