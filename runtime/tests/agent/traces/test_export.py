"""Spans whose receiver is away, slow, or no friend. Traces are in test_whole_traces.py."""

import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent_support.collector import Collector, collecting
from flotilla_runtime.agent.traces.counts import SpanEnd, spans_counter
from flotilla_runtime.agent.traces.export import Exporter, OtlpBatches
from flotilla_runtime.agent.traces.sdk import LONGEST_ATTRIBUTE
from flotilla_runtime.agent.traces.spans import Span
from flotilla_runtime.agent.traces.waiting import MOST_WAITING_BYTES, WaitingSpans
from flotilla_runtime.contract import TelemetryConfig
from leaks.finding import encodings_in
from leaks.planted import in_secret, planted
from router_support.waiting import until

BASIC = [f"Basic {in_secret(name)}" for name in ("one", "two")]
REGISTRY_NAME = "flotilla_worker_spans"


def span(number: int = 1, **fields: Any) -> Span:
    return Span(trace_id=1, span_id=number, above=None, name="a", began_at=1000, ended_at=2000, **fields)


def long_span(number: int, text: str = "x" * LONGEST_ATTRIBUTE) -> Span:
    return span(number, attributes={"gen_ai.input.messages": text, "gen_ai.output.messages": text})


class Sending:
    """An exporter with its counts."""

    def __init__(self, config: TelemetryConfig, within_seconds: float = 0.5, **settings: Any) -> None:
        self.registry = CollectorRegistry()
        self.exporter = Exporter(
            config,
            service="flotilla-worker",
            instance="w-0",
            ends=spans_counter(REGISTRY_NAME, self.registry),
            send=OtlpBatches(config, within_seconds),
            **{"every_seconds": 0.01, **settings},
        )
        self.exporter.start()

    def counts(self) -> dict[SpanEnd, float]:
        found = {
            end: self.registry.get_sample_value(f"{REGISTRY_NAME}_total", {"outcome": end}) for end in SpanEnd
        }
        return {end: count for end, count in found.items() if count}

    async def ended(self, **counts: int) -> None:
        wanted = {SpanEnd[name]: count for name, count in counts.items()}
        await until(lambda: self.counts() == wanted, seconds=10)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as receiver:
        yield receiver


def to(collector: Collector, **fields: Any) -> TelemetryConfig:
    return TelemetryConfig(endpoint=collector.url, **fields)


async def test_spans_are_sent_in_batches_with_the_name_of_the_part(collector: Collector) -> None:
    sending = Sending(to(collector))
    sending.exporter.give(span(number) for number in range(1, 1001))
    await sending.ended(SENT=1000)
    assert len(collector.by_id()) == 1000
    assert len(collector.paths) < 10
    first = collector.spans[0]
    assert (first.service, first.began_ms, first.ended_ms) == ("flotilla-worker", 1000, 2000)


