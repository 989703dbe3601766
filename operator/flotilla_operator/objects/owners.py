"""The custom resource that other objects belong to."""

from dataclasses import dataclass

from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The custom resource to which an object belongs."""

    kind: str
    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, kind: str, manifest: Manifest) -> "Owner":
        """The custom resource of this kind as the owner of its objects."""
        metadata = manifest["metadata"]
        return cls(kind=kind, namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])

    @property
    def reference(self) -> Manifest:
        """The owner reference for its children."""
        return owner_reference(self.kind, self.name, self.uid)


def owner_reference(kind: str, name: str, uid: str) -> Manifest:
    """The reference to a controlling owner of our kinds; a foreground deletion of it waits for the child."""
    return {
        "apiVersion": contract.API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
