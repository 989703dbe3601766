"""Sends spans to a receiver of OTLP. No task waits for it, whatever it does.

Spans go into a queue with limits; what finds it full is dropped and counted. A thread of its own takes them
out in batches and sends them with OpenTelemetry's exporter, which tries again for some seconds what may pass.
A batch that is not taken is dropped and counted too: after a long outage the spans of now are worth more than
those of then.

The headers are read for each batch, because a new secret replaces the files' content. An answer is not read:
only its status counts, so one that never ends costs nothing. No redirect is followed, since it would take the
headers elsewhere.
"""

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from prometheus_client import Counter

from flotilla_runtime.agent.tools.header_files import HeaderError, read_headers
from flotilla_runtime.agent.traces.counts import SpanEnd
from flotilla_runtime.agent.traces.ids import is_sampled
from flotilla_runtime.agent.traces.sdk import SpanMaker
from flotilla_runtime.agent.traces.spans import Span
from flotilla_runtime.agent.traces.waiting import WaitingSpans
from flotilla_runtime.contract import TelemetryConfig

BATCH_EVERY_SECONDS: Final = 1.0
ANSWERED_WITHIN_SECONDS: Final = 10.0  # all tries of a batch
LAST_BATCHES_WITHIN_SECONDS: Final = 5.0  # of a process that ends

log = structlog.get_logger(__name__)


class Batches(Protocol):
    """Sends a batch of spans; whether it was taken."""

    def __call__(self, spans: list[ReadableSpan]) -> bool:
        """Send them, in a thread of the exporter's."""


class HeadersOnly(requests.Session):
    """A session that reads no body of an answer, so none can be too long or too slow."""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; its answer has a status and headers alone."""
        response = super().request(*args, **{**kwargs, "stream": True})
        response.close()
        if response.is_redirect:
            raise requests.TooManyRedirects("no redirect is followed")
        response._content = b""
        return response


class OtlpBatches:
    """Sends batches over HTTP, with the headers that the files have now."""

    def __init__(self, config: TelemetryConfig, within_seconds: float = ANSWERED_WITHIN_SECONDS) -> None:
        self._config = config
        self._within = within_seconds
        self._headers: Mapping[str, str] | None = None
        self._exporter: OTLPSpanExporter | None = None

    def __call__(self, spans: list[ReadableSpan]) -> bool:
        """Send a batch; whether it was taken."""
        return self._current().export(spans) is SpanExportResult.SUCCESS

    def _current(self) -> OTLPSpanExporter:
        directory = self._config.headers_directory
        headers = {} if directory is None else read_headers(directory)
        if self._exporter is None or headers != self._headers:
            self._headers = headers
            self._exporter = OTLPSpanExporter(
                endpoint=f"{self._config.endpoint.rstrip('/')}/v1/traces",
                headers=headers,
                timeout=self._within,
                compression=Compression.Gzip,
                session=HeadersOnly(),
            )
        return self._exporter


class Exporter:
    """The spans of a process that wait to be sent, and the thread that sends them."""

    def __init__(
        self,
        config: TelemetryConfig,
        *,
        service: str,
        instance: str,
        ends: Counter,
        send: Batches,
        waiting: WaitingSpans | None = None,
        every_seconds: float = BATCH_EVERY_SECONDS,
    ) -> None:
        self.config: Final = config
        self._ends = ends
        self._send = send
        self._every = every_seconds
        self._waiting = waiting or WaitingSpans()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._maker = SpanMaker(Resource.create({SERVICE_NAME: service, SERVICE_INSTANCE_ID: instance}))
        self._is_away = False
        # A daemon, so that a receiver which never answers keeps no process from its end.
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, within_seconds: float = LAST_BATCHES_WITHIN_SECONDS) -> None:
        """Send what waits, for at most this time. It blocks."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(within_seconds)

    def samples(self, trace_id: int) -> bool:
        """Whether the spans of this trace are sent."""
        return is_sampled(trace_id, self.config.sample_percent)

    def give(self, spans: Iterable[Span]) -> None:
        """Have spans sent, those of traces that are sampled. Never waits, never raises."""
        try:
            for span in spans:
                if self.samples(span.trace_id):
                    self._put(self._maker.made(span))
        except Exception:
            log.exception("span_not_made")

    def _put(self, span: ReadableSpan) -> None:
        if not self._waiting.put(span):
            self._ends.labels(SpanEnd.QUEUE_FULL).inc()
        if self._waiting.has_batch():
            self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._every)
            self._wake.clear()
            self._send_waiting()

    def _send_waiting(self) -> None:
        while batch := self._waiting.next_batch():
            problem = self._problem_with(batch)
            self._ends.labels(SpanEnd.SENT if problem is None else SpanEnd.NOT_TAKEN).inc(len(batch))
            if problem is not None and not self._is_away:  # said once, until one is taken again
                log.warning("traces_not_sent", endpoint=self.config.endpoint, problem=problem)
            self._is_away = problem is not None

    def _problem_with(self, batch: list[ReadableSpan]) -> str | None:
        """Why a batch was not taken; None if it was."""
        try:
            return None if self._send(batch) else "no answer, or one that refuses them"
        except HeaderError as problem:
            return str(problem)
        except Exception as problem:
            return type(problem).__name__


def exporter_of(config: TelemetryConfig, ends: Counter, *, service: str, instance: str) -> Exporter:
    """The exporter of a process, at work."""
    exporter = Exporter(config, service=service, instance=instance, ends=ends, send=OtlpBatches(config))
    exporter.start()
    return exporter
