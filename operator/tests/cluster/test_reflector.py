"""The reflector against a server that fails in every way the operator-practice document names.

Here: lists, watches and their faults, the barrier's event and the size it must bear. The real API server's
part (restart, bookmarks it sends itself) is in tests/controllers/test_real_api_server.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flotilla_operator.cluster.caches import Store
from flotilla_operator.cluster.reflector import Change, Mirror, Reflector, Sweeper
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, PODS, RESOURCE_SLICES, Manifest, Resource
from tests.support.fake_api import FakeApi
from tests.support.waiting import until


def pod(name: str, **metadata: object) -> Manifest:
    return {"metadata": {"name": name, "namespace": "default", **metadata}}


def no_delay(_low: float, high: float) -> float:
    return min(high, 0.01) if high <= 30 else high


class Changes:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, _resource: Resource, manifest: Manifest, change: Change) -> None:
        self.seen.append((change, manifest["metadata"]["name"]))


@asynccontextmanager
async def reflecting(
    api: FakeApi,
    changes: Changes | None = None,
    *,
    silence_seconds: float = 70,
    namespace: str | None = None,
    resource: Resource = PODS,
) -> AsyncIterator[Store]:
    store = Store()
    async with api.running(), api.client() as client:
        mirror = Mirror(
            resource=resource,
            store=store,
            client=client,
            on_change=changes or Changes(),
            namespace=namespace,
        )
        reflector = Reflector(mirror, silence_seconds=silence_seconds, draw=no_delay)
        task = asyncio.create_task(reflector.run())
        await asyncio.wait_for(reflector.synced.wait(), 30)
        try:
            yield store
            store.check()
        finally:
            task.cancel()


def names(store: Store) -> list[str]:
    return sorted(manifest["metadata"]["name"] for manifest in store)


def lists(api: FakeApi) -> int:
    return sum(
        r.path.endswith("/pods") and not r.is_watch and "continue" not in r.query for r in api.requests
    )


async def test_what_changes_on_the_server_changes_in_the_store() -> None:
    api, changes = FakeApi(), Changes()
    api.put(PODS, pod("a"))
    async with reflecting(api, changes) as store:
        await until(lambda: api.shelf(PODS).watches)
        api.put(PODS, pod("b"))
        api.remove(PODS, "default", "a")
        await until(lambda: names(store) == ["b"])
    assert changes.seen == [("Put", "a"), ("Put", "b"), ("Removed", "a")]


@pytest.mark.holds("decisions/0001-kopf.md", "What vanished in a gap of a watch is dropped")
async def test_what_vanished_before_a_410_is_dropped_by_the_new_list() -> None:
    api, changes = FakeApi(), Changes()
    api.put(PODS, pod("a"))
    api.put(PODS, pod("b"))
    async with reflecting(api, changes) as store:
        await until(lambda: api.shelf(PODS).watches)
        api.remove(PODS, "default", "b", silently=True)
        api.end_watches(PODS, 410)
        await until(lambda: names(store) == ["a"])
    assert changes.seen[-1] == ("Removed", "b")


async def test_a_watch_from_too_old_a_version_lists_anew() -> None:
    api = FakeApi()
    api.put(PODS, pod("a"))
    async with reflecting(api) as store:
        await until(lambda: api.shelf(PODS).watches)
        api.fail(lambda r: r.is_watch, 410, reason="Expired")
        api.put(PODS, pod("b"), silently=True)
        api.end_watches(PODS)
        await until(lambda: names(store) == ["a", "b"])


@pytest.mark.parametrize("code", [500, 504, 429])
async def test_a_watch_that_ends_with_an_error_goes_on_without_a_new_list(code: int) -> None:
    api = FakeApi()
    async with reflecting(api) as store:
        await until(lambda: api.shelf(PODS).watches)
        api.end_watches(PODS, code)
        api.put(PODS, pod("a"))
        await until(lambda: names(store) == ["a"])
        assert lists(api) == 1


async def test_an_error_that_repeats_costs_a_new_list() -> None:
    api = FakeApi()
    async with reflecting(api) as store:
        api.fail(lambda r: r.is_watch, 500, times=3)
        api.end_watches(PODS)
        api.put(PODS, pod("a"), silently=True)
        await until(lambda: names(store) == ["a"])
        assert lists(api) == 2


async def test_a_silent_watch_is_taken_up_again_where_it_ended() -> None:
    api = FakeApi()
    async with reflecting(api, silence_seconds=0.2) as store:
        await until(lambda: api.shelf(PODS).watches)
        deaf = set(api.shelf(PODS).watches)
        api.shelf(PODS).watches.clear()
        api.put(PODS, pod("a"))
        await until(lambda: names(store) == ["a"])
        assert not deaf & api.shelf(PODS).watches
        assert lists(api) == 1


async def test_a_bookmark_moves_the_version_that_the_next_watch_starts_from() -> None:
    api = FakeApi()
    async with reflecting(api):
        await until(lambda: api.shelf(PODS).watches)
        api.version += 50
        api.bookmark(PODS)
        api.end_watches(PODS)
        await until(lambda: sum(r.is_watch for r in api.requests) == 2)
        assert api.requests[-1].query["resourceVersion"] == str(api.version)


async def test_a_list_that_is_refused_is_repeated_and_nothing_counts_as_complete_before() -> None:
    api = FakeApi()
    api.put(PODS, pod("a"))
    api.fail(lambda r: not r.is_watch, 429, retry_after=0)
    api.fail(lambda r: not r.is_watch, 500)
    async with reflecting(api) as store:
        assert names(store) == ["a"]
        assert lists(api) == 3


async def test_a_continue_token_that_expired_restarts_the_list() -> None:
    api = FakeApi()
    for index in range(700):
        api.put(PODS, pod(f"p{index:04}"))
    api.fail(lambda r: "continue" in r.query, 410, reason="Expired")
    async with reflecting(api) as store:
        assert len(store) == 700


async def test_each_page_of_a_list_is_a_sign_of_life() -> None:
    api = FakeApi()
    for index in range(1200):
        api.put(PODS, pod(f"p{index:04}"))
    signs: list[int] = []
    async with api.running(), api.client() as client:
        mirror = Mirror(resource=PODS, store=Store(), client=client, on_change=Changes())
        await mirror.list_anew(lambda: signs.append(len(api.requests)))
        assert signs == [1, 2, 3]
        api.hang(lambda r: "continue" in r.query)
        reflector = Reflector(mirror, draw=no_delay)
        task = asyncio.create_task(reflector.run())
        await asyncio.sleep(0)
        begun = reflector.active_at
        await asyncio.wait_for(api.hung.wait(), 30)
        assert reflector.active_at > begun
        task.cancel()


async def test_a_late_event_cannot_bring_back_what_a_delete_removed() -> None:
    store = Store()
    old = {"metadata": {"name": "a", "namespace": "x", "uid": "1", "resourceVersion": "5"}}
    store.put(old)
    store.remove("x", "a", "1")
    store.forget_old_deletions()
    assert not store.put({"metadata": {**old["metadata"], "resourceVersion": "6"}})
    assert store.put({"metadata": {**old["metadata"], "uid": "2", "resourceVersion": "7"}})
    store.check()


async def test_an_older_event_does_not_undo_what_was_just_written() -> None:
    store = Store()
    store.put({"metadata": {"name": "a", "uid": "1", "resourceVersion": "10"}, "spec": "new"})
    assert not store.put({"metadata": {"name": "a", "uid": "1", "resourceVersion": "9"}, "spec": "old"})
    assert store.get("", "a")["spec"] == "new"  # type: ignore[index]


async def test_one_namespace_s_list_leaves_the_others_alone() -> None:
    api = FakeApi()
    api.put(PODS, pod("a"))
    async with reflecting(api, namespace="default") as store:
        store.put({"metadata": {"name": "b", "namespace": "other", "uid": "b", "resourceVersion": "1"}})
        await until(lambda: api.shelf(PODS).watches)
        api.put(PODS, pod("c"), silently=True)
        api.end_watches(PODS, 410)
        await until(lambda: "c" in names(store))
        assert lists(api) == 2
        assert names(store) == ["a", "b", "c"]


async def test_a_sweep_drops_what_kopf_never_reported_as_deleted() -> None:
    api, changes, store = FakeApi(), Changes(), Store()
    api.put(MODEL_REPLICA_SETS, pod("a"))
    api.put(MODEL_REPLICA_SETS, pod("b"))
    async with api.running(), api.client() as client:
        mirror = Mirror(resource=MODEL_REPLICA_SETS, store=store, client=client, on_change=changes)
        sweeper = Sweeper(mirror, interval_seconds=0.05, draw=lambda low, high: low)
        task = asyncio.create_task(sweeper.run())
        await asyncio.wait_for(sweeper.synced.wait(), 5)
        api.remove(MODEL_REPLICA_SETS, "default", "b", silently=True)
        await until(lambda: names(store) == ["a"])
        task.cancel()
    assert changes.seen[-1] == ("Removed", "b")


@pytest.mark.holds("performance.md", "10,000 pods are listed into the caches within 30 s")
async def test_ten_thousand_pods_are_complete_within_thirty_seconds() -> None:
    api = FakeApi()
    containers = [
        {"name": "c", "image": "i", "env": [{"name": f"E{n}", "value": "v" * 20} for n in range(20)]}
    ]
    for index in range(10_000):
        owners = [{"uid": f"o{index % 500}", "controller": True, "kind": "ModelReplicaSet", "name": "o"}]
        labels = {"flotilla.dev/group": f"g{index}"}
        manifest = pod(f"p{index:05}", ownerReferences=owners, labels=labels)
        api.put(PODS, {**manifest, "spec": {"containers": containers}}, silently=True)
    started = time.perf_counter()
    async with reflecting(api) as store:
        seconds = time.perf_counter() - started
        assert len(store) == 10_000
        assert len(store.owned("o7")) == 20
        assert seconds < 30


async def test_what_an_api_server_does_not_serve_is_empty_until_it_is_served() -> None:
    api = FakeApi()
    api.put(RESOURCE_SLICES, {"metadata": {"name": "a"}})
    api.fail(lambda r: True, 404, times=2)
    async with reflecting(api, resource=RESOURCE_SLICES, silence_seconds=0.2) as store:
        assert names(store) == []
        await until(lambda: names(store) == ["a"])


async def test_of_any_other_resource_404_is_a_failure_like_any_other() -> None:
    api = FakeApi()
    api.put(PODS, pod("a"))
    api.fail(lambda r: True, 404, times=2)
    async with reflecting(api) as store:
        assert names(store) == ["a"], "not complete before a list was"
