"""The ClusterRoleBinding of a fleet's gateways, as it is in the cluster."""

from collections.abc import Iterable
from dataclasses import dataclass

from flotilla_operator.controllers.live_objects import LiveObject, live_object
from flotilla_operator.objects.resources import Manifest

Subject = tuple[str | None, str | None, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveBinding:
    """A binding, whoever made it: whom it gives which role, and the UIDs of what owns it."""

    live: LiveObject
    role: str | None
    subjects: frozenset[Subject]
    owners: frozenset[str]

    def binds_as(self, wanted: Manifest) -> bool:
        """Whether it gives the same role to the same subjects, and goes with the same namespace.

        A namespace that was made anew has another UID, so a binding of before would go without it.
        """
        same = live_binding({**wanted, "metadata": {**wanted["metadata"], "uid": self.live.uid}})
        return (self.role, self.subjects) == (same.role, same.subjects) and same.owners <= self.owners


def live_binding(manifest: Manifest) -> LiveBinding:
    """Read a binding from its manifest."""
    return LiveBinding(
        live=live_object(manifest),
        role=(manifest.get("roleRef") or {}).get("name"),
        subjects=frozenset(_subjects(manifest)),
        owners=frozenset(one["uid"] for one in manifest["metadata"].get("ownerReferences") or ()),
    )


def _subjects(manifest: Manifest) -> Iterable[Subject]:
    for one in manifest.get("subjects") or ():
        yield one.get("kind"), one.get("namespace"), one.get("name")
