"""Small servers as pods of the cluster, each a Python program that runs in the runtime's image."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from demo import claims
from tests.support.applied import Site

PORT = 8080


@contextmanager
def server(site: Site, image: str, name: str, program: str) -> Iterator[httpx2.Client]:
    """The program's server as a service of the test's namespace, and a client of it; it listens on PORT."""
    container = {
        "name": name,
        "image": image,
        "command": ["python3", "-c", program],
        "securityContext": {**claims.RESTRICTED, "runAsUser": 65532},
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    labels = {"app": name}
    site.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    )
    ports = {"selector": labels, "ports": [{"port": PORT}]}
    site.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": ports})
    site.kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=600s", timeout_seconds=610)
    with (
        site.kubectl.port_forward(f"service/{name}", PORT) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield client
