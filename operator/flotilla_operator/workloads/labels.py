"""The name and the labels of an object.

Every object that a kind makes is a `Child`. Its name is the owner's name with a suffix, so objects of
different kinds with the same name do not collide. Its selector has only labels that never change, because a
Deployment's selector is immutable. The user's labels never override ours, on which selectors and network
policies depend.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """One part of an owner; `component` is its role in labels, `suffix` the end of its name.

    `revision` sets it apart from parts of the same component that run at the same time.
    """

    owner: Owner
    component: str
    suffix: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """The object's name."""
        return f"{self.owner.name}-{self.suffix}" if self.suffix else self.owner.name

    @property
    def selector(self) -> dict[str, str]:
        """The selector of this part's pods, which never changes."""
        labels = {
            contract.LABEL_OWNER_KIND: self.owner.kind,
            contract.LABEL_OWNER_NAME: self.owner.name,
            contract.LABEL_COMPONENT: self.component,
        }
        return labels if self.revision is None else {**labels, contract.LABEL_REVISION: self.revision}

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
        """The object's metadata; `owned=False` is for objects that outlive their owner (a retained claim)."""
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
    """A label selector in the format of `kubectl -l` and of the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
