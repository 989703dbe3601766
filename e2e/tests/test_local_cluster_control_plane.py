"""The small control plane: what tests marked `apiserver` stand on.

The full cluster with a kubelet is tested in test_local_cluster_smoke.py.
"""

import pytest

from local_cluster import kwok
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from local_cluster.processes import start_ticks
from tests.support.waiting import eventually

pytestmark = pytest.mark.apiserver

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}}


@pytest.mark.holds(
    "local-cluster.md",
    "A control plane can restart, hang, be somebody else, tell what was asked, and be the newest Kubernetes",
)
def test_an_object_survives_a_restart_of_the_api_server(control_plane: ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.client.create(path, CONFIG_MAP)
    url, pid = control_plane.url, control_plane.api_server.pid
    assert pid is not None
    control_plane.restart_api_server()
    assert start_ticks(pid) is None
    assert control_plane.url == url
    assert control_plane.client.get(f"{path}/kept")["data"] == {"a": "1"}


def test_two_control_planes_know_nothing_of_each_other(
    control_plane: ControlPlane, running_control_plane: ControlPlane, namespace: str, running_namespace: str
) -> None:
    for plane, has, lacks in (
        (control_plane, namespace, running_namespace),
        (running_control_plane, running_namespace, namespace),
    ):
        assert plane.client.exists(f"/api/v1/namespaces/{has}")
        assert not plane.client.exists(f"/api/v1/namespaces/{lacks}")


@pytest.mark.holds(
    "local-cluster.md",
    "A control plane can restart, hang, be somebody else, tell what was asked, and be the newest Kubernetes",
)
def test_a_user_may_do_only_what_rbac_grants(control_plane: ControlPlane, namespace: str) -> None:
    somebody = control_plane.client_for(control_plane.user("somebody"))
    with pytest.raises(ApiError, match="cannot list resource") as refusal:
        somebody.get(f"/api/v1/namespaces/{namespace}/configmaps")
    assert refusal.value.status == 403


@pytest.mark.holds(
    "local-cluster.md",
    "A control plane can restart, hang, be somebody else, tell what was asked, and be the newest Kubernetes",
)
def test_the_audit_log_names_who_wrote_what(control_plane: ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.client.create(path, CONFIG_MAP)
    written = [
        event
        for event in control_plane.audit_events(user="flotilla-admin")
        if event["verb"] == "create" and event["objectRef"].get("namespace") == namespace
    ]
    assert [event["objectRef"]["resource"] for event in written] == ["configmaps"]


def test_kubectl_of_the_pinned_version_speaks_to_it(control_plane: ControlPlane, namespace: str) -> None:
    assert namespace in control_plane.kubectl("get", "namespaces", "-o", "name")


def test_a_pod_that_asks_for_gpus_runs_on_a_kwok_node(
    running_control_plane: ControlPlane, running_namespace: str
) -> None:
    client = running_control_plane.client
    names = kwok.create_nodes(client, kwok.gpu_nodes(2))
    pods = f"/api/v1/namespaces/{running_namespace}/pods"
    wants = {"limits": {kwok.GPU_RESOURCE: "8"}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "trainer"},
        "spec": {"containers": [{"name": "main", "image": "any", "resources": wants}]},
    }
    accounts = f"/api/v1/namespaces/{running_namespace}/serviceaccounts/default"
    try:
        eventually(lambda: client.exists(accounts))
        client.create(pods, pod)
        eventually(lambda: client.get(f"{pods}/trainer")["status"].get("phase") == "Running")
        assert client.get(f"{pods}/trainer")["spec"]["nodeName"] in names
    finally:
        for name in names:
            client.delete(f"/api/v1/nodes/{name}")
