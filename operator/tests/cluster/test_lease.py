"""The lease against locks that hang, raise and change hands.

A whole process that is stopped for 20 s, and the hand-over on SIGTERM, are in tests/controllers.
"""

import asyncio
import time
from contextlib import suppress

import pytest

from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.cluster.lease import Fence, LeaderLease, LeaseSettings, NotLeadingError
from flotilla_operator.cluster.resources import CONFIG_MAPS, LEASES
from flotilla_operator.cluster.writes import Manifest
from tests.support.fake_api import FakeApi, Request

RENEW_DEADLINE = 0.4


def lease_of(client: Client, identity: str) -> tuple[LeaderLease, Fence]:
    fence = Fence(RENEW_DEADLINE)
    settings = LeaseSettings(
        namespace="flotilla",
        name="leader",
        identity=identity,
        lease_duration_seconds=1,
        renew_deadline_seconds=RENEW_DEADLINE,
        retry_period_seconds=0.1,
    )
    return LeaderLease(client, fence, settings), fence


def stored(api: FakeApi) -> Manifest:
    lease = api.get(LEASES, "flotilla", "leader")
    assert lease is not None
    return lease


def is_renewal(request: Request) -> bool:
    return request.method == "PUT"


async def test_the_first_takes_the_lease_and_the_second_waits() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        first, fence = lease_of(client, "a")
        await first.acquire()
        assert fence.leading
        assert stored(api)["spec"]["holderIdentity"] == "a"
        assert stored(api)["spec"]["leaseTransitions"] == 0
        second, other_fence = lease_of(client, "b")
        holding = asyncio.create_task(first.hold())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(second.acquire(), 1.5)
        assert not other_fence.leading
        holding.cancel()


async def test_a_released_lease_moves_at_once_and_counts_the_transition() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        first, fence = lease_of(client, "a")
        await first.acquire()
        second, _ = lease_of(client, "b")
        waiting = asyncio.create_task(second.acquire())
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await first.release()
        assert not fence.leading
        await asyncio.wait_for(waiting, 1)
        assert time.monotonic() - started < 0.5
        assert stored(api)["spec"]["holderIdentity"] == "b"
        assert stored(api)["spec"]["leaseTransitions"] == 1
        assert stored(api)["spec"]["renewTime"].endswith("Z")


async def test_an_expired_lease_is_taken_after_its_duration_by_our_own_clock() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        dead, _ = lease_of(client, "a")
        await dead.acquire()
        stored(api)["spec"]["renewTime"] = "2001-01-01T00:00:00.000000Z"
        second, _ = lease_of(client, "b")
        started = time.monotonic()
        await asyncio.wait_for(second.acquire(), 3)
        assert 1.0 <= time.monotonic() - started < 2


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda api: api.hang(is_renewal, times=99), id="renewals hang"),
        pytest.param(lambda api: api.fail(is_renewal, 500, times=99), id="renewals are refused with 500"),
        pytest.param(lambda api: api.fail(is_renewal, 429, times=99), id="renewals are refused with 429"),
    ],
)
async def test_renewals_that_fail_lose_the_lease_within_the_deadline(fault) -> None:  # type: ignore[no-untyped-def]
    api = FakeApi()
    async with api.running(), api.client() as client:
        lease, fence = lease_of(client, "a")
        await lease.acquire()
        fault(api)
        started = time.monotonic()
        with pytest.raises(NotLeadingError):
            await asyncio.wait_for(lease.hold(), 5)
        assert time.monotonic() - started < RENEW_DEADLINE + 0.2
        assert not fence.leading


async def test_a_client_that_raises_anything_at_all_is_a_failed_renewal() -> None:
    class Broken:
        async def replace(self, *_arguments: object) -> Manifest:
            raise ZeroDivisionError

    api = FakeApi()
    async with api.running(), api.client() as client:
        lease, _ = lease_of(client, "a")
        await lease.acquire()
        lease._client = Broken()  # type: ignore[assignment]
        with pytest.raises(NotLeadingError):
            await asyncio.wait_for(lease.hold(), 5)


async def test_one_failed_renewal_is_made_good_by_the_next() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        lease, fence = lease_of(client, "a")
        await lease.acquire()
        api.fail(is_renewal, 500)
        with suppress(TimeoutError):
            await asyncio.wait_for(lease.hold(), 2 * RENEW_DEADLINE)
        assert fence.leading


async def test_a_lease_that_another_took_is_lost_at_once() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        lease, fence = lease_of(client, "a")
        await lease.acquire()
        taken = stored(api)
        api.put(LEASES, {**taken, "spec": {**taken["spec"], "holderIdentity": "b"}})
        with pytest.raises(NotLeadingError):
            await asyncio.wait_for(lease.hold(), RENEW_DEADLINE)
        assert not fence.leading


async def test_a_lease_that_hangs_while_it_is_sought_is_asked_again() -> None:
    api = FakeApi()
    async with api.running(), api.client() as client:
        api.hang(lambda request: request.method == "GET")
        lease, _ = lease_of(client, "a")
        await asyncio.wait_for(lease.acquire(), 2)


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


async def test_a_lease_lost_while_a_write_waits_for_a_connection_stops_that_write() -> None:
    api = FakeApi()
    asked = 0

    def lost_after_the_first_question() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise NotLeadingError

    async with api.running(), api.client(before_write=lost_after_the_first_question) as client:
        with pytest.raises(NotLeadingError):
            await client.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "default"}})
        assert api.writes() == []
        with pytest.raises(ApiError):
            await client.get(CONFIG_MAPS, "default", "a")
