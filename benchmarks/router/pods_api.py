"""The part of an API server that the router's agent uses: a list of pods that never changes."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from flotilla_runtime import contract

BETWEEN_BOOKMARKS_SECONDS = 20.0
ENGINE_LABELS = {"app": "engine"}
ROUTER_LABELS = {"app": "router"}

Pod = dict[str, Any]


def engine_pod(name: str, server_id: int, ip: str) -> Pod:
    """A replica that serves."""
    return _pod(name, ENGINE_LABELS, ip, {contract.ANNOTATION_SERVER_ID: str(server_id)})


def router_pod(name: str) -> Pod:
    """A router that serves."""
    return _pod(name, ROUTER_LABELS, "127.0.0.1", {})


@contextmanager
def pods_api(pods: Sequence[Pod]) -> Iterator[str]:
    """Serve lists and watches of these pods; yields the server's URL."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if "watch" in query:
                self._watch()
            else:
                self._say({"metadata": {"resourceVersion": "1"}, "items": _selected(pods, query)})

        def _watch(self) -> None:
            while not over.wait(BETWEEN_BOOKMARKS_SECONDS):
                self._say({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}})

        def _say(self, answer: Mapping[str, Any]) -> None:
            self.wfile.write(json.dumps(answer).encode() + b"\n")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def _selected(pods: Sequence[Pod], query: Mapping[str, Sequence[str]]) -> list[Pod]:
    wanted = dict(term.split("=", 1) for term in query["labelSelector"][0].split(","))
    return [pod for pod in pods if wanted.items() <= pod["metadata"]["labels"].items()]


def _pod(name: str, labels: Mapping[str, str], ip: str, annotations: Mapping[str, str]) -> Pod:
    metadata = {
        "name": name,
        "labels": {**labels, contract.LABEL_GROUP: name},
        "annotations": annotations,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "resourceVersion": "1",
    }
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": metadata, "status": {"phase": "Running", "podIP": ip, "conditions": ready}}
