"""A set at zero on a real API server: a router that reports a held request wakes it, idleness puts it back.

KWOK gives the router pod an address that nothing answers at, so the test gives it one of its own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flotilla_runtime import contract
from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import gpu_node
from tests.support.kinds import kind_operator
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


@contextmanager
def node_of_its_own(plane: ControlPlane, namespace: str) -> Iterator[None]:
    name = f"a-{namespace}"
    plane.client.create("/api/v1/nodes", gpu_node(name, labels={"stage": namespace}))
    try:
        yield
    finally:
        plane.client.delete(f"/api/v1/nodes/{name}")


def test_a_held_request_wakes_the_set_and_idleness_puts_it_back(
    running_control_plane: ControlPlane,
    running_namespace: str,
    tmp_path_factory: pytest.TempPathFactory,
    agent: Agent,
) -> None:
    client, namespace = running_control_plane.client, running_namespace
    sets = f"/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/modelreplicasets"
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def pods_of(component: str) -> list[dict[str, Any]]:
        query = f"labelSelector=flotilla.dev/owner=sleeper,app.kubernetes.io/component={component}"
        found: list[dict[str, Any]] = client.get(f"{pods}?{query}")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def status() -> dict[str, Any]:
        found: dict[str, Any] = client.get(f"{sets}/sleeper").get("status") or {}
        return found

    with (
        kind_operator(running_control_plane, tmp_path_factory.mktemp("operator"), "ModelReplicaSet"),
        node_of_its_own(running_control_plane, namespace),
    ):
        spec = {
            "model": {"name": "llama", "source": "hf://meta/llama"},
            "placement": {"nodeSelector": {"stage": namespace}},
            "replicas": 2,
            "autoscaling": {"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 2},
            "router": {"replicas": 1},
            "drain": {"deadlineSeconds": 1},
        }
        kind = {"apiVersion": "flotilla.dev/v1alpha1", "kind": "ModelReplicaSet"}
        client.create(sets, {**kind, "metadata": {"name": "sleeper"}, "spec": spec})
        eventually(lambda: any(pod["status"].get("podIP") for pod in pods_of("router")))
        router = pods_of("router")[0]["metadata"]["name"]
        client.merge(f"{pods}/{router}/status", {"status": {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}})
        eventually(
            lambda: (
                status().get("ready") == "0/0"
                and (status().get("autoscaling") or {}).get("mode") == "NoRequest"
            )
        )
        assert pods_of("engine") == []

        agent.held = 1
        eventually(lambda: len(pods_of("engine")) == 1)
        agent.held = 0
        eventually(lambda: status().get("ready") == "1/1")

        agent.idle_seconds = 99
        eventually(lambda: pods_of("engine") == [])
        eventually(lambda: status().get("ready") == "0/0")
        decisions = status()["autoscaling"]["lastDecisions"]
        assert [(entry["from"], entry["to"]) for entry in decisions] == [(0, 1), (1, 0)]
