"""Who owns an object, what it is called, and the labels it is found by.

Every object that a kind makes is a `Child`: its name is the owner's with a suffix, so kinds of one name do
not collide, and its selector holds only what never changes (a Deployment's selector is immutable). Labels of
the user's never override ours, since selectors and network policies rest on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flotilla_runtime import contract

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The custom resource that an object belongs to."""

    kind: str
    namespace: str
    name: str
    uid: str

    @property
    def reference(self) -> Manifest:
        """The controller owner reference; `blockOwnerDeletion` makes foreground deletion wait for the
        child.
        """
        return {
            "apiVersion": contract.API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One part of an owner: `component` is its role in labels, `suffix` what its name adds to the owner's."""

    owner: Owner
    component: str
    suffix: str

    @property
    def name(self) -> str:
        """The object's name."""
        return f"{self.owner.name}-{self.suffix}" if self.suffix else self.owner.name

    @property
    def selector(self) -> dict[str, str]:
        """What finds this part's pods, and never changes."""
        return {
            contract.LABEL_OWNER_KIND: self.owner.kind,
            contract.LABEL_OWNER_NAME: self.owner.name,
            contract.LABEL_COMPONENT: self.component,
        }

    @property
    def labels(self) -> dict[str, str]:
        """The recommended labels and the selector."""
        return {
            **self.selector,
            contract.LABEL_MANAGED_BY: contract.MANAGED_BY,
            contract.LABEL_NAME: self.component,
            contract.LABEL_INSTANCE: self.owner.name,
        }

    def metadata(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        owned: bool = True,
    ) -> Manifest:
        """The object's metadata; `owned=False` is for what outlives its owner (a retained claim)."""
        metadata: Manifest = {
            "name": self.name,
            "namespace": self.owner.namespace,
            "labels": {**(labels or {}), **self.labels},
        }
        if annotations:
            metadata["annotations"] = dict(annotations)
        if owned:
            metadata["ownerReferences"] = [self.owner.reference]
        return metadata


def selector_text(labels: Mapping[str, str]) -> str:
    """A label selector as `kubectl -l` and the scale subresource take it."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
