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

    @property
    def reference(self) -> Manifest:
        """The controller owner reference; with `blockOwnerDeletion`, a foreground deletion waits for it."""
        return {
            "apiVersion": contract.API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
