"""The words of scenes: what a test changes in a cluster, and what it asks of it.

They are the same for a fake API server and for a real one. Sets are in one namespace, and a test speaks of
them by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    MODEL_REPLICA_SETS,
    NETWORK_POLICIES,
    NODES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Manifest,
    Resource,
)
from flotilla_runtime import contract
from tests.scenes.parts.part import is_ready
from tests.support.fake_requests import Reply

NAMESPACE = "default"
GPU = "nvidia.com/gpu"
PRODUCT = "NVIDIA-H100-80GB-HBM3"
MADE_ONCE = (SERVICES, CONFIG_MAPS, SERVICE_ACCOUNTS, DEPLOYMENTS, ROLES, ROLE_BINDINGS, NETWORK_POLICIES)


class Hands(Protocol):
    """Sends requests of a user, and reads."""

    def create(self, resource: Resource, manifest: Manifest) -> Reply:
        """Post an object."""

    def delete(self, resource: Resource, manifest: Manifest, **options: Any) -> Reply:
        """Delete this object, by its UID."""

    def merge(self, resource: Resource, manifest: Manifest, patch: Mapping[str, Any]) -> Reply:
        """Send a merge patch."""

    def evict(self, pod: Manifest) -> Reply:
        """Ask for an eviction."""

    def listed(self, resource: Resource, namespace: str = "") -> list[Manifest]:
        """The objects of a resource, by name."""

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """One object."""


class Words:
    """Words and questions of a test. How a node is made and how time passes depends on the cluster."""

    def __init__(self, hands: Hands, namespace: str = NAMESPACE) -> None:
        self.hands = hands
        self.namespace = namespace

    def node(self, name: str, **shape: Any) -> str:
        """A node with GPUs."""
        raise NotImplementedError

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait for a condition on the objects; returns its answer."""
        raise NotImplementedError

    async def until_says(self, kind: str, status: str, reason: str | None = None, name: str = "llama") -> str:
        """Wait for a condition of a set; returns its message."""
        message: str = await self.until(lambda: self.says(kind, status, reason, name))
        return message

    async def until_ready(self, name: str = "llama") -> None:
        await self.until(lambda: self.is_ready(name))

    async def until_told(self, reason: str) -> list[str]:
        """Wait for an event about a set, which comes last; returns the notes of all with this reason."""
        notes: list[str] = await self.until(lambda: self.notes(reason))
        return notes

    def full_name(self, node: str) -> str:
        """The name of a node in the cluster."""
        return node

    def short_name(self, node: str) -> str:
        """The name of a node in the test."""
        return node

    def cordon(self, name: str, *, unschedulable: bool = True) -> None:
        node = self.the(NODES, self.full_name(name), "")
        self.hands.merge(NODES, node, {"spec": {"unschedulable": unschedulable}})

    def lose_node(self, name: str) -> None:
        """The node, and its kubelet with it, is gone."""
        self.hands.delete(NODES, self.the(NODES, self.full_name(name), ""))

    def create(self, name: str = "llama", **spec: Any) -> None:
        """A set of two replicas with four GPUs each, unless the spec says otherwise."""
        base = {
            "model": {"name": "llama", "source": "hf://meta/llama"},
            "accelerator": {"resource": GPU, "products": [PRODUCT]},
            "parallelism": {"tensor": 4},
            "replicas": 2,
            "router": {"replicas": 1},
        }
        metadata = {"name": name, "namespace": self.namespace}
        made = self.hands.create(
            MODEL_REPLICA_SETS, {**_typed(MODEL_REPLICA_SETS), "metadata": metadata, "spec": {**base, **spec}}
        )
        assert made.status == 201, made

    def change(self, name: str = "llama", **spec: Any) -> None:
        answer = self.hands.merge(MODEL_REPLICA_SETS, self.get(name), {"spec": spec})
        assert answer.status == 200, answer

    def annotate(self, key: str, value: str | None, name: str = "llama") -> None:
        patch = {"metadata": {"annotations": {key: value}}}
        answer = self.hands.merge(MODEL_REPLICA_SETS, self.get(name), patch)
        assert answer.status == 200, answer

    def delete(self, name: str = "llama", propagation: str = "Background") -> None:
        self.hands.delete(MODEL_REPLICA_SETS, self.get(name), propagationPolicy=propagation)

    def foreign_pod(self, name: str, node: str, gpus: int) -> None:
        """A pod of somebody else that takes GPUs."""
        container = {"name": "c", "image": "none", "resources": {"limits": {GPU: str(gpus)}}}
        spec = {"nodeName": self.full_name(node), "containers": [container]}
        self.hands.create(
            PODS, {**_typed(PODS), "metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        )

    def delete_pod(self, name: str) -> None:
        self.hands.delete(PODS, self.the(PODS, name))

    def evict(self, pod: Manifest) -> int:
        """Ask for an eviction; returns the status of the answer."""
        return self.hands.evict(pod).status

    def the(self, resource: Resource, name: str, namespace: str | None = None) -> Manifest:
        found = self.hands.get(resource, self.namespace if namespace is None else namespace, name)
        assert found is not None, f"there is no {resource.kind} {name}"
        return found

    def ours(self) -> list[tuple[str, str]]:
        """The resource and name of everything that the operator has made and that is no pod."""
        return sorted(
            (resource.plural, manifest["metadata"]["name"])
            for resource in MADE_ONCE
            for manifest in self.hands.listed(resource, self.namespace)
            if contract.LABEL_OWNER_NAME in _labels(manifest)
        )

    def get(self, name: str = "llama") -> Manifest:
        return self.the(MODEL_REPLICA_SETS, name)

    def status(self, name: str = "llama") -> Manifest:
        found: Manifest = self.get(name).get("status") or {}
        return found

    def says(
        self,
        kind: str,
        status: str,
        reason: str | None = None,
        name: str = "llama",
        resource: Resource = MODEL_REPLICA_SETS,
    ) -> str | None:
        """The message of a condition if it has this status and reason, else None."""
        for condition in (self.the(resource, name).get("status") or {}).get("conditions") or ():
            if (
                condition["type"] == kind
                and condition["status"] == status
                and reason in (None, condition["reason"])
            ):
                return condition.get("message", "") or "-"
        return None

    def is_ready(self, name: str = "llama") -> bool:
        """Whether the set is Ready in its newest generation."""
        manifest = self.get(name)
        conditions = (manifest.get("status") or {}).get("conditions") or ()
        return any(
            c["type"] == "Ready"
            and c["status"] == "True"
            and c.get("observedGeneration") == manifest["metadata"]["generation"]
            for c in conditions
        )

    def engines(self, name: str = "llama") -> list[Manifest]:
        """The engine pods, those that are being deleted too."""
        return [
            pod
            for pod in self.hands.listed(PODS, self.namespace)
            if _labels(pod).get(contract.LABEL_OWNER_NAME) == name
            and _labels(pod).get(contract.LABEL_COMPONENT) == "engine"
        ]

    def pods(self, name: str = "llama") -> list[Manifest]:
        """The engine pods that stay."""
        return [pod for pod in self.engines(name) if "deletionTimestamp" not in pod["metadata"]]

    def uids(self, name: str = "llama") -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.pods(name)}

    def nodes_of(self, name: str = "llama") -> list[str | None]:
        nodes = [pod["spec"].get("nodeName") for pod in self.pods(name)]
        return [node and self.short_name(node) for node in nodes]

    def serving(self, name: str = "llama") -> int:
        """How many engine pods are ready and take new requests."""
        return sum(is_ready(pod) and not _drains(pod) for pod in self.pods(name))

    def draining(self, name: str = "llama") -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.pods(name) if _drains(pod)}

    def groups(self, name: str = "llama") -> dict[str, list[Manifest]]:
        """The engine pods that stay, by their group."""
        found: dict[str, list[Manifest]] = {}
        for pod in self.pods(name):
            found.setdefault(_labels(pod)[contract.LABEL_GROUP], []).append(pod)
        return found

    def revisions(self, name: str = "llama") -> set[str]:
        return {_labels(pod)[contract.LABEL_REVISION] for pod in self.pods(name)}

    def told(self) -> list[str]:
        """The reasons of all events about sets, the oldest first."""
        return [event["reason"] for event in self.events()]

    def notes(self, reason: str) -> list[str]:
        """The notes of the events with this reason."""
        return [event["note"] for event in self.events() if event["reason"] == reason]

    def events(self) -> list[Manifest]:
        found = self.hands.listed(EVENTS, self.namespace)
        return sorted(found, key=lambda one: str(one["eventTime"]))

    def two_groups_serve(self) -> bool:
        """Two whole groups serve, at most one leaves, and there are at most three."""
        groups = self.groups()
        leaving = [name for name, pods in groups.items() if any(map(_drains, pods))]
        serve = [name for name, pods in groups.items() if name not in leaving and _is_whole(pods)]
        return len(serve) >= 2 and len(leaving) <= 1 and len(groups) <= 3

    def two_serve(self) -> bool:
        """Two replicas serve, at most one leaves, and there are at most three."""
        return self.serving() >= 2 and len(self.draining()) <= 1 and len(self.pods()) <= 3


def _labels(manifest: Manifest) -> dict[str, str]:
    found: dict[str, str] = manifest["metadata"].get("labels") or {}
    return found


def _is_whole(pods: list[Manifest]) -> bool:
    """Whether every stage of a group is there and ready."""
    stages = int(pods[0]["metadata"]["annotations"].get(contract.ANNOTATION_STAGES, 1))
    return len(pods) == stages and all(map(is_ready, pods))


def _drains(pod: Manifest) -> bool:
    return contract.ANNOTATION_DRAIN_EPOCH in (pod["metadata"].get("annotations") or {})


def _typed(resource: Resource) -> Manifest:
    return {"apiVersion": resource.api_version, "kind": resource.kind}
