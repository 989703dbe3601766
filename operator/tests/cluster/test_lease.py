"""The lease against locks that hang, raise and change hands.

A whole process that is stopped for 20 s, and the hand-over on SIGTERM, are in tests/controllers.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.cluster.crash_points import CrashPoint, go_on
from flotilla_operator.cluster.lease import Fence, LeaderLease, LeaseSettings, NotLeadingError
from flotilla_operator.objects.resources import CONFIG_MAPS, LEASES, Manifest
from tests.support.fake_api import FakeApi
from tests.support.fake_requests import Request
from tests.support.waiting import until

RENEW_DEADLINE = 30.0
SHORT_DEADLINE = 0.3  # where a test waits for it to pass
LEASE_DURATION = 60
LONG_ENOUGH = 60.0


class Clock:
    """A clock that stands until a test moves it, so a machine that stalls changes nothing."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lease_of(
    client: Client,
    identity: str,
    clock: Callable[[], float] = time.monotonic,
    reached: Callable[[CrashPoint], None] = go_on,
    renew_deadline: float = RENEW_DEADLINE,
    retry_period: float = 0.1,
) -> tuple[LeaderLease, Fence]:
    fence = Fence(renew_deadline, clock=clock)
    settings = LeaseSettings(
        namespace="flotilla",
        name="leader",
        identity=identity,
        lease_duration_seconds=LEASE_DURATION,
        renew_deadline_seconds=renew_deadline,
        retry_period_seconds=retry_period,
    )
    return LeaderLease(client, fence, settings, clock=clock, reached=reached), fence


async def two_more(api: FakeApi, method: str) -> None:
    """Until two more requests of the kind came; the one before the last has been answered by then."""
    before = asked(api, method)
    await until(lambda: asked(api, method) >= before + 2)


def asked(api: FakeApi, method: str) -> int:
    return sum(request.method == method for request in api.requests)


def stored(api: FakeApi) -> Manifest:
    lease = api.get(LEASES, "flotilla", "leader")
    assert lease is not None
    return lease


def is_renewal(request: Request) -> bool:
    return request.method == "PUT"


async def test_the_first_takes_the_lease_and_the_second_waits_while_it_is_renewed() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        first, fence = lease_of(client, "a", Clock())
        await first.acquire()
        assert fence.leading
        assert stored(api)["spec"]["holderIdentity"] == "a"
        assert stored(api)["spec"]["leaseTransitions"] == 0
        clock = Clock()
        second, other_fence = lease_of(client, "b", clock)
        holding, waiting = asyncio.create_task(first.hold()), asyncio.create_task(second.acquire())
        for _ in range(3):
            await two_more(api, "PUT")
            await two_more(api, "GET")
            clock.now += 0.9 * LEASE_DURATION
        await two_more(api, "GET")
        assert not waiting.done()
        assert not other_fence.leading
        waiting.cancel()
        holding.cancel()


async def test_a_released_lease_moves_before_it_expires_and_counts_the_transition() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        first, fence = lease_of(client, "a", Clock(), retry_period=60)
        await first.acquire()
        second, _ = lease_of(client, "b", Clock())
        waiting = asyncio.create_task(second.acquire())
        await two_more(api, "GET")
        assert not waiting.done()
        await first.release()
        assert not fence.leading
        await asyncio.wait_for(waiting, LONG_ENOUGH)
        assert stored(api)["spec"]["holderIdentity"] == "b"
        assert stored(api)["spec"]["leaseTransitions"] == 1
        assert stored(api)["spec"]["renewTime"].endswith("Z")


async def test_the_crash_points_surround_each_write_of_the_lease() -> None:
    api, reached = FakeApi(), list[CrashPoint]()
    around = [CrashPoint.BEFORE_LEASE, CrashPoint.AFTER_LEASE]
    async with api.running(), api.client() as client:
        lease, _ = lease_of(client, "a", Clock(), reached.append)
        await lease.acquire()
        assert reached == around
        holding = asyncio.create_task(lease.hold())
        await until(lambda: len(reached) >= 4)
        holding.cancel()
        renewed = len(reached) // 2
        lease._settings = replace(lease._settings, retry_period_seconds=60)  # a release may take half of it
        await lease.release()
        assert reached == around * (renewed + 1)
        assert len(api.writes(leases=True)) == renewed + 1


