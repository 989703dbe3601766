"""Scraping against a server that fails: what is known, what is unknown, and who is told."""

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import generate_latest

from flotilla_operator.objects.resources import PODS
from flotilla_operator.telemetry.measurements import Measurements, Target
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import (
    BYTES_OF_AN_OWNER,
    TARGETS_OF_AN_OWNER,
    HttpFetcher,
    Scraper,
    pause_seconds,
)
from tests.support.waiting import until


@dataclass
class Endpoint:
    """A server whose answer a test changes as it goes."""

    body: str = '{"waiting": 3}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    asked: int = 0
    open: int = 0
    most_open: int = 0
    url: str = ""
    told: list[str] = field(default_factory=list)
    raises: bool = False
    paths: Counter[str] = field(default_factory=Counter)
    compressed: bytes = b""

    def tell(self, owner: str) -> None:
        if self.raises:
            raise KeyError("a fault of a policy")
        self.told.append(owner)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.paths[request.path] += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(60 if self.hang else 0.002)
        finally:
            self.open -= 1
        if self.compressed:
            return web.Response(body=self.compressed, headers={"Content-Encoding": "gzip"})
        return web.Response(text=self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def scraping(
    concurrency: int = 8, timeout_seconds: float = 60
) -> AsyncIterator[tuple[Endpoint, Scraper, Measurements]]:
    endpoint, measurements = Endpoint(), Measurements()
    application = web.Application()
    application.router.add_get("/{tail:.*}", endpoint.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    scraper = Scraper(
        measurements,
        fetcher=HttpFetcher(concurrency=concurrency, timeout_seconds=timeout_seconds),
        on_answer=endpoint.tell,
        draw=lambda low, _high: low,
    )
    try:
        yield endpoint, scraper, measurements
    finally:
        await scraper.close()
        await runner.cleanup()


def target(endpoint: Endpoint, key: str = "pod", **changes: Any) -> Target:
    return Target(key=key, url=endpoint.url, interval_seconds=0.02, **changes)


async def test_a_target_becomes_known_and_its_owner_is_told_of_each_answer() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        assert measurements.latest("pod") is None
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: endpoint.asked > 5)
        first = measurements.latest("pod")
        assert first is not None
        assert first.document == {"waiting": 3}
        endpoint.body = '{"waiting": 4}'
        await until(lambda: measurements.latest("pod").document == {"waiting": 4})  # type: ignore[union-attr]
        assert len(endpoint.told) in (endpoint.asked - 1, endpoint.asked)
        assert set(endpoint.told) == {"set"}


async def test_an_error_of_whoever_is_told_ends_no_scrape() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        endpoint.raises = True
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: endpoint.asked > 3)
        endpoint.raises, endpoint.body = False, '{"waiting": 4}'
        await until(lambda: measurements.latest("pod").document == {"waiting": 4})  # type: ignore[union-attr]
        await until(lambda: endpoint.told)


@pytest.mark.parametrize("fault", ["refused", "silent", "broken"])
async def test_a_target_that_fails_three_times_is_unknown_and_its_owner_is_told(fault: str) -> None:
    timeout = 0.2 if fault == "silent" else 60
    async with scraping(timeout_seconds=timeout) as (endpoint, scraper, measurements):
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: measurements.latest("pod"))
        endpoint.status = 500 if fault == "refused" else 200
        endpoint.hang = fault == "silent"
        endpoint.body = "{" if fault == "broken" else endpoint.body
        told = len(endpoint.told)
        await until(lambda: measurements.latest("pod") is None)
        asked = endpoint.asked
        await until(lambda: endpoint.asked > asked + 2)
        assert len(endpoint.told) <= told + 2, "of the loss, and of an answer that was under way"


@pytest.mark.holds(
    "architecture.md", "A pod that does not answer is asked less and less, at least every 30 s"
)
@pytest.mark.parametrize(
    ("failures", "shortest", "longest"),
    [
        pytest.param(0, 4.5, 5.5, id="it answers"),
        pytest.param(3, 4.5, 5.5, id="it has just become unknown"),
        pytest.param(4, 4.5, 10.0, id="it did not answer since"),
        pytest.param(5, 4.5, 20.0, id="nor at the next try"),
        pytest.param(6, 4.5, 30.0, id="nor then"),
        pytest.param(500, 4.5, 30.0, id="for hours"),
    ],
)
def test_a_target_that_does_not_answer_is_asked_less_and_less(
    failures: int, shortest: float, longest: float
) -> None:
    assert pause_seconds(5.0, failures, lambda low, _high: low) == shortest
    assert pause_seconds(5.0, failures, lambda _low, high: high) == longest


async def test_a_target_that_is_taken_away_is_unknown_and_scraped_no_more() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: measurements.latest("pod"))
        scraper.set_targets("set", [])
        assert (len(scraper), measurements.latest("pod")) == (0, None)
        asked = endpoint.asked
        await asyncio.sleep(0.1)
        assert endpoint.asked <= asked + 1


async def test_a_target_that_stays_keeps_its_measurement() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: measurements.latest("pod"))
        scraper.set_targets("set", [target(endpoint), target(endpoint, "other")])
        assert measurements.latest("pod") is not None


