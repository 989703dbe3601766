"""Caches of the objects on the API server, filled by the reflectors and read by the controllers.

Objects are the raw dictionaries of the API. They are shared and never copied, because every reconcile reads
thousands of pods; readers must not change them. Objects can be looked up by name, by the UID of their
controlling owner and by any label of ours. Indexes are kept up to date, so no look-up walks the whole cache.

The result of each write is put into the cache at once, so the next reconcile sees it. An event that is older
than the cached object is dropped. The UIDs of deleted objects are remembered for a while, so that a late
event or a list that was already in flight cannot bring one back.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from flotilla_operator.objects.resources import FLOTILLA_GROUP, Manifest, Resource, resource_of
from flotilla_operator.objects.unseen import is_unseen

Place = tuple[str, str]
Entry = TypeVar("Entry", bound=Hashable)
LABEL_PREFIX = f"{FLOTILLA_GROUP}/"


def controller_uid(manifest: Manifest) -> str | None:
    """The UID of the owner that controls this object, if one does."""
    for reference in manifest["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return str(reference["uid"])
    return None


def is_newer(candidate: Manifest, held: Manifest) -> bool:
    """Whether `candidate` was written after `held`; resource versions of one object only grow."""
    new, old = candidate["metadata"].get("resourceVersion"), held["metadata"].get("resourceVersion")
    if new is None or old is None:
        return True
    return int(new) > int(old) if new.isdigit() and old.isdigit() else bool(new != old)


class Store:
    """One resource's objects and their indices."""

    def __init__(self) -> None:
        self._objects: dict[Place, Manifest] = {}
        self._by_owner: dict[str, set[Place]] = {}
        self._by_label: dict[tuple[str, str], set[Place]] = {}
        self._by_namespace: dict[str, set[Place]] = {}
        self._gone: set[str] = set()
        self._gone_earlier: set[str] = set()

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self._objects.values())

    def get(self, namespace: str, name: str) -> Manifest | None:
        """The object of that name."""
        return self._objects.get((namespace, name))

    def owned(self, uid: str) -> list[Manifest]:
        """The objects that the object with this UID controls, sorted by name."""
        return self._at(self._by_owner.get(uid, ()))

    def labelled(self, label: str, value: str) -> list[Manifest]:
        """The objects with this label of ours, sorted by namespace and name."""
        return self._at(self._by_label.get((label, value), ()))

    def in_namespace(self, namespace: str) -> list[Manifest]:
        """The objects of one namespace, sorted by name."""
        return self._at(self._by_namespace.get(namespace, ()))

    def put(self, manifest: Manifest) -> bool:
        """Keep an object unless it was deleted or the cached one is as new; returns whether it was kept."""
        metadata = manifest["metadata"]
        if metadata["uid"] in self._gone or metadata["uid"] in self._gone_earlier:
            return False
        place = (metadata.get("namespace", ""), metadata["name"])
        held = self._objects.get(place)
        if held is not None:
            if held["metadata"]["uid"] == metadata["uid"] and not is_newer(manifest, held):
                return False
            self._unindex(place, held)
            manifest = _sharing_spec(manifest, held)
        self._objects[place] = manifest
        self._index(place, manifest)
        return True

    def remove(self, namespace: str, name: str, uid: str) -> Manifest | None:
        """Remove the object with this UID, but not another one of its name, and ignore later events of it."""
        self._gone.add(uid)
        held = self._objects.get((namespace, name))
        if held is None or held["metadata"]["uid"] != uid:
            return None
        del self._objects[namespace, name]
        self._unindex((namespace, name), held)
        return held

    def uids(self, namespace: str | None = None) -> set[str]:
        """The UIDs of all objects that were seen on the API server, or of those in one namespace."""
        held = self if namespace is None else self.in_namespace(namespace)
        return {one["metadata"]["uid"] for one in held if not is_unseen(one["metadata"])}

    def forget_old_deletions(self) -> None:
        """Forget the deletions from before the previous call of this method, to bound the memory."""
        self._gone_earlier, self._gone = self._gone, set()

    def check(self) -> None:
        """Assert that every index matches the objects."""
        for index, entries_of in (
            (self._by_owner, self._owner_entries),
            (self._by_label, self._label_entries),
            (self._by_namespace, self._namespace_entries),
        ):
            expected: dict[object, set[Place]] = {}
            for place, manifest in self._objects.items():
                for entry in entries_of(manifest):
                    expected.setdefault(entry, set()).add(place)
            assert index == expected, f"index {index} does not match {expected}"

    def _at(self, places: Iterable[Place]) -> list[Manifest]:
        return [self._objects[place] for place in sorted(places)]

    @staticmethod
    def _owner_entries(manifest: Manifest) -> Sequence[str]:
        uid = controller_uid(manifest)
        return (uid,) if uid else ()

    @staticmethod
    def _label_entries(manifest: Manifest) -> Sequence[tuple[str, str]]:
        labels = manifest["metadata"].get("labels") or {}
        return [(label, value) for label, value in labels.items() if label.startswith(LABEL_PREFIX)]

    @staticmethod
    def _namespace_entries(manifest: Manifest) -> Sequence[str]:
        return (manifest["metadata"].get("namespace", ""),)

    def _index(self, place: Place, manifest: Manifest) -> None:
        for uid in self._owner_entries(manifest):
            self._by_owner.setdefault(uid, set()).add(place)
        for label in self._label_entries(manifest):
            self._by_label.setdefault(label, set()).add(place)
        for namespace in self._namespace_entries(manifest):
            self._by_namespace.setdefault(namespace, set()).add(place)

    def _unindex(self, place: Place, manifest: Manifest) -> None:
        for uid in self._owner_entries(manifest):
            _discard(self._by_owner, uid, place)
        for label in self._label_entries(manifest):
            _discard(self._by_label, label, place)
        for namespace in self._namespace_entries(manifest):
            _discard(self._by_namespace, namespace, place)


