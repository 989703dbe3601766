"""The cluster's own workloads, which are DNS and the storage class, and the checks that they are ready."""

from contextlib import suppress
from pathlib import Path
from string import Template

import httpx2
import yaml

from local_cluster import network, node
from local_cluster.api_client import Manifest, documents
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError

MANIFESTS = Path(__file__).parent / "manifests"
FORWARD = "forward . /etc/resolv.conf"


def apply(plane: ControlPlane, manifests: list[Manifest]) -> None:
    """Create or correct the objects, also where somebody changed them."""
    plane.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--filename=-"),
        manifest=yaml.safe_dump_all(manifests),
    )


def storage_helper_pod(image: str) -> str:
    """The pod that makes and removes a volume's folder."""
    return _filled("storage-helper-pod.yaml", IMAGE=image)


def storage() -> list[Manifest]:
    """The default storage class and the provisioner's namespace."""
    return documents((MANIFESTS / "storage.yaml").read_text())


def dns(image: str) -> list[Manifest]:
    """CoreDNS; it forwards names outside the cluster to this machine's resolver, if pods can reach that."""
    forward = FORWARD if network.resolver_configuration() else ""
    text = _filled("dns.yaml", IMAGE=image, ADDRESS=node.DNS_ADDRESS, FORWARD=forward)
    return documents(text)


def _filled(manifest: str, **values: str) -> str:
    return Template((MANIFESTS / manifest).read_text()).substitute(values)


def is_ready(item: Manifest) -> bool:
    """Whether an object's condition Ready is true."""
    conditions = item.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def node_ready(plane: ControlPlane, name: str = node.NODE_NAME) -> bool:
    """Whether the node is there and Ready."""
    with suppress(ApiError, httpx2.HTTPError):
        return is_ready(plane.client.get(f"/api/v1/nodes/{name}"))
    return False


def endpoint_known(plane: ControlPlane) -> bool:
    """Whether the service `kubernetes` has an endpoint; a CoreDNS that starts before waits for a minute."""
    with suppress(ApiError, httpx2.HTTPError):
        found = plane.client.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")
        return bool(found["endpoints"])
    return False


def deployment_ready(plane: ControlPlane, namespace: str, name: str) -> bool:
    """Whether at least one pod of the deployment is Ready."""
    with suppress(ApiError, httpx2.HTTPError):
        found = plane.client.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        return int(found.get("status", {}).get("readyReplicas", 0)) > 0
    return False