async def test_no_more_requests_are_open_than_allowed() -> None:
    async with scraping(concurrency=4) as (endpoint, scraper, _):
        scraper.set_targets("set", [target(endpoint, f"pod-{index}") for index in range(50)])
        await until(lambda: endpoint.asked > 200)
        assert endpoint.most_open == 4


@pytest.mark.holds(
    "security.md", "An answer may have 1 MiB, is not decompressed, and none ends the questions"
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f'{{"waiting": "{"m" * 2**20}"}}', id="more than 1 MiB"),
        pytest.param("[" * 500_000, id="nested without end"),
        pytest.param("9" * 100_000, id="a number of 100,000 digits"),
    ],
)
async def test_no_answer_ends_the_scrape_or_keeps_old_figures(body: str) -> None:
    async with scraping() as (endpoint, scraper, measurements):
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: measurements.latest("pod"))
        sound, endpoint.body = endpoint.body, body
        await until(lambda: measurements.latest("pod") is None)
        endpoint.body = sound
        await until(lambda: measurements.latest("pod"))


@pytest.mark.holds(
    "security.md", "An answer may have 1 MiB, is not decompressed, and none ends the questions"
)
async def test_an_answer_of_a_thousand_replicas_is_read() -> None:
    servers = [{"pod": f"llama-{number:05}-x7k2p", "id": number, "state": "Ready"} for number in range(1000)]
    async with scraping() as (endpoint, scraper, measurements):
        endpoint.body = json.dumps({"servers": servers, "unusable": "x" * 150_000})
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: measurements.latest("pod"))


@pytest.mark.holds("security.md", "The operator follows no redirect of a pod")
async def test_no_redirect_is_followed() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        endpoint.status = 307
        endpoint.headers = {"Location": endpoint.url.replace("/metrics", "/elsewhere")}
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: endpoint.asked > 2)
        assert set(endpoint.paths) == {"/metrics"}
        assert measurements.latest("pod") is None


@pytest.mark.holds(
    "security.md", "An answer may have 1 MiB, is not decompressed, and none ends the questions"
)
async def test_a_small_answer_cannot_become_a_large_one() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        endpoint.compressed = gzip.compress(b'{"waiting": 3' + b" " * 100 * 2**20 + b"}")
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: endpoint.asked > 2)
        assert measurements.latest("pod") is None


@pytest.mark.holds(
    "security.md", "At most 200 pods of an object are asked, and their answers have 16 MiB at most"
)
async def test_an_owner_has_two_hundred_targets_at_most_and_those_that_answer_stay() -> None:
    async with scraping() as (endpoint, scraper, _):
        first = Target(key="first", url=endpoint.url.replace("metrics", "first"), interval_seconds=0.02)
        scraper.set_targets("set", [first])
        flood = [target(endpoint, f"pod-{number}") for number in range(1000)]
        scraper.set_targets("set", [*flood, first])
        assert len(scraper) == TARGETS_OF_AN_OWNER
        before = endpoint.paths["/first"]
        await until(lambda: endpoint.paths["/first"] > before + 1)


@pytest.mark.holds(
    "security.md", "At most 200 pods of an object are asked, and their answers have 16 MiB at most"
)
async def test_all_answers_of_an_owner_together_are_limited() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        endpoint.body = f'{{"waiting": "{"m" * (2**20 - 100)}"}}'
        keys = [f"pod-{number}" for number in range(20)]
        scraper.set_targets("set", [target(endpoint, key) for key in keys])
        await until(lambda: endpoint.asked > 60)
        known = [key for key in keys if measurements.latest(key)]
        assert len(known) == BYTES_OF_AN_OWNER // 2**20


def test_the_age_of_a_cache_is_that_of_its_oldest_watch() -> None:
    metrics = Metrics()
    ages = [lambda: 3.0, lambda: 70.0, lambda: 5.0]
    metrics.watch_age(PODS, ages)
    assert 'flotilla_cache_age_seconds{resource="Pod"} 70.0' in generate_latest(metrics.registry).decode()


def test_metrics_have_the_names_of_controller_runtime() -> None:
    metrics = Metrics()
    metrics.leads(leading=True)
    metrics.depth_is(lambda: 4)
    text = generate_latest(metrics.registry).decode()
    for name in (
        "flotilla_controller_reconcile_total",
        "flotilla_controller_reconcile_errors_total",
        "flotilla_controller_reconcile_time_seconds",
        "flotilla_workqueue_adds_total",
        "flotilla_workqueue_retries_total",
        "flotilla_workqueue_queue_duration_seconds",
        "flotilla_cache_age_seconds",
    ):
        assert f"# TYPE {name} " in text
    assert "flotilla_workqueue_depth 4.0" in text
    assert "flotilla_leader 1.0" in text


@pytest.mark.holds(
    "install.md",
    "What is asked in the cluster alone is asked without a proxy, whatever the environment names",
)
async def test_no_proxy_is_asked_for_a_pod_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with scraping() as (endpoint, scraper, measurements):
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: measurements.latest("pod"))
