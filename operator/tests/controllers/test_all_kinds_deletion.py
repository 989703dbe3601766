"""Deleting everything while a Milvus of somebody else's accepts connections and never answers.

The whole operator on a real API server with its controllers; KWOK plays the kubelet.
"""

import socket
import time
from collections.abc import Iterator
from functools import partial
from threading import Thread
from typing import Any

import pytest
import yaml

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    MODEL_REPLICA_SETS,
    NETWORK_POLICIES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    VECTOR_INDEXES,
    Resource,
)
from local_cluster.control_plane import ControlPlane
from local_cluster.pytest_plugin import create_namespace
from tests.builders.api_objects import changed, smallest
from tests.support.children import names
from tests.support.processes import OperatorProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

NAMESPACE_GONE_WITHIN_SECONDS = 60
REPLICA_SETS = Resource(group="apps", version="v1", plural="replicasets", kind="ReplicaSet")
CHILDREN = (
    PODS,
    JOBS,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    SERVICES,
    CONFIG_MAPS,
    SECRETS,
    POD_DISRUPTION_BUDGETS,
    NETWORK_POLICIES,
)
OBJECTS = {MODEL_REPLICA_SETS: "m", VECTOR_INDEXES: "i", AGENT_FLEETS: "f"}


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


def filled(plane: ControlPlane, silent_milvus: str) -> str:
    """A namespace in which all three kinds have their objects and these their children."""
    namespace = create_namespace(plane)
    plane.kubectl("apply", "-f=-", manifest=yaml.safe_dump_all(objects(namespace, silent_milvus)))
    wanted = ("pods/m-", "deployments/m-", "deployments/f-", "statefulsets/f-", "services/i-")

    def filled_out() -> bool:
        """every kind has its children, and the index its finalizer"""
        found = names(plane.client, namespace, CHILDREN)
        index = plane.client.get(f"{VECTOR_INDEXES.path(namespace)}/i")
        return bool(index["metadata"].get("finalizers")) and all(
            any(name.startswith(prefix) for name in found) for prefix in wanted
        )

    eventually(filled_out)
    return namespace


@pytest.mark.holds("performance.md", "A namespace with all kinds ends within seconds")
def test_a_namespace_ends_in_a_minute_and_objects_go_after_their_children(
    running_control_plane: ControlPlane, operator_of_all: OperatorProcess, silent_milvus: str
) -> None:
    """Two namespaces at once, since both wait for the Milvus that never answers."""
    plane, log_before = running_control_plane, len(operator_of_all.log())
    leaving, staying = filled(plane, silent_milvus), filled(plane, silent_milvus)
    held = [path for name in OBJECTS.values() for path in services(plane, staying, name)]
    assert len(held) >= len(OBJECTS)
    hold(plane, held, ["example.com/held"])
    began = time.monotonic()
    plane.client.delete(f"/api/v1/namespaces/{leaving}")
    for resource, name in OBJECTS.items():
        plane.client.delete(f"{resource.path(staying, name)}?propagationPolicy=Foreground")

    eventually(lambda: not plane.client.exists(f"/api/v1/namespaces/{leaving}"))
    assert time.monotonic() - began < NAMESPACE_GONE_WITHIN_SECONDS
    for resource, name in OBJECTS.items():
        eventually(partial(waits_for_children_only, plane, resource.path(staying, name)))
    hold(plane, held, [])
    for resource, name in OBJECTS.items():
        eventually(partial(is_gone, plane, resource.path(staying, name)))
        assert names(plane.client, staying, CHILDREN, f"flotilla.dev/owner={name}") == []
    assert operator_of_all.running
    assert operator_of_all.failures(since=log_before) == []
    plane.client.delete(f"/api/v1/namespaces/{staying}")


def services(plane: ControlPlane, namespace: str, owner: str) -> list[str]:
    """The paths of the services of one object."""
    found = names(plane.client, namespace, [SERVICES], f"flotilla.dev/owner={owner}")
    return [SERVICES.path(namespace, name.partition("/")[2]) for name in found]


def hold(plane: ControlPlane, paths: list[str], finalizers: list[str]) -> None:
    """Give objects these finalizers, so that they stay when they are deleted."""
    for path in paths:
        plane.client.merge(path, {"metadata": {"finalizers": finalizers}})


def waits_for_children_only(plane: ControlPlane, path: str) -> bool:
    """Of the object's finalizers only Kubernetes' own is left; an object that is gone is an error."""
    return bool(plane.client.get(path)["metadata"]["finalizers"] == ["foregroundDeletion"])


def is_gone(plane: ControlPlane, path: str) -> bool:
    return not plane.client.exists(path)
