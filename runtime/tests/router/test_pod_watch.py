"""The list and the watch, against an API that ends, goes silent, forgets and fails."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from flotilla_runtime.backoff import Backoff
from flotilla_runtime.router.pod_watch import BACKOFF, LINE_BYTES, KubernetesAccess, PodWatch
from router_support.builders import ENGINES, ROUTERS, pod
from router_support.fake_pods import FakePods
from router_support.waiting import until

QUICK = Backoff(base_seconds=0.001, limit_seconds=BACKOFF.limit_seconds, least_share=BACKOFF.least_share)


@asynccontextmanager
async def watching(
    api: FakePods, *, silence_seconds: float = 30, backoff: Backoff = BACKOFF
) -> AsyncIterator[PodWatch]:
    watch = PodWatch(
        KubernetesAccess(url=api.url),
        namespace="demo",
        selector=ENGINES,
        on_change=lambda: None,
        silence_seconds=silence_seconds,
        backoff=backoff,
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


@pytest.mark.parametrize("code", [410, 500])
async def test_an_error_in_a_watch_lists_again_and_drops_what_has_gone(code: int) -> None:
    async with FakePods() as api:
        api.put(pod("a"), pod("b"))
        async with watching(api) as watch:
            api.remove("b", unseen=True)
            with capture_logs() as logs:
                api.say_error(code)
                await until(lambda: list(watch.pods) == ["a"])
            assert api.lists == 2
            assert listed_again(logs) == [f"{code}: told to"]
            await until(lambda: len(api.watched_from) == 2)
            assert api.watched_from[1] == str(api.version)


async def test_a_watch_that_is_refused_with_410_lists_again_and_drops_what_has_gone() -> None:
    async with FakePods() as api:
        api.put(pod("a"), pod("b"))
        async with watching(api, backoff=QUICK) as watch:
            api.remove("b", unseen=True)
            api.forgetful = True
            with capture_logs() as logs:
                api.break_watches()
                await until(lambda: list(watch.pods) == ["a"])
            api.forgetful = False
            assert listed_again(logs)[0] == "410 Gone"
            await until(lambda: bool(api.watches))
            assert api.watched_from[-1] == str(api.version)


async def test_a_watch_that_is_refused_with_500_goes_on_without_another_list() -> None:
    async with FakePods() as api:
        api.put(pod("a"))
        async with watching(api, backoff=QUICK) as watch:
            with capture_logs() as logs:
                api.failing = True
                api.break_watches()
                await until(lambda: any(line["event"] == "pod_watch_failed" for line in logs))
            api.failing = False
            api.put(pod("b"))
            await until(lambda: watch.pods.keys() == {"a", "b"})
            assert (api.lists, listed_again(logs)) == (1, [])


def listed_again(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the pods were listed again, each time."""
    return [line["reason"] for line in logs if line["event"] == "pods_listed_again"]


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


async def test_a_list_that_cannot_be_read_is_asked_for_again() -> None:
    async with FakePods() as api:
        api.put(pod("a"))
        api.odd_lists = [None, [], {}, {"metadata": {}, "items": [{}]}]
        async with watching(api, backoff=QUICK) as watch:
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
