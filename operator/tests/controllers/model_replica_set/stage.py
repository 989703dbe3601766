"""The scene of a set's tests on a real API server: a namespace, its nodes, and what is asked of them."""

import time
from datetime import UTC, datetime
from typing import Any

import yaml

from flotilla_operator.objects.times import timestamp
from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import FAKE_ANNOTATION, gpu_node
from tests.support.waiting import eventually

SETS = "/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/modelreplicasets"
GPU = "nvidia.com/gpu"
PRODUCT = "NVIDIA-H100-80GB-HBM3"
VOLUME = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
STORAGE = {"storage": "1Gi"}


def ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions") or [])


def usable(node: dict[str, Any]) -> bool:
    return ready(node) and not node["spec"].get("taints")


class Stage:
    """One test's namespace and nodes, in words."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.client = plane.client
        self.plane = plane
        self.namespace = namespace
        self.of_the_cluster: list[str] = []  # paths of what a test made outside its namespace
        self.sets = SETS.format(namespace=namespace)

    def node(self, name: str, **shape: Any) -> str:
        return self._usable_node(
            gpu_node(f"{name}-{self.namespace}", labels={"stage": self.namespace}, **shape)
        )

    def mute_node(self, name: str, *, label: str = "stage", **shape: Any) -> str:
        """One without a kubelet: pods are bound to it and neither start nor end. It is believed for 40 s."""
        manifest = gpu_node(f"{name}-{self.namespace}", labels={label: self.namespace}, **shape)
        del manifest["metadata"]["annotations"][FAKE_ANNOTATION[0]]
        now = timestamp(datetime.now(UTC))
        manifest["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}
        ]
        return self._usable_node(manifest)

    def make(self, folder: str, manifest: dict[str, Any]) -> None:
        """Something of no namespace, which goes with the test."""
        self.client.create(folder, manifest)
        self.of_the_cluster.append(f"{folder}/{manifest['metadata']['name']}")

    def _usable_node(self, manifest: dict[str, Any]) -> str:
        name: str = manifest["metadata"]["name"]
        self.make("/api/v1/nodes", manifest)
        eventually(lambda: usable(self.client.get(f"/api/v1/nodes/{name}")))
        return name

    def create(self, name: str = "llama", **spec: Any) -> None:
        base = {
            "model": {"name": "llama", "source": "hf://meta/llama"},
            "accelerator": {"resource": GPU, "products": [PRODUCT]},
            "parallelism": {"tensor": 4},
            "placement": {"nodeSelector": {"stage": self.namespace}},
            "replicas": 2,
            "router": {"replicas": 1},
            "drain": {"deadlineSeconds": 1},
        }
        self.client.create(
            self.sets,
            {
                "apiVersion": "flotilla.dev/v1alpha1",
                "kind": "ModelReplicaSet",
                "metadata": {"name": name},
                "spec": {**base, **spec},
            },
        )

    def change(self, name: str = "llama", **spec: Any) -> None:
        self.client.merge(f"{self.sets}/{name}", {"spec": spec})

    def look_again(self) -> dict[str, Any]:
        """Make the operator look at the set, which stays as it is; returns the set."""
        look = {"metadata": {"annotations": {"look": str(time.monotonic())}}}
        return self.client.merge(f"{self.sets}/llama", look)

    def get(self, name: str = "llama") -> dict[str, Any]:
        return self.client.get(f"{self.sets}/{name}")

    def condition(self, condition_type: str, name: str = "llama") -> dict[str, Any]:
        status = self.get(name).get("status") or {}
        found: dict[str, Any] = next(
            (c for c in status.get("conditions") or [] if c["type"] == condition_type),
            {"status": None, "reason": None, "message": ""},
        )
        return found

    def wait(self, condition_type: str, status: str, reason: str | None = None, name: str = "llama") -> str:
        """Until a condition says this; returns its message."""

        def holds() -> dict[str, Any] | None:
            found = self.condition(condition_type, name)
            same = found["status"] == status and (reason is None or found["reason"] == reason)
            return found if same else None

        try:
            message: str = eventually(holds, what=f"{condition_type}={status} {reason or ''}")["message"]
        except TimeoutError as error:
            status = yaml.safe_dump(self.get(name).get("status"))
            raise TimeoutError("\n".join([str(error), status, *self.notes()])) from None
        return message

    def pods(self, name: str = "llama") -> list[dict[str, Any]]:
        """Engine pods that stay."""
        return [pod for pod in self.engine_pods(name) if "deletionTimestamp" not in pod["metadata"]]

    def engine_pods(self, name: str) -> list[dict[str, Any]]:
        """Engine pods, those that are being deleted too."""
        selector = f"flotilla.dev/owner={name},app.kubernetes.io/component=engine"
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={selector}"
        found: list[dict[str, Any]] = self.client.get(path)["items"]
        return found

    def report(self, pod: dict[str, Any], **of_engine: Any) -> None:
        """Report that a kubelet would give of an engine that does not serve.

        Once KWOK has reported what a kubelet does of one that serves, or that would come last and count.
        """
        engine = {"name": "engine", "image": "none", "imageID": "none", "ready": False, "restartCount": 0}
        status = {
            "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
            "containerStatuses": [{**engine, **of_engine}],
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
        eventually(lambda: self.client.get(path)["status"].get("phase") == "Running")
        self.client.merge(f"{path}/status", {"status": status})

    def end(self, pod: dict[str, Any]) -> None:
        """Act as a kubelet once a deleted pod's containers have stopped; until then they hold GPUs."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}"
        assert "deletionTimestamp" in self.client.get(path)["metadata"]
        self.client.delete(f"{path}?gracePeriodSeconds=0")

    def events(self) -> set[str]:
        """Reasons of what was told about the sets."""
        return {e["reason"] for e in self.told() if e["regarding"]["kind"] == "ModelReplicaSet"}

    def tells(self, *reasons: str) -> None:
        """Until all of these were told."""
        try:
            eventually(lambda: set(reasons) <= self.events())
        except TimeoutError as error:
            raise TimeoutError("\n".join([f"{error}: {reasons}", *self.notes()])) from None

    def told_because(self, reason: str) -> list[str]:
        """The notes of what was told for this reason, once there are some."""
        found: list[str] = eventually(lambda: [e["note"] for e in self.told() if e["reason"] == reason])
        return found

    def notes(self) -> list[str]:
        """Everything that was told, for a test that fails."""
        return [f"{e['regarding'].get('name')} {e['reason']}: {e.get('note')}" for e in self.told()]

    def told(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(
            f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        )["items"]
        return found

    def foreign_pod(self, name: str, node: str, gpus: int) -> None:
        container = {
            "name": "c",
            "image": "none",
            "resources": {"limits": {GPU: str(gpus)}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        security = {"runAsNonRoot": True, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}}
        spec = {"nodeName": node, "containers": [container], "securityContext": security}
        self.client.create(
            f"/api/v1/namespaces/{self.namespace}/pods",
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec},
        )

    def quota(self, name: str, gpus: int) -> str:
        """A quota that is in force; returns its path."""
        quotas = f"/api/v1/namespaces/{self.namespace}/resourcequotas"
        kind = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}}
        self.client.create(quotas, {**kind, "spec": {"hard": {f"requests.{GPU}": str(gpus)}}})
        eventually(lambda: (self.client.get(f"{quotas}/{name}").get("status") or {}).get("hard"))
        return f"{quotas}/{name}"

    def claim_on(self, node: str) -> None:
        """The claim `models`, bound to a volume that only this node has."""
        self.claim()
        self.volume(nodeAffinity={"required": {"nodeSelectorTerms": [{"matchExpressions": [on(node)]}]}})

    def claim(self) -> None:
        """The claim `models`; until it has its volume the scheduler binds no pod that asks for it."""
        claim = {**VOLUME, "volumeName": f"pv-{self.namespace}", "resources": {"requests": STORAGE}}
        kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}}
        self.client.create(
            f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims", {**kind, "spec": claim}
        )

    def volume(self, **spec: Any) -> None:
        """The volume of the claim `models`, once it is bound."""
        name = f"pv-{self.namespace}"
        volume = {
            **VOLUME,
            "capacity": STORAGE,
            "hostPath": {"path": "/nowhere"},
            "claimRef": {"namespace": self.namespace, "name": "models"},
            **spec,
        }
        kind = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}}
        self.make("/api/v1/persistentvolumes", {**kind, "spec": volume})
        claim = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/models"
        eventually(lambda: self.phase(claim) == "Bound")

    def phase(self, path: str) -> str | None:
        found: str | None = (self.client.get(path).get("status") or {}).get("phase")
        return found


def on(node: str) -> dict[str, Any]:
    return {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
