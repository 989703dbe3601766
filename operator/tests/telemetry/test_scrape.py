"""Scraping against a server that fails: what is known, what is unknown, and who is told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from flotilla_operator.telemetry.exposition import parse_exposition
from flotilla_operator.telemetry.measurements import Format, Measurements, Sample, Target
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import Scraper
from tests.support.waiting import until


@dataclass
class Endpoint:
    """A server whose answer a test changes as it goes."""

    body: str = 'vllm:num_requests_waiting{model_name="m"} 3.0\n'
    status: int = 200
    hang: bool = False
    asked: int = 0
    open: int = 0
    most_open: int = 0
    url: str = ""
    told: list[str] = field(default_factory=list)

    async def answer(self, _request: web.Request) -> web.Response:
        self.asked += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await asyncio.sleep(60 if self.hang else 0.002)
        finally:
            self.open -= 1
        return web.Response(text=self.body, status=self.status)


@asynccontextmanager
async def scraping(concurrency: int = 8) -> AsyncIterator[tuple[Endpoint, Scraper, Measurements]]:
    endpoint, measurements = Endpoint(), Measurements()
    application = web.Application()
    application.router.add_get("/{tail:.*}", endpoint.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint.url = f"http://127.0.0.1:{runner.addresses[0][1]}/metrics"
    scraper = Scraper(
        measurements,
        concurrency=concurrency,
        timeout_seconds=0.2,
        on_change=endpoint.told.append,
        draw=lambda low, _high: low,
    )
    try:
        yield endpoint, scraper, measurements
    finally:
        await scraper.close()
        await runner.cleanup()


def target(endpoint: Endpoint, key: str = "pod", **changes: object) -> Target:
    return Target(key=key, url=endpoint.url, interval_seconds=0.02, **changes)  # type: ignore[arg-type]


async def test_a_target_becomes_known_and_its_owner_is_told_once() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        assert measurements.latest("pod") is None
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: endpoint.asked > 5)
        latest, previous = measurements.latest("pod"), measurements.previous("pod")
        assert latest is not None
        assert previous is not None
        assert latest.total("vllm:num_requests_waiting", model_name="m") == 3
        assert latest.total("vllm:num_requests_running") is None
        assert latest.at > previous.at
        assert endpoint.told == ["set"]


@pytest.mark.parametrize("fault", ["refused", "silent", "broken"])
async def test_a_target_that_fails_three_times_is_unknown_and_its_owner_is_told(fault: str) -> None:
    async with scraping() as (endpoint, scraper, measurements):
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: measurements.latest("pod"))
        endpoint.status = 500 if fault == "refused" else 200
        endpoint.hang = fault == "silent"
        endpoint.body = "{" if fault == "broken" else endpoint.body
        await until(lambda: measurements.latest("pod") is None)
        await until(lambda: endpoint.told == ["set", "set"])


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
        assert endpoint.most_open <= 4


async def test_json_is_kept_as_a_document() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        endpoint.body = '{"held": 2}'
        scraper.set_targets("set", [target(endpoint, format=Format.JSON)])
        await until(lambda: measurements.latest("pod"))
        latest = measurements.latest("pod")
        assert latest is not None
        assert latest.document == {"held": 2}


async def test_an_answer_without_end_is_not_read() -> None:
    async with scraping() as (endpoint, scraper, measurements):
        endpoint.body = "a_metric 1\n" * 500_000
        scraper.set_targets("set", [target(endpoint)])
        await until(lambda: endpoint.asked > 2)
        assert measurements.latest("pod") is None


def test_what_the_official_library_writes_is_read_back() -> None:
    registry = CollectorRegistry()
    Gauge("queue", "", ["path"], registry=registry).labels('a "b"\\c\nd').set(1.5)
    Counter("requests", "", registry=registry).inc(7)
    samples = parse_exposition(generate_latest(registry).decode())
    assert samples["queue"] == [Sample(labels={"path": 'a "b"\\c\nd'}, value=1.5)]
    assert samples["requests_total"][0].value == 7


def test_only_the_wanted_metrics_are_kept() -> None:
    text = '# HELP a x\na 1\nb{x="1"} 2 1700000000\na_bucket{le="+Inf"} 3\nc NaN\n'
    assert parse_exposition(text, {"b"}) == {"b": [Sample(labels={"x": "1"}, value=2)]}


@pytest.mark.parametrize("line", ["{", "a", 'a{b="c" 1', "a one"])
def test_a_broken_line_is_an_error(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        parse_exposition(line)


def test_a_thousand_pods_are_read_fast_enough() -> None:
    buckets = "\n".join(f'vllm:e2e_bucket{{le="{le}",model_name="m"}} {le}' for le in range(1000))
    text = f'vllm:num_requests_waiting{{model_name="m"}} 3\n{buckets}\n'
    started = time.perf_counter()
    for _ in range(100):
        parse_exposition(text, {"vllm:num_requests_waiting"})
    assert time.perf_counter() - started < 0.5


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
