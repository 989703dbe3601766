"""The small control plane: what tests marked `apiserver` stand on.

The full cluster with a kubelet is tested in test_local_cluster_smoke.py.
"""

from pathlib import Path

import pytest

from local_cluster import kwok
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.errors import ApiError
from local_cluster.processes import start_ticks
from tests.support.waiting import eventually

pytestmark = pytest.mark.apiserver

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "1"}}


def test_an_object_survives_a_restart_of_the_api_server(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane") as plane:
        plane.client.create("/api/v1/namespaces/default/configmaps", CONFIG_MAP)
        url, pid = plane.url, plane.api_server.pid
        plane.restart_api_server()
        assert plane.url == url
        assert plane.api_server.pid != pid
        assert plane.client.get("/api/v1/namespaces/default/configmaps/kept")["data"] == {"a": "1"}


def test_two_control_planes_know_nothing_of_each_other(control_plane: ControlPlane, tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "second") as second:
        second.client.create("/api/v1/namespaces/default/configmaps", CONFIG_MAP)
        assert not control_plane.client.exists("/api/v1/namespaces/default/configmaps/kept")
        pids = [daemon.pid for daemon in (second.etcd, second.api_server)]
    assert [start_ticks(pid) for pid in pids if pid is not None] == [None, None]


def test_a_user_may_do_only_what_rbac_grants(control_plane: ControlPlane, namespace: str) -> None:
    somebody = control_plane.client_for(control_plane.user("somebody"))
    with pytest.raises(ApiError, match="cannot list resource") as refusal:
        somebody.get(f"/api/v1/namespaces/{namespace}/configmaps")
    assert refusal.value.status == 403


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


def test_the_oldest_supported_kubernetes_can_be_asked_for(tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "oldest", Options(oldest=True)) as plane:
        assert plane.client.get("/version")["gitVersion"].startswith("v1.31.")