async def test_an_expired_lease_is_taken_after_its_duration_by_our_own_clock() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        dead, _ = lease_of(client, "a")
        await dead.acquire()
        stored(api)["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
        clock = Clock()
        second, _ = lease_of(client, "b", clock)
        waiting = asyncio.create_task(second.acquire())
        await two_more(api, "GET")
        clock.now = LEASE_DURATION - 0.1
        await two_more(api, "GET")
        assert not waiting.done()
        clock.now = LEASE_DURATION
        await asyncio.wait_for(waiting, LONG_ENOUGH)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda api: api.hang(is_renewal, times=99), id="renewals hang"),
        pytest.param(lambda api: api.fail(is_renewal, 500, times=99), id="renewals are refused with 500"),
        pytest.param(lambda api: api.fail(is_renewal, 429, times=99), id="renewals are refused with 429"),
    ],
)
async def test_renewals_that_fail_lose_the_lease_before_another_may_take_it(fault) -> None:  # type: ignore[no-untyped-def]
    api = FakeApi()
    async with api.running(), api.client() as client:
        lease, fence = lease_of(client, "a", renew_deadline=SHORT_DEADLINE)
        await lease.acquire()
        fault(api)
        started = time.monotonic()
        with pytest.raises(NotLeadingError):
            await asyncio.wait_for(lease.hold(), LONG_ENOUGH)
        assert time.monotonic() - started < LEASE_DURATION, "others begin after the lease's duration"
        assert not fence.leading


async def test_a_client_that_raises_anything_at_all_is_a_failed_renewal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_arguments: object) -> Manifest:
        raise ZeroDivisionError

    api = FakeApi()
    async with api.running(), api.client() as client:
        lease, fence = lease_of(client, "a", renew_deadline=SHORT_DEADLINE)
        await lease.acquire()
        monkeypatch.setattr(client, "replace", broken)
        with pytest.raises(NotLeadingError):
            await asyncio.wait_for(lease.hold(), LONG_ENOUGH)
        assert not fence.leading


async def test_one_failed_renewal_is_made_good_by_the_next() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        clock = Clock()
        lease, fence = lease_of(client, "a", clock)
        await lease.acquire()
        clock.now = 0.9 * RENEW_DEADLINE
        api.fail(is_renewal, 500)
        holding = asyncio.create_task(lease.hold())
        await two_more(api, "PUT")
        await until(lambda: fence.remaining_seconds() > RENEW_DEADLINE / 2)
        assert not holding.done()
        holding.cancel()


async def test_a_lease_that_another_took_is_lost_at_once() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        lease, fence = lease_of(client, "a", Clock())
        await lease.acquire()
        taken = stored(api)
        api.put(LEASES, {**taken, "spec": {**taken["spec"], "holderIdentity": "b"}})
        with pytest.raises(NotLeadingError):
            await asyncio.wait_for(lease.hold(), LONG_ENOUGH)
        assert not fence.leading


async def test_a_lease_that_hangs_while_it_is_sought_is_asked_again() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        api.hang(lambda request: request.method == "GET")
        lease, fence = lease_of(client, "a", Clock(), renew_deadline=SHORT_DEADLINE)
        await asyncio.wait_for(lease.acquire(), LONG_ENOUGH)
        assert api.hung.is_set()
        assert fence.leading


@pytest.mark.holds("architecture.md", "No write without a lease that was renewed in time")
async def test_a_write_without_the_lease_never_reaches_the_server() -> None:
    api = FakeApi()
    now = 0.0
    fence = Fence(10, clock=lambda: now)
    async with api.running(), api.client(before_write=fence.check) as client:
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "a", "namespace": "default"},
        }
        with pytest.raises(NotLeadingError):
            await client.create(CONFIG_MAPS, manifest)
        fence.renewed(0.0)
        created = await client.create(CONFIG_MAPS, manifest)
        now = 10.0
        for write in (
            client.apply(CONFIG_MAPS, manifest),
            client.json_patch(CONFIG_MAPS, "default", "a", []),
            client.delete(CONFIG_MAPS, "default", "a", uid=created["metadata"]["uid"]),
        ):
            with pytest.raises(NotLeadingError):
                await write
        assert await client.get(CONFIG_MAPS, "default", "a") == created
        assert [request.method for request in api.writes()] == ["POST"]


@pytest.mark.parametrize(
    ("questions", "error"),
    [
        pytest.param(1, NotLeadingError, id="while it waits for a connection"),
        pytest.param(2, ConnectionError, id="between the connection and the first byte"),
    ],
)
async def test_a_lease_that_is_lost_stops_a_write_on_its_way(questions: int, error: type[Exception]) -> None:
    api = FakeApi()
    asked = 0

    def lost_after_some_questions() -> None:
        nonlocal asked
        asked += 1
        if asked > questions:
            raise NotLeadingError

    async with api.running(), api.client(before_write=lost_after_some_questions) as client:
        with pytest.raises(error):
            await client.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "default"}})
        assert api.writes() == []
        with pytest.raises(ApiError):
            await client.get(CONFIG_MAPS, "default", "a")
