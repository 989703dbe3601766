"""The list and the watch against a real API server, with the token and the role that the router has.

Faults that a real API server does not show on request are in test_pod_watch.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flotilla_runtime import contract
from flotilla_runtime.router.pod_watch import KubernetesAccess, PodWatch
from flotilla_runtime.router.pods import replicas_of
from local_cluster.api_client import ApiClient
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.pytest_plugin import StartControlPlane, create_namespace
from router_support.builders import ENGINES, pod
from router_support.waiting import until

pytestmark = pytest.mark.apiserver

ACCOUNT = "router"
RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]


@pytest.fixture
def access(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> KubernetesAccess:
    return access_of_a_router(control_plane, namespace, tmp_path)


def access_of_a_router(plane: ControlPlane, namespace: str, directory: Path) -> KubernetesAccess:
    client, in_namespace = plane.client, f"namespaces/{namespace}"
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
    token_path = directory / "token"
    token_path.write_text(token["status"]["token"])
    return KubernetesAccess(
        url=plane.url,
        token_path=token_path,
        certificate_path=plane.authority.pair.certificate,
    )


@asynccontextmanager
async def watching(access: KubernetesAccess, namespace: str) -> AsyncIterator[PodWatch]:
    watch = PodWatch(access, namespace=namespace, selector=ENGINES, on_change=lambda: None)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()


def create(
    plane: ControlPlane, namespace: str, described: dict[str, Any], *, client: ApiClient | None = None
) -> None:
    client = client or plane.client
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


async def test_it_goes_on_after_the_api_server_was_restarted(
    start_control_plane: StartControlPlane, tmp_path: Path
) -> None:
    plane = await asyncio.to_thread(start_control_plane, Options())
    namespace = create_namespace(plane)
    create(plane, namespace, pod("a", server_id=1))
    async with watching(access_of_a_router(plane, namespace, tmp_path), namespace) as watch:
        await until(lambda: states(watch) == {"a": "Ready"})
        await asyncio.to_thread(plane.restart_api_server)
        assert states(watch) == {"a": "Ready"}
        with plane.client_for(plane.administrator) as client:
            create(plane, namespace, pod("b", server_id=2), client=client)
        await until(lambda: states(watch) == {"a": "Ready", "b": "Ready"})


async def test_a_version_the_server_has_forgotten_lists_again(
    control_plane: ControlPlane, namespace: str, access: KubernetesAccess
) -> None:
    await asyncio.to_thread(create, control_plane, namespace, pod("a", server_id=1))
    watch = PodWatch(access, namespace=namespace, selector=ENGINES, on_change=lambda: None)
    watch._version = "1"
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: states(watch) == {"a": "Ready"})
    finally:
        task.cancel()


def states(watch: PodWatch) -> dict[str, str]:
    return {replica.name: replica.state.value for replica in replicas_of(watch.pods.values()).usable}
