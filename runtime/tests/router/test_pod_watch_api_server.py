"""The list and the watch against a real API server, with the token and the role that the router has.

Faults that a real API server does not show on request are in test_pod_watch.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from flotilla_runtime import contract
from flotilla_runtime.router.pod_watch import KubernetesAccess, PodWatch
from flotilla_runtime.router.pods import replicas_of
from local_cluster.control_plane import ControlPlane
from router_support.builders import ENGINES, pod
from router_support.waiting import until

pytestmark = pytest.mark.apiserver

ACCOUNT = "router"
RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]


@pytest.fixture
def access(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> KubernetesAccess:
    client, in_namespace = control_plane.client, f"namespaces/{namespace}"
    metadata = {"name": ACCOUNT, "namespace": namespace}
    client.create(f"/api/v1/{in_namespace}/serviceaccounts", {"metadata": metadata})
    roles = f"/apis/rbac.authorization.k8s.io/v1/{in_namespace}"
    client.create(f"{roles}/roles", {"metadata": metadata, "rules": RULES})
    binding = {
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    }
    client.create(f"{roles}/rolebindings", binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = client.create(f"/api/v1/{in_namespace}/serviceaccounts/{ACCOUNT}/token", asked)
    token_path = tmp_path / "token"
    token_path.write_text(token["status"]["token"])
    return KubernetesAccess(
        url=control_plane.url,
        token_path=token_path,
        certificate_path=control_plane.authority.pair.certificate,
    )


@asynccontextmanager
async def watching(access: KubernetesAccess, namespace: str) -> AsyncIterator[PodWatch]:
    watch = PodWatch(access, namespace=namespace, selector=ENGINES, on_change=lambda: None)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()


def create(plane: ControlPlane, namespace: str, described: dict[str, Any]) -> None:
    client = plane.client
    path = f"/api/v1/namespaces/{namespace}/pods"
    metadata = {
        key: value for key, value in described["metadata"].items() if key in ("name", "labels", "annotations")
    }
    spec = {
        "containers": [{"name": "engine", "image": "engine"}],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
    }
    client.create(path, {"metadata": metadata, "spec": spec})
    client.merge(f"{path}/{metadata['name']}/status", {"status": described["status"]})


async def test_pods_come_change_and_go(
    control_plane: ControlPlane, namespace: str, access: KubernetesAccess
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods/a"
    async with watching(access, namespace) as watch:
        await until(lambda: watch.synced)
        await asyncio.to_thread(create, control_plane, namespace, pod("a", server_id=3))
        await until(lambda: states(watch) == {"a": "Ready"})
        drain = {"metadata": {"annotations": {contract.ANNOTATION_DRAIN_EPOCH: "1"}}}
        await asyncio.to_thread(control_plane.client.merge, path, drain)
        await until(lambda: states(watch) == {"a": "Draining"})
        await asyncio.to_thread(control_plane.client.delete, path)
        await until(lambda: states(watch) == {})


async def test_it_lists_again_after_an_api_server_was_restarted_that_has_forgotten_its_version(
    control_plane: ControlPlane, namespace: str, access: KubernetesAccess
) -> None:
    """An API server knows of no change before its start; the last of all was none of the pods."""
    await asyncio.to_thread(create, control_plane, namespace, pod("a", server_id=1))
    async with watching(access, namespace) as watch:
        await until(lambda: states(watch) == {"a": "Ready"})
        change = {"metadata": {"name": "of-no-pod"}}
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        await asyncio.to_thread(control_plane.client.create, path, change)
        with capture_logs() as logs:
            await asyncio.to_thread(control_plane.restart_api_server)
            assert states(watch) == {"a": "Ready"}
            await asyncio.to_thread(create, control_plane, namespace, pod("b", server_id=2))
            await until(lambda: states(watch) == {"a": "Ready", "b": "Ready"})
    (reason,) = [line["reason"] for line in logs if line["event"] == "pods_listed_again"]
    assert reason.startswith("410: too old resource version")


def states(watch: PodWatch) -> dict[str, str]:
    return {replica.name: replica.state.value for replica in replicas_of(watch.pods.values()).usable}
