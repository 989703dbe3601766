"""Basics of the full cluster, on which other tests rest: pods, network, names, volumes, logs, exec.

All of it runs as a user in a namespace that enforces restricted pod security, as the product does.
Taking the cluster down is tested in test_local_cluster_leftovers.py.
"""

import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import yaml

from local_cluster.access import Access
from local_cluster.api_client import Manifest
from local_cluster.base_image import BASE

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("smoke")]

PORT = 8000
SERVE = "echo written by $(id -u) > /data/page; cd /data; exec python3 -m http.server 8000"
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def restricted_pod(name: str, command: list[str], *, claim: str | None = None) -> Manifest:
    volume = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": BASE,
                    "command": command,
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }
            ],
            "volumes": [{"name": "data", **volume}],
        },
    }


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "pages"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "pages"},
    "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": PORT}]},
}


@pytest.fixture(scope="module")
def served(full_cluster: Access) -> Iterator[str]:
    """A namespace with a server whose page lies on a claim, and a client pod beside it."""
    name = f"smoke-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    full_cluster.client.create("/api/v1/namespaces", space)
    objects = [
        CLAIM,
        SERVICE,
        restricted_pod("server", ["sh", "-c", SERVE], claim="pages"),
        restricted_pod("client", ["sleep", "infinity"]),
    ]
    full_cluster.kubectl("-n", name, "apply", "-f", "-", manifest=yaml.safe_dump_all(objects))
    full_cluster.kubectl("-n", name, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
    yield name
    full_cluster.kubectl("delete", "namespace", name, "--wait=false")


def read_from_client(cluster: Access, namespace: str, host: str) -> str:
    script = f"import urllib.request as u; print(u.urlopen('http://{host}/page', timeout=2).read().decode())"
    return retried(
        lambda: cluster.kubectl("-n", namespace, "exec", "client", "--", "python3", "-c", script).strip()
    )


def retried(read: Callable[[], str], *, seconds: float = 20.0) -> str:
    """The server opens its port and kube-proxy writes its rules a moment after the pod is Ready."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return read()
        except (AssertionError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


def read_page(host: str) -> str:
    with NO_PROXY.open(f"http://{host}/page", timeout=2) as answer:
        return str(answer.read().decode()).strip()


@pytest.mark.holds("local-cluster.md", "Pods reach each other and services, and the machine reaches services")
def test_a_pod_reaches_another_pod(full_cluster: Access, served: str) -> None:
    address = full_cluster.client.get(f"/api/v1/namespaces/{served}/pods/server")["status"]["podIP"]
    assert read_from_client(full_cluster, served, f"{address}:{PORT}") == "written by 65532"


def test_a_pod_reaches_a_service_by_address(full_cluster: Access, served: str) -> None:
    address = full_cluster.client.get(f"/api/v1/namespaces/{served}/services/pages")["spec"]["clusterIP"]
    assert read_from_client(full_cluster, served, address) == "written by 65532"


@pytest.mark.holds("local-cluster.md", "Pods reach each other and services, and the machine reaches services")
@pytest.mark.parametrize(
    "form",
    [
        pytest.param("pages", id="short"),
        pytest.param("pages.{namespace}", id="with the namespace"),
        pytest.param("pages.{namespace}.svc.cluster.local", id="full"),
    ],
)
def test_a_pod_reaches_a_service_by_name(full_cluster: Access, served: str, form: str) -> None:
    host = form.format(namespace=served)
    assert read_from_client(full_cluster, served, host) == "written by 65532"


@pytest.mark.holds("local-cluster.md", "Pods reach each other and services, and the machine reaches services")
def test_this_machine_reaches_a_service(full_cluster: Access, served: str) -> None:
    address = full_cluster.client.get(f"/api/v1/namespaces/{served}/services/pages")["spec"]["clusterIP"]
    page = retried(lambda: read_page(address))
    assert page == "written by 65532"


def test_a_pod_reaches_the_api_through_its_service(full_cluster: Access, served: str) -> None:
    script = (
        "import socket; s = socket.create_connection(('kubernetes.default', 443), timeout=5); print('open')"
    )
    answer = full_cluster.kubectl("-n", served, "exec", "client", "--", "python3", "-c", script)
    assert answer.strip() == "open"


def test_logs_of_a_pod_can_be_read(full_cluster: Access, served: str) -> None:
    read_from_client(full_cluster, served, "pages")
    assert "GET /page" in full_cluster.kubectl("-n", served, "logs", "server")


@pytest.mark.holds("local-cluster.md", "The engine's folder is in every pod, read-only")
def test_the_engines_folder_is_in_every_pod_and_read_only(full_cluster: Access, served: str) -> None:
    script = (
        "import os, json; s = os.statvfs('/opt/engine'); print(json.dumps(bool(s.f_flag & os.ST_RDONLY)))"
    )
    answer = full_cluster.kubectl("-n", served, "exec", "client", "--", "python3", "-c", script)
    assert json.loads(answer) is True


def test_a_privileged_pod_is_refused_in_the_restricted_namespace(full_cluster: Access, served: str) -> None:
    pod = restricted_pod("intruder", ["sleep", "1"])
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    answer = full_cluster.kubectl("-n", served, "apply", "-f", "-", manifest=yaml.safe_dump(pod), check=False)
    assert 'violates PodSecurity "restricted' in answer


@pytest.mark.holds("local-cluster.md", "GPU nodes are KWOK's and tainted, and nothing else lands there")
def test_an_ordinary_pod_never_lands_on_a_gpu_node(full_cluster: Access, served: str) -> None:
    pods = full_cluster.client.get(f"/api/v1/namespaces/{served}/pods")["items"]
    gpu_nodes = full_cluster.client.get("/api/v1/nodes?labelSelector=type%3Dkwok")["items"]
    assert gpu_nodes
    assert not {pod["spec"]["nodeName"] for pod in pods} & {node["metadata"]["name"] for node in gpu_nodes}
