"""A receiver of traces in the cluster: OTLP over HTTP, read with OpenTelemetry's own messages."""

from typing import Any

import httpx2

NAME = "traces"
SERVER = """
import gzip, http.server, json
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as Request
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse as Response
spans = {}
def told(resource, span):
    service = {one.key: one.value.string_value for one in resource.attributes}["service.name"]
    names = {one.key: one.value.string_value for one in span.attributes}
    return {"trace": span.trace_id.hex(), "parent": span.parent_span_id.hex(), "name": span.name,
            "service": service, "replica": names.get("flotilla.replica")}
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for part in Request.FromString(gzip.decompress(body)).resource_spans:
            for scope in part.scope_spans:
                spans.update({span.span_id.hex(): told(part.resource, span) for span in scope.spans})
        self.answer(Response().SerializeToString())
    def do_GET(self):
        self.answer(json.dumps(spans).encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Receiver).serve_forever()
"""


def whole_trace(receiver: httpx2.Client) -> list[dict[str, Any]]:
    """The spans that came, if they are one trace with one beginning, and none is below a missing one."""
    spans: dict[str, dict[str, Any]] = receiver.get("/").raise_for_status().json()
    beginnings = [span for span in spans.values() if not span["parent"]]
    orphans = [span for span in spans.values() if span["parent"] and span["parent"] not in spans]
    is_whole = len({span["trace"] for span in spans.values()}) == len(beginnings) == 1 and not orphans
    return list(spans.values()) if is_whole else []
