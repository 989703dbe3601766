"""A set at zero on a real API server: a router that reports a held request wakes it, idleness puts it back.

KWOK gives the router pod an address that nothing answers at, so the test gives it one of its own.
"""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flotilla_runtime import contract
from tests.controllers.model_replica_set.stage import Stage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

ADDRESS = "127.0.0.77"


class Agent(ThreadingHTTPServer):
    """Answers as a router's agent does, with what the test set."""

    held = 0
    idle_seconds = 0.0

    @property
    def status(self) -> contract.RouterStatus:
        return contract.RouterStatus(
            name="sleeper",
            synced=True,
            draining=False,
            live_routers=1,
            waiting=0,
            held=self.held,
            in_flight=0,
            idle_seconds=self.idle_seconds,
            max_connections_per_replica=9,
            queue_limit=9,
            servers=(),
            refused={},
            unusable={},
        )


class Handler(BaseHTTPRequestHandler):
    server: Agent

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.status.model_dump_json(by_alias=True).encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def agent() -> Iterator[Agent]:
    server = Agent((ADDRESS, contract.PORT_ROUTER_AGENT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.holds("router.md", "A held request starts a replica, which answers it")
@pytest.mark.holds("router.md", "The replica goes when nothing was to do for `scaleToZeroAfterSeconds`")
def test_a_held_request_wakes_the_set_and_idleness_puts_it_back(stage: Stage, agent: Agent) -> None:
    pods = f"/api/v1/namespaces/{stage.namespace}/pods"

    def routers() -> list[dict[str, Any]]:
        query = "labelSelector=flotilla.dev/owner=llama,app.kubernetes.io/component=router"
        return [pod for pod in stage.client.get(f"{pods}?{query}")["items"] if pod["status"].get("podIP")]

    def status() -> dict[str, Any]:
        return stage.get().get("status") or {}

    stage.node("a")
    stage.create(autoscaling={"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 2})
    router = eventually(routers)[0]["metadata"]["name"]
    address = {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}
    stage.client.merge(f"{pods}/{router}/status", {"status": address})
    eventually(
        lambda: (
            status().get("ready") == "0/0" and (status().get("autoscaling") or {}).get("mode") == "NoRequest"
        )
    )
    assert stage.pods() == []

    agent.held = 1
    eventually(lambda: len(stage.pods()) == 1)
    agent.held = 0
    eventually(lambda: status().get("ready") == "1/1")

    agent.idle_seconds = 99
    eventually(lambda: stage.pods() == [])
    eventually(lambda: status().get("ready") == "0/0")
    decisions = status()["autoscaling"]["lastDecisions"]
    assert [(entry["from"], entry["to"]) for entry in decisions] == [(0, 1), (1, 0)]
