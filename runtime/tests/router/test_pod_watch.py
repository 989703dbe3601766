"""The list and the watch, against an API that ends, goes silent, forgets and fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flotilla_runtime.router import pod_watch
from flotilla_runtime.router.pod_watch import LINE_BYTES, KubernetesAccess, PodWatch
from router_support.builders import ENGINES, ROUTERS, pod
from router_support.fake_pods import FakePods
from router_support.waiting import until


@asynccontextmanager
async def watching(api: FakePods, *, silence_seconds: float = 30) -> AsyncIterator[PodWatch]:
    watch = PodWatch(
        KubernetesAccess(url=api.url),
        namespace="demo",
        selector=ENGINES,
        on_change=lambda: None,
        silence_seconds=silence_seconds,
    )
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.synced and bool(api.watches))
        yield watch
    finally:
        task.cancel()


async def test_pods_come_change_and_go() -> None:
    async with FakePods() as api:
        api.put(pod("a"), pod("r", labels=ROUTERS))
        async with watching(api) as watch:
            assert list(watch.pods) == ["a"]
            api.put(pod("b"), pod("a", ready=False))
            await until(lambda: len(watch.pods) == 2)
            api.remove("b")
            await until(lambda: list(watch.pods) == ["a"])
            assert watch.pods["a"]["status"]["conditions"][0]["status"] == "False"
            assert api.lists == 1


async def test_a_long_list_comes_in_pages() -> None:
    async with FakePods() as api:
        api.page_size = 3
        api.put(*(pod(f"p{number}") for number in range(10)))
        async with watching(api) as watch:
            assert len(watch.pods) == 10


async def test_a_watch_that_ends_goes_on_from_the_last_version() -> None:
    async with FakePods() as api, watching(api) as watch:
        api.put(pod("a"))
        await until(lambda: "a" in watch.pods)
        api.say_bookmark()
        api.break_watches()
        await until(lambda: len(api.watched_from) == 2)
        assert api.watched_from[1] == str(api.version)
        assert api.lists == 1


async def test_410_lists_again_and_drops_what_has_gone() -> None:
    async with FakePods() as api:
        api.put(pod("a"), pod("b"))
        async with watching(api) as watch:
            api.remove("b", unseen=True)
            api.say_error(410)
            await until(lambda: list(watch.pods) == ["a"])
            assert api.lists == 2


async def test_an_error_other_than_410_lists_again_too() -> None:
    async with FakePods() as api, watching(api) as watch:
        api.say_error(500)
        await until(lambda: api.lists == 2)
        api.put(pod("a"))
        await until(lambda: "a" in watch.pods)


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[]",
        "null",
        "{}",
        '{"type": "ADDED", "object": null}',
        '{"type": "ADDED", "object": {}}',
        '{"type": "MODIFIED", "object": {"metadata": {"resourceVersion": "999"}}}',
        '{"type": "DELETED", "object": {"metadata": {"name": "b"}}}',
        f'{{"type": "ADDED", "object": "{"x" * LINE_BYTES}',
    ],
    ids=lambda line: line[:60],
)
async def test_an_event_that_cannot_be_read_lists_again(line: str) -> None:
    async with FakePods() as api:
        api.put(pod("a"), pod("b"))
        async with watching(api) as watch:
            api.remove("b", unseen=True)
            api.say(line)
            await until(lambda: list(watch.pods) == ["a"])
            assert api.lists == 2


async def test_a_list_that_cannot_be_read_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_watch, "FIRST_PAUSE_SECONDS", 0.001)
    async with FakePods() as api:
        api.put(pod("a"))
        api.odd_lists = [None, [], {}, {"metadata": {}, "items": [{}]}]
        async with watching(api) as watch:
            assert list(watch.pods) == ["a"]
            assert api.lists == 5


async def test_a_silent_watch_is_taken_for_dead() -> None:
    async with FakePods() as api, watching(api, silence_seconds=0.3) as watch:
        api.silent = True
        api.put(pod("a"))
        await until(lambda: len(api.watched_from) >= 2)
        api.silent = False
        api.put(pod("a"))
        await until(lambda: "a" in watch.pods)


async def test_the_last_known_pods_stay_while_the_api_fails() -> None:
    async with FakePods() as api:
        api.put(pod("a"))
        async with watching(api) as watch:
            api.failing = True
            api.break_watches()
            await until(lambda: not api.watches)
            await asyncio.sleep(0.5)
            assert list(watch.pods) == ["a"]
            api.failing = False
            api.put(pod("b"))
            await until(lambda: bool(api.watches))


async def test_the_token_is_read_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    access = KubernetesAccess(url="http://unused", token_path=token)
    token.write_text("one\n")
    assert access.headers()["Authorization"] == "Bearer one"
    token.write_text("two\n")
    assert access.headers()["Authorization"] == "Bearer two"
