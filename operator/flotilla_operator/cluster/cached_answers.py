"""Puts the API server's answers to writes into the caches, so that the next reconcile sees them at once."""

from typing import Protocol

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.reflector import Change
from flotilla_operator.cluster.stripped import stripped
from flotilla_operator.objects.resources import NEVER_WATCHED, Key, Manifest, ObjectRef, Resource


class OnWritten(Protocol):
    """Called for each object that a reconcile has changed."""

    def __call__(
        self, resource: Resource, manifest: Manifest, change: Change, by: Key | None = None, /
    ) -> None:
        """`by` is the key whose reconcile made the write."""


class CachedAnswers:
    """The caches, as the writer changes them."""

    def __init__(self, caches: Caches, on_change: OnWritten, *, quiet: bool = False) -> None:
        self._caches = caches
        self._quiet = quiet
        self._on_change = on_change

    def find(self, resource: Resource, ref: ObjectRef) -> Manifest | None:
        """The object in the cache; resources that are not watched are never in it."""
        return self._caches.get(resource, ref.namespace, ref.name)

    def keep(self, resource: Resource, live: Manifest, by: Key | None) -> None:
        """Keep the object as the API server has it now."""
        if resource in NEVER_WATCHED:
            return
        live = stripped(resource, live, quiet=self._quiet)
        if self._caches.store(resource).put(live):
            self._on_change(resource, live, Change.PUT, by)

    def evict(self, resource: Resource, ref: ObjectRef, uid: str | None, by: Key | None) -> None:
        """Drop the object with this UID; without one, whichever has the name."""
        held = self.find(resource, ref)
        gone = uid or (held["metadata"]["uid"] if held else None)
        if gone is None:
            return
        evicted = self._caches.store(resource).remove(ref.namespace, ref.name, gone)
        if evicted is not None:
            self._on_change(resource, evicted, Change.REMOVED, by)
