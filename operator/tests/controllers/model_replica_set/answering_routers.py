"""Routers' agents for tests on a real API server, where KWOK's router pods are only said to run.

Each router pod of a set gets a loopback address of its own at which a small server answers as the agent does:
drains are acknowledged as they stand on the engine pods, and load and answers are what the test says.
"""

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flotilla_runtime import contract
from tests.controllers.model_replica_set.stage import Stage
from tests.support.router_answers import RouterWords
from tests.support.waiting import eventually


class AnsweringRouters:
    """Answers of a set's routers: `busy` when every replica has a request in flight, `answers` with the
    number of answers and of 5xx among them by revision.
    """

    def __init__(self, stage: Stage, name: str = "llama") -> None:
        self.stage = stage
        self.busy = False
        self.answers: Mapping[str, tuple[int, int]] = {}
        self.asked = 0
        self._pods = f"/api/v1/namespaces/{stage.namespace}/pods"
        self._selector = f"labelSelector=flotilla.dev/owner={name},app.kubernetes.io/component="
        self._servers: dict[str, ThreadingHTTPServer] = {}

    def answer(self, count: int) -> None:
        """So many of the routers answer from now on, the others do not."""
        names = eventually(lambda: found if len(found := self._with_address()) >= count else None)
        for name in names[:count]:
            if name not in self._servers:
                self._serve(name)

    def status(self, router: str) -> contract.RouterStatus:
        """Answer of one of them."""
        self.asked += 1
        leaders = f"{self._selector}engine,{contract.LABEL_STAGE}=0"
        pods = self.stage.client.get(f"{self._pods}?{leaders}")["items"]
        return RouterWords(busy=self.busy, answers=self.answers).status(router, pods)

    def stop(self) -> None:
        """The end of all of them."""
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def _with_address(self) -> list[str]:
        pods = self.stage.client.get(f"{self._pods}?{self._selector}router")["items"]
        return sorted(pod["metadata"]["name"] for pod in pods if pod["status"].get("podIP"))

    def _serve(self, router: str) -> None:
        routers = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(routers.status(router).model_dump_json(by_alias=True).encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        address = "127." + ".".join(str(1 + secrets.randbelow(250)) for _ in range(3))
        server = ThreadingHTTPServer((address, contract.PORT_ROUTER_AGENT), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._servers[router] = server
        status = {"podIP": address, "podIPs": [{"ip": address}]}
        self.stage.client.merge(f"{self._pods}/{router}/status", {"status": status})


@contextmanager
def answering_routers(stage: Stage) -> Iterator[AnsweringRouters]:
    """Routers that end with the test."""
    routers = AnsweringRouters(stage)
    try:
        yield routers
    finally:
        routers.stop()
