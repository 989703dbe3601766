"""Set-up for the benchmarks on a real API server: a control plane with KWOK nodes, and the operator."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from local_cluster import definitions
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.kwok import create_nodes
from tests.support.processes import WHOLE, OperatorProcess, operator_process

NODES = "/api/v1/nodes"
WAITED_SECONDS = 300.0

Manifest = dict[str, Any]


@contextmanager
def control_plane(
    folder: Path, options: Options, *, nodes: Sequence[Manifest], namespace: str
) -> Iterator[ControlPlane]:
    """A control plane with definitions (default: ours), these nodes, all Ready, and the namespace."""
    with_kinds = replace(options, definitions=options.definitions or definitions.OURS)
    with ControlPlane(folder / "control-plane", with_kinds) as plane:
        create_nodes(plane.client, nodes)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        plane.client.create("/api/v1/namespaces", body)
        wait_for(lambda: all(map(_ready, plane.client.get(NODES)["items"])), "ready nodes")
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        wait_for(lambda: plane.client.exists(account), "the namespace's service account")
        yield plane


@contextmanager
def ready_operator(
    folder: Path, kubeconfig: Path, namespace: str, **config: Any
) -> Iterator[OperatorProcess]:
    """The operator for this namespace; at the end it is stopped, with time to release its lease."""
    with operator_process(folder, kubeconfig, module=WHOLE, watchNamespaces=[namespace], **config) as process:
        wait_for(lambda: process.get("health", "/readyz")[0] == 200, "a ready operator")
        yield process
        process.signal(signal.SIGTERM)
        process.ended()


def wait_for(
    holds: Callable[[], bool], what: str, *, seconds: float = WAITED_SECONDS, every_seconds: float = 0.5
) -> None:
    """Poll until `holds` returns true; seldom, because each poll is load on the API server."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(every_seconds)


def _ready(node: Manifest) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not (node["spec"].get("taints"))