def _sharing_spec(manifest: Manifest, held: Manifest) -> Manifest:
    """The new version of an object with the spec of the one before, if both are equal.

    What a reconcile remembers of the older version then takes no memory of its own.
    """
    if "spec" in held and manifest.get("spec") == held["spec"]:
        return {**manifest, "spec": held["spec"]}
    return manifest


def _discard(index: dict[Entry, set[Place]], entry: Entry, place: Place) -> None:
    places = index[entry]
    places.discard(place)
    if not places:
        del index[entry]


class Caches:
    """The stores of every resource, as controllers read them."""

    def __init__(self) -> None:
        self._stores: dict[Resource, Store] = {}

    @classmethod
    def of(cls, *manifests: Manifest) -> "Caches":
        """Caches that hold these objects; for tests and simulations."""
        caches = cls()
        for manifest in manifests:
            metadata = manifest["metadata"]
            metadata.setdefault("uid", f"uid-of-{metadata['name']}")
            caches.store(resource_of(manifest)).put(manifest)
        return caches

    def store(self, resource: Resource) -> Store:
        """The store of one resource, empty at first."""
        if (store := self._stores.get(resource)) is None:
            store = self._stores[resource] = Store()
        return store

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """One object, or None; a resource without namespaces takes an empty one."""
        return self.store(resource).get(namespace, name)

    def owned(self, resource: Resource, uid: str) -> list[Manifest]:
        """The objects that the object with this UID controls (ownerReferences), sorted by name."""
        return self.store(resource).owned(uid)

    def listed(self, resource: Resource, namespace: str | None = None) -> list[Manifest]:
        """Every object, or those of one namespace."""
        store = self.store(resource)
        return list(store) if namespace is None else store.in_namespace(namespace)

    def by_label(self, resource: Resource, label: str, value: str) -> list[Manifest]:
        """The objects with this label, which starts with `flotilla.dev/`, sorted by namespace and name."""
        return self.store(resource).labelled(label, value)

    def forget_old_deletions(self) -> None:
        """Keep the memory of deletions bounded; to be called every few minutes."""
        for store in self._stores.values():
            store.forget_old_deletions()
