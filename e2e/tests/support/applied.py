"""Applies the objects that end-to-end tests need beside the demo's, waits for their conditions, and reports
their status when a wait fails.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import yaml

from demo.environment import EXAMPLE
from demo.kubectl import Kubectl
from local_cluster.access import Access
from local_cluster.api_client import Manifest
from tests.support.objects import Objects
from tests.support.waiting import eventually

WAIT_SECONDS = 900.0
GONE_SECONDS = 200.0
REPLICA_SET = "ModelReplicaSet"
# Tests share a node of two processors with the demo, and pods that only wait need none of them.
FEW = {"requests": {"cpu": "10m", "memory": "128Mi"}}
COMPONENTS = {
    REPLICA_SET: (("router", "pod"),),
    "VectorIndex": (("milvus", "pod"), ("build",), ("retriever", "pod")),
    "AgentFleet": (("gateway", "pod"), ("workers",), ("queue", "redis", "pod")),
}


class Site:
    """A namespace, and what a test made in it."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl
        self.objects = Objects(
            client=Access(kubeconfig=kubectl.kubeconfig).client, namespace=str(kubectl.namespace)
        )
        self.made: list[tuple[str, str]] = []

    def apply(self, manifest: Mapping[str, Any]) -> None:
        """Apply an object that goes with the test; what it does not say its pods request is little."""
        self.made.append((manifest["kind"], manifest["metadata"]["name"]))
        self.objects.apply(requesting_little(manifest))

    def patch(self, kind: str, name: str, patch: Mapping[str, Any]) -> None:
        """Change an object by a merge patch."""
        self.objects.merge(kind, name, patch)

    def remove(self, kind: str, name: str, seconds: float = GONE_SECONDS) -> None:
        """Delete an object and wait until it is gone."""
        self.objects.delete(kind, name)
        self.until(lambda: self.objects.find(kind, name) is None, kind, name, "gone", seconds)

    def remove_all(self) -> None:
        """Delete what the test made, the newest first; wait until all of it is gone."""
        for kind, name in reversed(self.made):
            self.objects.delete(kind, name)
        for kind, name in reversed(self.made):
            self.remove(kind, name)

    def condition(self, kind: str, name: str, condition_type: str) -> Manifest:
        """One condition of an object; empty where it has none yet."""
        item = self.objects.get(kind, name)
        status = item.get("status") or {}
        if status.get("observedGeneration") != item["metadata"]["generation"]:
            return {}
        return next((c for c in status.get("conditions", ()) if c["type"] == condition_type), {})

    def wait(
        self,
        kind: str,
        name: str,
        condition_type: str,
        status: str,
        reason: str | None = None,
        *,
        words: str = "",
    ) -> str:
        """Until a condition says this, with these words in its message; returns the message."""

        def holds() -> Manifest | None:
            found = self.condition(kind, name, condition_type)
            right = found.get("status") == status and reason in (None, found["reason"])
            return found if right and words in found.get("message", "") else None

        wanted = f"{condition_type}={status} {reason} {words!r}"
        message: str = self.until(holds, kind, name, wanted)["message"]
        return message

    def wait_ready(self, name: str) -> None:
        """Until a set is ready."""
        self.wait(REPLICA_SET, name, "Ready", "True")

    def until(
        self,
        holds: Callable[[], Any],
        kind: str,
        name: str,
        wanted: str,
        seconds: float = WAIT_SECONDS,
    ) -> Any:
        """Wait until `holds` returns something true; a wait that fails reports the object's status."""
        try:
            return eventually(holds, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{kind}/{name} {wanted}: {error}\n{self.seen(kind, name)}") from None

    def pods(self, name: str) -> dict[str, Manifest]:
        """The engine pods of a set that stay, by name."""
        engines = f"labelSelector=flotilla.dev/owner={name},app.kubernetes.io/component=engine"
        return {
            pod["metadata"]["name"]: pod
            for pod in self.objects.list("Pod", engines)
            if "deletionTimestamp" not in pod["metadata"]
        }

    def notes(self, name: str, reason: str) -> list[str]:
        """Notes of an object's events with this reason."""
        events = self.objects.list("Event", f"fieldSelector=involvedObject.name={name},reason={reason}")
        return [event["message"] for event in events]

    def seen(self, kind: str, name: str) -> str:
        """Details for a test that fails: the object's status, and its engines' containers."""
        told: dict[str, Any] = {"status": (self.objects.find(kind, name) or {}).get("status")}
        if kind == REPLICA_SET:
            told["engines"] = {pod: containers(found) for pod, found in self.pods(name).items()}
        return yaml.safe_dump(told)


def requesting_little(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The object; its components request little where it does not say how much."""
    small = deepcopy(dict(manifest))
    for path in COMPONENTS.get(small["kind"], ()):
        _request_little(small["spec"], path)
    return small


def _request_little(part: dict[str, Any], path: tuple[str, ...]) -> None:
    """Lower the requests of the part at the path; a part with mode External has no pod."""
    if part.get("mode") == "External":
        return
    if path:
        _request_little(part.setdefault(path[0], {}), path[1:])
    else:
        part.setdefault("resources", FEW)


def containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The kubelet's words on a pod's containers, init containers first."""
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def example(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """The example's first object of this kind under another name, with parts of its spec replaced."""
    objects = yaml.safe_load_all(EXAMPLE.read_text())
    found: dict[str, Any] = deepcopy(next(item for item in objects if item["kind"] == kind))
    found["metadata"]["name"] = name
    found["spec"].update(spec)
    return found


def replica_set(name: str, **spec: Any) -> dict[str, Any]:
    """A set like the example's smollm2."""
    return example("ModelReplicaSet", name, **spec)
