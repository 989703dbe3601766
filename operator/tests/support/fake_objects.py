"""Store of the fake API server: the objects of each resource, their history, and the watches on it.

Tests, and the parts of a cluster that scenes play, change the objects here; clients change them by requests.
"""

import asyncio
import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flotilla_operator.objects.resources import (
    ALL,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    OUR_KINDS,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    RESOURCE_CLAIMS,
    SERVICES,
    STATEFUL_SETS,
    Manifest,
    Resource,
)
from flotilla_operator.objects.times import timestamp
from leaks.pytest_plugin import told

# What a Deployment makes between itself and its pods. The operator never reads one.
REPLICA_SETS = Resource(group="apps", version="v1", plural="replicasets", kind="ReplicaSet")
SERVED = (*ALL, REPLICA_SETS)
BY_PATH = {(r.group, r.version, r.plural): r for r in SERVED}

WITH_STATUS = frozenset(
    {
        *OUR_KINDS,
        PODS,
        NODES,
        NAMESPACES,
        SERVICES,
        DEPLOYMENTS,
        REPLICA_SETS,
        STATEFUL_SETS,
        JOBS,
        PERSISTENT_VOLUME_CLAIMS,
        POD_DISRUPTION_BUDGETS,
        RESOURCE_CLAIMS,
    }
)
# A change of anything but metadata and status is a new generation of these.
WITH_GENERATION = frozenset(
    {
        *OUR_KINDS,
        PODS,
        DEPLOYMENTS,
        REPLICA_SETS,
        STATEFUL_SETS,
        JOBS,
        POD_DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
    }
)

LEFT_OUT_WHEN_EMPTY = ("labels", "annotations", "finalizers", "ownerReferences")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
Listener = Callable[[Resource, Manifest], None]


@dataclass
class Shelf:
    """One resource's objects, its history, and the watches on it. Events are kept as JSON texts."""

    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    history: list[tuple[int, str, str]] = field(default_factory=list)
    watches: set["asyncio.Queue[tuple[str, str] | None]"] = field(default_factory=set)


