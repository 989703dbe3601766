"""The images that stand in for upstream ones: each server answers as an ordinary user, its root read-only.

How the operator configures them is tested with the kinds that use them.
"""

import secrets
from collections.abc import Iterator

import pytest
import yaml

from local_cluster import images
from local_cluster.access import Access
from local_cluster.api_client import Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("images"), pytest.mark.timeout(2400)]

STAND_INS = ("haproxy", "redis", "milvus")
HAPROXY = """\
printf 'defaults\\n mode http\\n timeout client 1s\\n timeout server 1s\\n timeout connect 1s\\n\
frontend f\\n bind :8000\\n http-request return status 200\\n' > /data/haproxy.cfg
exec haproxy -W -db -f /data/haproxy.cfg
"""


@pytest.fixture(scope="module")
def references(full_cluster: Access) -> dict[str, str]:
    assert full_cluster.kubeconfig.exists()
    return images.ensure(images=[image for image in images.CHART_IMAGES if image.name in STAND_INS])


@pytest.fixture(scope="module")
def restricted(full_cluster: Access) -> Iterator[str]:
    name = f"images-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    full_cluster.client.create("/api/v1/namespaces", space)
    yield name
    full_cluster.kubectl("delete", "namespace", name, "--wait=false")


def server_pod(name: str, image: str, command: list[str] | None, port: int) -> Manifest:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        **({"command": command} if command else {}),
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    security = {"runAsNonRoot": True, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": security,
            "containers": [container],
            "volumes": volumes,
        },
    }


@pytest.mark.holds("local-cluster.md", "The images answer under restricted security")
@pytest.mark.parametrize(
    ("name", "command", "port"),
    [
        pytest.param("haproxy", ["sh", "-c", HAPROXY], 8000, id="HAProxy with a small configuration"),
        pytest.param("redis", None, 6379, id="Redis as the image starts it"),
        pytest.param("milvus", None, 19530, id="Milvus Lite as the image starts it"),
    ],
)
def test_the_server_answers_under_restricted_security(
    full_cluster: Access,
    references: dict[str, str],
    restricted: str,
    name: str,
    command: list[str] | None,
    port: int,
) -> None:
    pod = server_pod(name, references[name], command, port)
    full_cluster.kubectl("-n", restricted, "apply", "-f", "-", manifest=yaml.safe_dump(pod))
    full_cluster.kubectl("-n", restricted, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s")
    user = full_cluster.kubectl("-n", restricted, "exec", name, "--", "id", "-u")
    assert user.strip() == "65532"