@pytest.mark.holds(
    "observability.md", "No task waits for a receiver; what it does not take is dropped and counted"
)
@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({"status": 500}, id="it is broken"),
        pytest.param({"status": 503}, id="it is overloaded for longer than tries take"),
        pytest.param({"status": 401}, id="it wants a key"),
        pytest.param({"status": 302, "redirect": "http://127.0.0.1:9/"}, id="it sends them elsewhere"),
    ],
)
async def test_what_a_receiver_does_not_take_is_dropped_and_counted(
    answers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with collecting(Collector(**answers)) as collector:
        sending = Sending(to(collector))
        for number in range(1, 4):
            sending.exporter.give([span(number)])
            await sending.ended(NOT_TAKEN=number)
        collector.status = 200
        sending.exporter.give([span(9)])
        await sending.ended(NOT_TAKEN=3, SENT=1)
    assert capsys.readouterr().out.count("traces_not_sent") == 1, "said once, until one is taken"


@pytest.mark.holds(
    "observability.md", "No task waits for a receiver; what it does not take is dropped and counted"
)
async def test_nobody_listens() -> None:
    sending = Sending(TelemetryConfig(endpoint="http://127.0.0.1:9"), within_seconds=0.2)
    began = time.monotonic()
    sending.exporter.give([span()])
    assert time.monotonic() - began < 10
    await sending.ended(NOT_TAKEN=1)


@pytest.mark.holds(
    "observability.md", "No task waits for a receiver; what it does not take is dropped and counted"
)
async def test_a_slow_receiver_keeps_nobody_waiting_and_fills_no_memory(collector: Collector) -> None:
    collector.release.clear()
    sending = Sending(to(collector), within_seconds=20, waiting=WaitingSpans(most=10))
    sending.exporter.give([span(1)])
    await until(lambda: bool(collector.paths), seconds=10)
    began = time.monotonic()
    for number in range(2, 1002):
        sending.exporter.give([span(number)])
    assert time.monotonic() - began < 10
    assert sending.counts() == {SpanEnd.QUEUE_FULL: 990}
    began = time.monotonic()
    sending.exporter.stop(within_seconds=0.1)
    assert time.monotonic() - began < 10, "a process ends although its receiver does not answer"
    collector.release.set()


@pytest.mark.holds(
    "observability.md",
    "At most 8,192 spans and 32 MiB of their texts wait for a receiver, and a batch is not too "
    "large for a Collector",
)
@pytest.mark.attack("A receiver of traces with their content does not answer")
@pytest.mark.parametrize(
    ("text", "most"),
    [
        pytest.param("x" * LONGEST_ATTRIBUTE, 255, id="a byte for each character"),
        pytest.param("\N{EURO SIGN}" + "x" * LONGEST_ATTRIBUTE, 127, id="two bytes for each"),
        pytest.param("\N{ROCKET}" + "x" * LONGEST_ATTRIBUTE, 63, id="four bytes for each"),
    ],
)
async def test_long_texts_that_wait_fill_no_memory(collector: Collector, text: str, most: int) -> None:
    collector.release.clear()
    sending = Sending(to(collector, content=True), within_seconds=20)
    sending.exporter.give([span(1)])
    await until(lambda: bool(collector.paths), seconds=10)
    tracemalloc.start()
    for number in range(2, 502):
        sending.exporter.give([long_span(number, f"{number} {text}")])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sending.counts() == {SpanEnd.QUEUE_FULL: 500 - most}
    assert held < 1.1 * MOST_WAITING_BYTES
    collector.release.set()
    await sending.ended(SENT=1 + most, QUEUE_FULL=500 - most)


@pytest.mark.holds(
    "observability.md",
    "At most 8,192 spans and 32 MiB of their texts wait for a receiver, and a batch is not too "
    "large for a Collector",
)
@pytest.mark.parametrize(
    "character", ["x", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{EURO SIGN}", "\N{ROCKET}"]
)
async def test_no_batch_of_long_texts_is_too_large_for_a_collector(
    collector: Collector, character: str
) -> None:
    sending = Sending(to(collector), every_seconds=60)
    spans = MOST_WAITING_BYTES // (4 * sys.getsizeof(character * LONGEST_ATTRIBUTE))  # two batches or more
    for number in range(1, spans + 1):
        sending.exporter.give([long_span(number, character * LONGEST_ATTRIBUTE)])
    sending.exporter.stop(within_seconds=30)
    await sending.ended(SENT=spans)
    assert len(collector.lengths) > 1
    assert max(collector.lengths) < 10 * 1024 * 1024, "half of what OpenTelemetry's Collector takes"


@pytest.mark.holds(
    "observability.md",
    "At most 8,192 spans and 32 MiB of their texts wait for a receiver, and a batch is not too "
    "large for a Collector",
)
async def test_a_whole_batch_of_long_texts_does_not_wait_for_its_time(collector: Collector) -> None:
    sending = Sending(to(collector), every_seconds=60)
    sending.exporter.give(long_span(number) for number in range(1, 41))
    await until(lambda: bool(collector.spans), seconds=10)


@pytest.mark.holds("observability.md", "A text in a span is cut at 65,536 characters")
async def test_a_text_is_cut_and_nothing_logged(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    long = "x" * (LONGEST_ATTRIBUTE + 1)
    attributes = {"gen_ai.input.messages": long, "gen_ai.response.finish_reasons": ["stop", long]}
    sending = Sending(to(collector))
    sending.exporter.give([span(attributes=attributes, error="Failed", problem=long)])
    await sending.ended(SENT=1)
    (came,) = collector.spans
    assert came.attributes["gen_ai.input.messages"] == came.problem == long[:-1]
    assert came.attributes["gen_ai.response.finish_reasons"] == ["stop", long[:-1]]
    assert [record for record in caplog.records if record.name.startswith("opentelemetry.attributes")] == []


async def test_what_waits_is_sent_when_the_process_ends(collector: Collector) -> None:
    sending = Sending(to(collector), every_seconds=60)
    sending.exporter.give([span()])
    sending.exporter.stop()
    assert len(collector.spans) == 1


@pytest.mark.attack("A receiver of traces sends an answer without an end, or a redirect")
async def test_an_answer_is_not_read_and_no_redirect_followed(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / "authorization").write_text(f"Basic {in_secret('receiver')}")
    with collecting() as elsewhere:
        collector.drips = True
        sending = Sending(to(collector, headers_directory=str(tmp_path)))
        sending.exporter.give([span()])
        await sending.ended(SENT=1)
        collector.drips, collector.status, collector.redirect = False, 307, f"{elsewhere.url}/v1/traces"
        sending.exporter.give([span(2)])
        await sending.ended(SENT=1, NOT_TAKEN=1)
        assert elsewhere.paths == []


@pytest.mark.holds(
    "observability.md",
    "The Secret with headers goes only where `flotilla.dev/send-to` says, is read anew, and is in no log",
)
async def test_headers_are_those_that_the_secret_has_now(collector: Collector, tmp_path: Path) -> None:
    sending = Sending(to(collector, headers_directory=str(tmp_path)))
    for number, value in enumerate(BASIC, 1):
        (tmp_path / "authorization").write_text(f"{value}\n")
        sending.exporter.give([span(number)])
        await sending.ended(SENT=number)
    assert [one["authorization"] for one in collector.headers] == BASIC
    (tmp_path / "authorization").write_text("two\nlines")
    sending.exporter.give([span(3)])
    await sending.ended(SENT=2, NOT_TAKEN=1)


@pytest.mark.holds(
    "observability.md",
    "The Secret with headers goes only where `flotilla.dev/send-to` says, is read anew, and is in no log",
)
async def test_a_secret_is_in_no_log(
    collector: Collector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.status = 401
    (tmp_path / "authorization").write_text(f"Basic {in_secret('receiver')}")
    sending = Sending(to(collector, headers_directory=str(tmp_path)))
    sending.exporter.give([span()])
    await sending.ended(NOT_TAKEN=1)
    (tmp_path / "authorization").write_text(f"{in_secret('receiver')}\n{planted('receiver')}")
    sending.exporter.give([span(2)])
    await sending.ended(NOT_TAKEN=2)
    shown = capsys.readouterr()
    assert encodings_in((shown.out + shown.err).encode()) == set()
