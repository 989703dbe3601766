"""An operator for one of the three kinds or for all, on a real API server, and what it works on."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import gpu_node
from tests.support.processes import OperatorProcess, operator_process

VOLUMES = "/api/v1/persistentvolumes"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/flotilla-operator"
QUICK = "tests.support.quick_operator"
# What a test waits for: figures in a status, and the deadline until which a pod must be bound.
STATUS_INTERVAL_SECONDS = 1
BIND_TIMEOUT_SECONDS = 10
QUICK_CONFIG: Mapping[str, Any] = {
    "modelCache": {"nodePaths": ["/srv/models"]},
    "loop": {"statusIntervalSeconds": STATUS_INTERVAL_SECONDS},
    "placement": {"bindTimeoutSeconds": BIND_TIMEOUT_SECONDS},
}


@contextmanager
def kwok_node(plane: ControlPlane, name: str, *, gpus: int) -> Iterator[None]:
    """A node whose pods KWOK runs."""
    plane.client.create("/api/v1/nodes", gpu_node(name, gpus=gpus))
    try:
        yield
    finally:
        plane.client.delete(f"/api/v1/nodes/{name}")


@contextmanager
def kinds_operator(
    plane: ControlPlane, folder: Path, *kinds: str, **config: Any
) -> Iterator[OperatorProcess]:
    """An operator with the controllers of these kinds; its lease goes with it."""
    environment = {"KINDS": ",".join(kinds)}
    try:
        with operator_process(
            folder, plane.kubeconfig, module=QUICK, environment=environment, **config
        ) as made:
            yield made
    finally:
        forget_leader(plane)


def forget_leader(plane: ControlPlane) -> None:
    """Delete the lease of an operator that was killed: the next one need not wait until it expires."""
    plane.client.delete(LEASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An operator, and the GPUs of the node beside it, for pods that ask for no node of their own."""

    kinds: tuple[str, ...]
    node_gpus: int | None
    config: Mapping[str, Any]


class Operators:
    """The operator at work in a control plane, one at a time, shared by the tests that want the same one.

    Two at once would write the same objects.
    """

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane = plane
        self._folder = folder
        self._at_work: tuple[Wanted, OperatorProcess] | None = None
        self._ends = ExitStack()

    def of(self, *kinds: str, node_gpus: int | None = None, **config: Any) -> OperatorProcess:
        """The operator with these controllers; it is started unless it is at work already."""
        wanted = Wanted(kinds=kinds, node_gpus=node_gpus, config={**QUICK_CONFIG, **config})
        if self._at_work is None or self._at_work[0] != wanted or not self._at_work[1].running:
            self.end()
            self._at_work = wanted, self._start(wanted)
        return self._at_work[1]

    def end(self) -> None:
        """End the operator that is at work, if there is one."""
        self._ends.close()
        self._at_work = None

    def _start(self, wanted: Wanted) -> OperatorProcess:
        if wanted.node_gpus is not None:
            self._ends.enter_context(kwok_node(self._plane, "beside-the-operator", gpus=wanted.node_gpus))
        return self._ends.enter_context(
            kinds_operator(self._plane, self._folder, *wanted.kinds, **wanted.config)
        )


def enforce_restricted(plane: ControlPlane, namespace: str) -> None:
    """From now on the namespace takes restricted pods only."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.client.merge(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": labels}})


@contextmanager
def no_failures(operator: OperatorProcess) -> Iterator[None]:
    """Meanwhile the operator goes on and logs no error of ours."""
    began = len(operator.log())
    yield
    assert operator.running, operator.log()
    assert operator.failures(since=began) == []


def create_volume_for(plane: ControlPlane, namespace: str, claim: str, *, name: str) -> str:
    """A volume of 10 GiB, of no class that could grow it, for one claim; returns its path."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "10Gi"},
        "hostPath": {"path": "/tmp"},
        "claimRef": {"namespace": namespace, "name": claim},
    }
    body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
    plane.client.create(VOLUMES, body)
    return f"{VOLUMES}/{name}"
