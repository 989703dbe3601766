"""Objects of one namespace over HTTP: a test that waits asks several times a second, and a process of kubectl
for each question would take more of the machine than what is tested.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local_cluster.api_client import ApiClient, Manifest
from local_cluster.errors import ApiError

CORE = "/api/v1"
FLOTILLA = "/apis/flotilla.dev/v1alpha1"
COLLECTIONS = {
    "ModelReplicaSet": f"{FLOTILLA}/modelreplicasets",
    "VectorIndex": f"{FLOTILLA}/vectorindexes",
    "AgentFleet": f"{FLOTILLA}/agentfleets",
    "ConfigMap": f"{CORE}/configmaps",
    "Event": f"{CORE}/events",
    "PersistentVolumeClaim": f"{CORE}/persistentvolumeclaims",
    "Pod": f"{CORE}/pods",
    "Lease": "/apis/coordination.k8s.io/v1/leases",
    "Secret": f"{CORE}/secrets",
    "Service": f"{CORE}/services",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/rolebindings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The objects of a namespace, named by kind and name."""

    client: ApiClient
    namespace: str

    def path(self, kind: str, name: str = "") -> str:
        """The path of an object, or of all of its kind."""
        version, _, plural = COLLECTIONS[kind].rpartition("/")
        return f"{version}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> Manifest:
        """Read an object."""
        return self.client.get(self.path(kind, name))

    def find(self, kind: str, name: str) -> Manifest | None:
        """The object, or None where there is none of this name."""
        try:
            return self.get(kind, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, query: str = "") -> list[Manifest]:
        """The objects of a kind; `query` is a selector such as `labelSelector=app=x`."""
        items: list[Manifest] = self.client.get(self.path(kind) + (f"?{query}" if query else ""))["items"]
        return items

    def log(self, pod: str, container: str = "") -> str:
        """A container's log so far; `container` can be left out where the pod has only one."""
        query = f"?container={container}" if container else ""
        return self.client.text(f"{self.path('Pod', pod)}/log{query}")

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Server-side apply."""
        self.client.apply(self.path(manifest["kind"], manifest["metadata"]["name"]), manifest)

    def merge(self, kind: str, name: str, patch: Mapping[str, Any]) -> None:
        """Change an object by a merge patch."""
        self.client.merge(self.path(kind, name), patch)

    def delete(self, kind: str, name: str) -> None:
        """Begin to delete an object; one that is gone already is no error."""
        self.client.delete(self.path(kind, name))
