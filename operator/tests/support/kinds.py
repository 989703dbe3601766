"""The three kinds on a real API server, and an operator for one of them or for all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import gpu_node
from tests.support.processes import PATIENT_LEADER, ROOT, WHOLE, OperatorProcess, operator_process

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
VOLUMES = "/api/v1/persistentvolumes"
ONE_KIND = "tests.support.kind_operator"
ESTABLISHED_WITHIN_SECONDS = 180


def install_kinds(plane: ControlPlane) -> None:
    """Apply crds/ and wait until the API server serves the kinds."""
    paths = sorted((ROOT / "crds").glob("*.yaml"))
    for path in paths:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
        plane.client.apply(f"{CRD_PATH}/{manifest['metadata']['name']}", manifest)
    plane.kubectl(
        "wait",
        "--for=condition=Established",
        f"--timeout={ESTABLISHED_WITHIN_SECONDS}s",
        *(f"crd/{path.stem.split('_')[1]}.flotilla.dev" for path in paths),
    )


@contextmanager
def kwok_node(plane: ControlPlane, name: str, *, gpus: int) -> Iterator[None]:
    """A node whose pods KWOK runs."""
    plane.client.create("/api/v1/nodes", gpu_node(name, gpus=gpus))
    try:
        yield
    finally:
        plane.client.delete(f"/api/v1/nodes/{name}")


@contextmanager
def kind_operator(plane: ControlPlane, folder: Path, kind: str) -> Iterator[OperatorProcess]:
    """An operator with one kind's controller alone.

    Each operator has a lease of its own: it ends by SIGKILL and so keeps its lease for a while, and the next
    module's must not wait for that.
    """
    install_kinds(plane)
    leader = {**PATIENT_LEADER, "leaseName": kind.lower()}
    with operator_process(
        folder, plane.kubeconfig, module=ONE_KIND, leader=leader, environment={"KIND": kind}
    ) as process:
        yield process


@contextmanager
def whole_operator(
    plane: ControlPlane, folder: Path, name: str, *, gpus: int = 0, **config: Any
) -> Iterator[OperatorProcess]:
    """The operator as it ships, beside a node whose pods KWOK runs; both are called after `name`."""
    install_kinds(plane)
    leader = {**PATIENT_LEADER, "leaseName": name}
    with (
        kwok_node(plane, f"{name}-node", gpus=gpus),
        operator_process(folder, plane.kubeconfig, module=WHOLE, leader=leader, **config) as process,
    ):
        yield process


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