class Objects:
    """The server's state. `now` says when objects are created and deleted."""

    def __init__(self, now: Callable[[], datetime] = lambda: LONG_AGO) -> None:
        self.now = now
        self.version = 100
        self.oldest_version = 0
        self.listeners: list[Listener] = []
        self._shelves: dict[Resource, Shelf] = {}

    def shelf(self, resource: Resource) -> Shelf:
        return self._shelves.setdefault(resource, Shelf())

    def listed(self, resource: Resource, namespace: str = "") -> list[Manifest]:
        """The objects of a resource, by namespace and name."""
        found = sorted(self.shelf(resource).objects.items())
        return [manifest for (where, _), manifest in found if not namespace or where == namespace]

    def everything(self) -> Iterable[tuple[Resource, Manifest]]:
        """All objects there are."""
        for resource in list(self._shelves):
            for manifest in self.listed(resource):
                yield resource, manifest

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        return self.shelf(resource).objects.get((namespace, name))

    def put(self, resource: Resource, manifest: Manifest, *, silently: bool = False) -> Manifest:
        """Store an object as it is; `silently` tells no watch, as in a gap."""
        metadata = manifest.setdefault("metadata", {})
        manifest.setdefault("apiVersion", resource.api_version)
        manifest.setdefault("kind", resource.kind)
        place = (metadata.get("namespace", ""), metadata["name"])
        shelf = self.shelf(resource)
        self.version += 1
        metadata.setdefault("uid", f"uid-{self.version}")
        if resource in WITH_GENERATION:
            metadata.setdefault("generation", 1)
        metadata.setdefault("creationTimestamp", timestamp(self.now()))
        metadata["resourceVersion"] = str(self.version)
        kind_of_event = "MODIFIED" if place in shelf.objects else "ADDED"
        shelf.objects[place] = manifest
        said = manifest if resource == EVENTS else manifest.get("status")
        told(f"{resource.kind} {metadata['name']} of a fake API server", said)
        self._tell(resource, kind_of_event, manifest, silently=silently)
        return manifest

    def change(self, resource: Resource, held: Manifest, changed: Manifest) -> Manifest:
        """Store the new form of an object: a new generation if its spec changed, nothing if nothing did."""
        for name in LEFT_OUT_WHEN_EMPTY:
            if changed["metadata"].get(name) in ({}, []):
                del changed["metadata"][name]
        if changed == held:
            return held
        if resource in WITH_GENERATION and _specified(resource, changed) != _specified(resource, held):
            changed["metadata"]["generation"] = held["metadata"].get("generation", 1) + 1
        metadata = changed["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers") and not _has_grace(metadata):
            self.remove(resource, metadata.get("namespace", ""), metadata["name"])
            return changed
        return self.put(resource, changed)

    def remove(self, resource: Resource, namespace: str, name: str, *, silently: bool = False) -> None:
        shelf = self.shelf(resource)
        manifest = copy.deepcopy(shelf.objects.pop((namespace, name)))
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        self._tell(resource, "DELETED", manifest, silently=silently)

    def end_watches(self, resource: Resource, code: int | None = None) -> None:
        """End the open watches, with an ERROR event when a code is given; 410 also forgets the history."""
        shelf = self.shelf(resource)
        for queue in shelf.watches:
            if code is not None:
                error = status_document(code, "Expired" if code == 410 else "", "x")
                queue.put_nowait(("", event_text("ERROR", error)))
            queue.put_nowait(None)
        if code == 410:
            shelf.history.clear()
            self.oldest_version = self.version

    def bookmark_text(self, resource: Resource) -> str:
        """An event that says only how far a watch has come."""
        metadata = {"resourceVersion": str(self.version)}
        return event_text(
            "BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        )

    def bookmark(self, resource: Resource) -> None:
        for queue in self.shelf(resource).watches:
            queue.put_nowait(("", self.bookmark_text(resource)))

    def _tell(self, resource: Resource, event: str, manifest: Manifest, *, silently: bool) -> None:
        if not silently:
            text = event_text(event, manifest)
            shelf, namespace = self.shelf(resource), manifest["metadata"].get("namespace", "")
            shelf.history.append((self.version, namespace, text))
            for queue in shelf.watches:
                queue.put_nowait((namespace, text))
        for listener in self.listeners:
            listener(resource, manifest)


def event_text(event: str, manifest: Manifest) -> str:
    """An event of a watch, as it is sent."""
    return json.dumps({"type": event, "object": manifest})


def status_document(status: int, reason: str, message: str, causes: Iterable[str] = ()) -> Manifest:
    """Answer of the API server when it refuses."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": status,
        "reason": reason,
        "message": message,
        "details": {"causes": [{"reason": cause} for cause in causes]},
    }


def as_item(resource: Resource, manifest: Manifest) -> Manifest:
    """An object in a list. Kubernetes' own kinds do not repeat there what they are."""
    if resource in OUR_KINDS:
        return manifest
    return {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}


def deleted(resource: Resource, manifest: Manifest) -> Manifest:
    """Answer of the API server when an object is gone at once."""
    metadata = manifest["metadata"]
    details = {"name": metadata["name"], "kind": resource.plural, "uid": metadata["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _specified(resource: Resource, manifest: Manifest) -> dict[str, Any]:
    """Parts that make a generation: all but metadata and status, and the annotations of a Deployment."""
    found = {key: value for key, value in manifest.items() if key not in ("metadata", "status")}
    return {**found, "": manifest["metadata"].get("annotations")} if resource == DEPLOYMENTS else found


def _has_grace(metadata: Manifest) -> bool:
    """Whether a kubelet must still say that the pod has ended."""
    return bool(metadata.get("deletionGracePeriodSeconds"))
