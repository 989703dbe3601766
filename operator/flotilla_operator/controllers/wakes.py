"""Decides which objects of ours are reconciled after a change.

A changed object wakes its owner: by owner reference or, for grandchildren such as a Deployment's pods, by the
labels that name the owner. A namespace that is being deleted wakes all our objects in it. A change of one of
our own objects wakes that object and all that refer to it. References are indexed in both directions, so a
change costs one look-up instead of a loop over all objects.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import structlog

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.reflector import Change
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.leaving import keys_in
from flotilla_operator.objects.resources import (
    FLOTILLA_GROUP,
    NAMESPACES,
    Key,
    Manifest,
    Reference,
    Resource,
    key_of,
)
from flotilla_runtime.contract import LABEL_OWNER_KIND, LABEL_OWNER_NAME

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


def owners_of(manifest: Manifest) -> Iterable[Key]:
    """The keys of our objects to which this one belongs."""
    metadata = manifest["metadata"]
    namespace = metadata.get("namespace", "")
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller") and reference["apiVersion"].startswith(f"{FLOTILLA_GROUP}/"):
            yield Key(reference["kind"], namespace, reference["name"])
    labels = metadata.get("labels") or {}
    if namespace and LABEL_OWNER_KIND in labels and LABEL_OWNER_NAME in labels:
        yield Key(labels[LABEL_OWNER_KIND], namespace, labels[LABEL_OWNER_NAME])


class Wakes:
    """Puts keys on the queue after changes in the caches."""

    def __init__(
        self,
        controllers: Sequence[Controller[Any, Any]],
        caches: Caches,
        wake: Callable[[Key], None],
        wake_by_itself: Callable[[Key], None] | None = None,
    ) -> None:
        self._by_resource = {controller.resource: controller for controller in controllers}
        self._kinds = {controller.resource.kind for controller in controllers}
        self._watching: dict[Resource, list[Controller[Any, Any]]] = defaultdict(list)
        for controller in controllers:
            for resource in controller.watches:
                self._watching[resource].append(controller)
        self._caches = caches
        self._wake = wake
        self._wake_by_itself = wake_by_itself or wake
        self._named_by: dict[Key, frozenset[Reference]] = {}
        self._blocked_by: dict[Key, frozenset[Reference]] = {}
        self._indexed: dict[Key, frozenset[Reference]] = {}
        self._referrers: dict[Reference, set[Key]] = defaultdict(set)

    def changed(self, resource: Resource, manifest: Manifest, change: Change, by: Key | None = None) -> None:
        """Wake all that depends on this object, which was added, changed or removed.

        `by` is the key whose own reconcile changed it.
        """
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
        for key in sorted(woken):  # in an order that a scene can repeat
            wake = self._wake_by_itself if key == by else self._wake
            wake(key)

    def blocked_by(self, key: Key, references: Iterable[Reference]) -> None:
        """Wake this key when one of these objects changes, for example one whose name the key needs."""
        blockers = frozenset(references)
        if blockers:
            self._blocked_by[key] = blockers
        elif self._blocked_by.pop(key, None) is None:
            return
        self._index(key)

    def _note_references(self, controller: Controller[Any, Any], manifest: Manifest, change: Change) -> Key:
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
    """A controller's answer; empty when it raises, because an odd object must not end the watch."""
    try:
        return tuple(question(*arguments))
    except Exception:
        log.exception("wake_failed", question=getattr(question, "__qualname__", repr(question)))
        return ()
