"""What the benchmarks on a real API server stand on: KWOK nodes, a namespace, the operator, and waiting."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_cluster.control_plane import ControlPlane, Options
from local_cluster.kwok import create_nodes
from tests.support.kinds import install_kinds
from tests.support.processes import WHOLE, OperatorProcess, operator_process

NODES = "/api/v1/nodes"
WAITED_SECONDS = 300.0

Manifest = dict[str, Any]


@contextmanager
def control_plane(
    folder: Path, options: Options, *, nodes: Sequence[Manifest], namespace: str
) -> Iterator[ControlPlane]:
    """A control plane with our kinds, these nodes, all of them ready, and the namespace."""
    with ControlPlane(folder / "control-plane", options) as plane:
        create_nodes(plane.client, nodes)
        install_kinds(plane)
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        plane.client.create("/api/v1/namespaces", body)
        wait_for(lambda: all(map(_ready, plane.client.get(NODES)["items"])), "ready nodes")
        account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
        wait_for(lambda: plane.client.exists(account), "the namespace's service account")
        yield plane


@contextmanager
def ready_operator(folder: Path, kubeconfig: Path, namespace: str) -> Iterator[OperatorProcess]:
    """The whole operator for this namespace, ready to lead; in the end it may give its lease back."""
    with operator_process(folder, kubeconfig, module=WHOLE, watchNamespaces=[namespace]) as process:
        wait_for(lambda: process.get("health", "/readyz")[0] == 200, "a ready operator")
        yield process
        process.signal(signal.SIGTERM)
        process.ended()


def wait_for(
    holds: Callable[[], bool], what: str, *, seconds: float = WAITED_SECONDS, every_seconds: float = 0.5
) -> None:
    """Until it holds; asks seldom, because each question costs the API server something."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every_seconds)


def _ready(node: Manifest) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not (node["spec"].get("taints"))
