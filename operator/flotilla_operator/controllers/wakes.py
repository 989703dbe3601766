"""Which keys a change wakes.

An object wakes its owner, found by owner reference or, for grandchildren such as a Deployment's pods, by the
labels that name it. A namespace that is being deleted wakes what is in it. A change of one of our own objects
wakes itself and whoever refers to it. References are kept both ways, so a change costs a look-up and not a
walk over all objects.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import structlog

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.ownership import LABEL_OWNER_KIND, LABEL_OWNER_NAME
from flotilla_operator.cluster.reflector import Change
from flotilla_operator.cluster.resources import FLOTILLA_GROUP, NAMESPACES, Key, Reference, Resource, key_of
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.leaving import keys_in

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


def owners_of(manifest: Manifest) -> Iterable[Key]:
    """Our objects that this one belongs to."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "")
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller") and reference["apiVersion"].startswith(f"{FLOTILLA_GROUP}/"):
            yield Key(reference["kind"], namespace, reference["name"])
    labels = metadata.get("labels") or {}
    if LABEL_OWNER_KIND in labels and LABEL_OWNER_NAME in labels:
        yield Key(labels[LABEL_OWNER_KIND], namespace, labels[LABEL_OWNER_NAME])


class Wakes:
    """Turns changes in the caches into keys on the queue."""

    def __init__(
        self, controllers: Sequence[Controller[Any]], caches: Caches, wake: Callable[[Key], None]
    ) -> None:
        self._by_resource = {controller.resource: controller for controller in controllers}
        self._kinds = {controller.resource.kind for controller in controllers}
        self._watching: dict[Resource, list[Controller[Any]]] = defaultdict(list)
        for controller in controllers:
            for resource in controller.watches:
                self._watching[resource].append(controller)
        self._caches = caches
        self._wake = wake
        self._named_by: dict[Key, frozenset[Reference]] = {}
        self._blocked_by: dict[Key, frozenset[Reference]] = {}
        self._indexed: dict[Key, frozenset[Reference]] = {}
        self._referrers: dict[Reference, set[Key]] = defaultdict(set)

    def changed(self, resource: Resource, manifest: Manifest, change: Change) -> None:
        """An object came, changed or went."""
        woken = {key for key in owners_of(manifest) if key.kind in self._kinds}
        if (controller := self._by_resource.get(resource)) is not None:
            woken.add(self._note_references(controller, manifest, change))
        metadata = manifest["metadata"]
        woken |= self._referrers.get(
            Reference(resource, metadata.get("namespace", ""), metadata["name"]), set()
        )
        woken.update(self._further(resource, manifest))
        if resource == NAMESPACES:
            woken.update(keys_in(self._caches, manifest, self._by_resource))
        for key in woken:
            self._wake(key)

    def blocked_by(self, key: Key, references: Iterable[Reference]) -> None:
        """Objects in this key's way, for example one that holds a name it wants; their change wakes it."""
        self._blocked_by[key] = frozenset(references)
        self._index(key)

    def _note_references(self, controller: Controller[Any], manifest: Manifest, change: Change) -> Key:
        key = key_of(controller.resource, manifest)
        if change is Change.REMOVED:
            self._named_by.pop(key, None)
            self._blocked_by.pop(key, None)
        else:
            self._named_by[key] = frozenset(_asked(controller.references, manifest))
        self._index(key)
        return key

    def _further(self, resource: Resource, manifest: Manifest) -> Iterable[Key]:
        for controller in self._watching.get(resource, ()):
            yield from _asked(controller.wakes, resource, manifest, self._caches)

    def _index(self, key: Key) -> None:
        held = self._indexed.pop(key, frozenset())
        wanted = self._named_by.get(key, frozenset()) | self._blocked_by.get(key, frozenset())
        for reference in held - wanted:
            self._referrers[reference].discard(key)
            if not self._referrers[reference]:
                del self._referrers[reference]
        for reference in wanted - held:
            self._referrers[reference].add(key)
        if wanted:
            self._indexed[key] = wanted


def _asked(question: Callable[..., Iterable[Answer]], *arguments: Any) -> tuple[Answer, ...]:
    """A controller's answer; one that fails on an odd object must not end the watch that brought it."""
    try:
        return tuple(question(*arguments))
    except Exception:
        log.exception("wake_failed", question=getattr(question, "__qualname__", repr(question)))
        return ()
