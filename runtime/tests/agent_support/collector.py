"""A receiver of OTLP over HTTP, of OpenTelemetry's own messages. It can be slow, refuse, and never end."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A span as it came, with its ids in hexadecimals; `parent` is empty for a trace's first."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    began_ms: int
    ended_ms: int
    attributes: dict[str, Any]
    service: str
    failed: bool
    problem: str


@dataclass(slots=True)
class Collector:
    """The spans that came. `status` is the answer, after `release` is set; `body` has no end if it `drips`.

    `lengths` are those of the requests that were taken, in bytes.
    """

    status: int = 200
    drips: bool = False
    redirect: str | None = None
    spans: list[Received] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.release.set()

    def by_id(self) -> dict[str, Received]:
        """The spans; one that came twice must have come the same."""
        found: dict[str, Received] = {}
        for span in self.spans:
            assert found.setdefault(span.id, span) == span
        return found

    def check_whole(self) -> dict[str, Received]:
        """One trace with one beginning, in which every span is below one that came too."""
        spans = self.by_id()
        assert len({span.trace for span in spans.values()}) == 1
        orphans = [span.name for span in spans.values() if span.parent and span.parent not in spans]
        assert not orphans, orphans
        assert len([span for span in spans.values() if not span.parent]) == 1
        return spans

    def take(self, body: bytes) -> None:
        self.lengths.append(len(body))
        request = ExportTraceServiceRequest.FromString(body)
        for of_resource in request.resource_spans:
            resource = {one.key: _value(one.value) for one in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                self.spans += [_received(span, str(resource["service.name"])) for span in of_scope.spans]


@contextmanager
def collecting(given: Collector | None = None) -> Iterator[Collector]:
    """A receiver at a port of its own."""
    collector = given or Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.paths.append(self.path)
            collector.headers.append({name.lower(): value for name, value in self.headers.items()})
            collector.release.wait(30)
            if collector.status == 200:
                collector.take(gzip.decompress(body))
            self._answer()

        def _answer(self) -> None:
            self.send_response(collector.status)
            if collector.redirect is not None:
                self.send_header("Location", collector.redirect)
            answer = ExportTraceServiceResponse().SerializeToString()
            if not collector.drips:
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                return
            self.send_header("Content-Length", str(2**40))
            self.end_headers()
            while True:
                self.wfile.write(b"x" * 2**16)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a client that has gone

    with Server(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.release.set()
            server.shutdown()


def _received(span: Span, service: str) -> Received:
    return Received(
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        began_ms=span.start_time_unix_nano // 10**6,
        ended_ms=span.end_time_unix_nano // 10**6,
        attributes={one.key: _value(one.value) for one in span.attributes},
        service=service,
        failed=span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
        problem=span.status.message,
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return None if kind is None else getattr(value, kind)
