"""A part of a cluster that a scene plays, as a loop over the fake API server's objects.

A part looks at the objects after each change, a few virtual milliseconds later, and changes what is not as it
should be. It acts through requests where the API server has rules for them, and on the objects otherwise.
"""

import asyncio
import copy
from collections.abc import Callable, Mapping
from typing import Any

from flotilla_operator.cluster.client import MERGE_PATCH
from flotilla_operator.objects.resources import PODS, Manifest, Resource
from flotilla_operator.objects.times import timestamp
from tests.support.fake_answers import Answers
from tests.support.fake_requests import Reply, Request

A_MOMENT_SECONDS = (0.005, 0.05)
NEVER_READ = frozenset({"events", "leases"})


class Cluster:
    """Base of all parts: the objects, random draws, and the verbs by which they change objects."""

    def __init__(self, api: Answers, draw: Callable[[float, float], float]) -> None:
        self.api = api
        self.draw = draw

    def create(self, resource: Resource, manifest: Manifest) -> Reply:
        namespace = manifest["metadata"].get("namespace")
        return self._ask(Request(method="POST", path=resource.path(namespace), body=manifest))

    def delete(self, resource: Resource, manifest: Manifest, **options: Any) -> Reply:
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        body = {"preconditions": {"uid": metadata["uid"]}, **options}
        return self._ask(Request(method="DELETE", path=path, body=body))

    def merge(self, resource: Resource, manifest: Manifest, patch: Mapping[str, Any]) -> Reply:
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"])
        return self._ask(
            Request(method="PATCH", path=path, body=copy.deepcopy(patch), content_type=MERGE_PATCH)
        )

    def evict(self, pod: Manifest) -> Reply:
        metadata = pod["metadata"]
        path = PODS.path(metadata["namespace"], metadata["name"], "eviction")
        return self._ask(Request(method="POST", path=path, body={"metadata": {"name": metadata["name"]}}))

    def listed(self, resource: Resource, namespace: str = "") -> list[Manifest]:
        return self.api.listed(resource, namespace)

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        return self.api.get(resource, namespace, name)

    def report(self, resource: Resource, manifest: Manifest, **status: Any) -> None:
        """Change fields of an object's status. Most reports say nothing new, so those copy nothing."""
        held = manifest.get("status") or {}
        if all(name in held and held[name] == value for name, value in status.items()):
            return
        changed = copy.deepcopy(manifest)
        changed["status"] = {**held, **status}
        self.api.change(resource, manifest, changed)

    def condition(self, manifest: Manifest, kind: str, status: str, **more: str) -> list[Manifest]:
        """The object's conditions with this one; its time stays while its status does."""
        held = list((manifest.get("status") or {}).get("conditions") or ())
        before = next((one for one in held if one["type"] == kind), None)
        same = before is not None and before["status"] == status
        now = timestamp(self.api.now())
        since = before.get("lastTransitionTime", now) if before and same else now
        made = {"type": kind, "status": status, **more, "lastTransitionTime": since}
        return [made if one is before else one for one in held] if before else [*held, made]

    def _ask(self, request: Request) -> Reply:
        return self.api.answer(request)


class Part:
    """One part; `look` does what can be done now."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.api = cluster.api
        self._woken = asyncio.Event()
        self._woken.set()
        self.api.listeners.append(self._note)

    async def run(self) -> None:
        """Look after each change, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await asyncio.sleep(self.cluster.draw(*A_MOMENT_SECONDS))
            self.look()

    def wake(self) -> None:
        """Look soon."""
        self._woken.set()

    def look(self) -> None:
        """Change what is not as it should be."""
        raise NotImplementedError

    def _note(self, resource: Resource, _manifest: Manifest) -> None:
        if resource.plural not in NEVER_READ:
            self.wake()


def is_ready(manifest: Manifest) -> bool:
    """Whether a pod or node is ready."""
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def controller_of(manifest: Manifest) -> str | None:
    """The UID of the object's controller."""
    references = manifest["metadata"].get("ownerReferences") or ()
    return next((one["uid"] for one in references if one.get("controller")), None)


def owned_by(owner: Manifest) -> list[Manifest]:
    """The owner references of what a controller makes for this object."""
    metadata = owner["metadata"]
    return [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
