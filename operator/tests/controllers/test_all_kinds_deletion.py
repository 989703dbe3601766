"""Deleting everything while a Milvus of somebody else's accepts connections and never answers.

The whole operator on a real API server with its controllers; KWOK plays the kubelet.
"""

import socket
import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import yaml

from local_cluster.control_plane import ControlPlane
from local_cluster.pytest_plugin import create_namespace
from tests.builders.api_objects import changed, smallest
from tests.support.kinds import whole_operator
from tests.support.processes import OperatorProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

NAMESPACE_GONE_WITHIN_SECONDS = 60
CHILDREN = "pods,jobs,deployments,replicasets,statefulsets,services,configmaps,secrets,pdb,networkpolicies"
OBJECTS = ("modelreplicaset/m", "vectorindex/i", "agentfleet/f")


@pytest.fixture(scope="module")
def operator(
    running_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    with whole_operator(running_control_plane, folder, "all-kinds-deletion", gpus=8) as process:
        yield process


@pytest.fixture
def silent_milvus() -> Iterator[str]:
    """Where connections are accepted, held and never answered."""
    server = socket.create_server(("127.0.0.1", 0))
    held = []

    def accept() -> None:
        while True:
            try:
                held.append(server.accept()[0])
            except OSError:
                return

    thread = Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    assert held, "the operator never asked, so nothing was shown"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    for connection in held:
        connection.close()


def objects(namespace: str, milvus: str) -> list[dict[str, Any]]:
    """One of each kind, with what they name; the index owes its data's removal to a Milvus of another's."""
    config_map = {"metadata": {"name": "pages", "namespace": namespace}, "data": {"a.md": "# A"}}
    accelerator = {"resource": "nvidia.com/gpu"}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", **config_map},
        changed(
            smallest("ModelReplicaSet", name="m", namespace=namespace),
            spec__model__source="hf://meta/llama",
            spec__replicas=2,
            spec__accelerator=accelerator,
        ),
        changed(
            smallest("VectorIndex", name="i", namespace=namespace),
            spec__source__path="configmap://pages",
            spec__embedding__modelRef__name="m",
            spec__milvus={"mode": "External", "uri": milvus},
            spec__retention={"deletionPolicy": "Delete"},
        ),
        smallest("AgentFleet", name="f", namespace=namespace),
    ]


@pytest.fixture
def filled(running_control_plane: ControlPlane, operator: OperatorProcess, silent_milvus: str) -> str:
    """A namespace in which all three kinds have their objects."""
    plane = running_control_plane
    namespace = create_namespace(plane)
    manifests = yaml.safe_dump_all(objects(namespace, silent_milvus))
    plane.kubectl("apply", "-f=-", manifest=manifests)

    def filled_out() -> bool:
        """every kind has its children, and the index its finalizer"""
        names = plane.kubectl("get", f"{CHILDREN}", f"-n={namespace}", "-o=name").split()
        wanted = ("pod/m-", "deployment.apps/m-", "deployment.apps/f-", "statefulset.apps/f-", "service/i-")
        index = plane.client.get(f"/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/vectorindexes/i")
        return bool(index["metadata"].get("finalizers")) and all(
            any(name.startswith(prefix) for name in names) for prefix in wanted
        )

    eventually(filled_out)
    return namespace


def test_a_namespace_with_all_kinds_ends_in_a_minute(
    running_control_plane: ControlPlane, operator: OperatorProcess, filled: str
) -> None:
    began, log_before = time.monotonic(), len(operator.log())
    running_control_plane.kubectl(
        "delete", "namespace", filled, f"--timeout={NAMESPACE_GONE_WITHIN_SECONDS}s"
    )
    assert time.monotonic() - began < NAMESPACE_GONE_WITHIN_SECONDS
    assert operator.running
    assert operator.failures(since=log_before) == []


def test_each_kind_goes_with_foreground_deletion_and_its_children_before_it(
    running_control_plane: ControlPlane, operator: OperatorProcess, filled: str
) -> None:
    plane = running_control_plane
    for name in OBJECTS:
        plane.kubectl("delete", name, f"-n={filled}", "--cascade=foreground", "--timeout=180s")
        label = f"flotilla.dev/owner={name.partition('/')[2]}"
        left = plane.kubectl("get", CHILDREN, f"-n={filled}", f"-l={label}", "-o=name").split()
        assert left == [], f"left of {name}"
    assert operator.running
    plane.client.delete(f"/api/v1/namespaces/{filled}")
