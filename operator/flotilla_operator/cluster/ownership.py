"""Decides which objects are ours, and why a write was refused.

An object is ours when its controller owner reference has our UID; a name or a label alone proves nothing.
Retained objects outlive their owner, so they have no owner reference and are recognised by their labels.
"""

from dataclasses import dataclass
from typing import Final

from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.client import ApiError
from flotilla_operator.objects.owners import owner_reference
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.objects.resources import Key, Manifest, Resource, key_of
from flotilla_runtime.contract import LABEL_OWNER_KIND, LABEL_OWNER_NAME

NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
# The API server answers 403 both for an exhausted quota, which can end by itself, and for what an admission
# plugin forbids, which cannot. Only the message tells the two apart.
EXCEEDED_QUOTA: Final = "exceeded quota: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The object that is reconciled. It owns the objects that are written for it."""

    resource: Resource
    manifest: Manifest

    @property
    def uid(self) -> str:
        """The object's UID."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def key(self) -> Key:
        """The key under which it is reconciled."""
        return key_of(self.resource, self.manifest)

    @property
    def reference(self) -> Manifest:
        """The owner reference for its children."""
        return owner_reference(self.resource.kind, self.manifest["metadata"]["name"], self.uid)


class RefusedError(Exception):
    """Raised inside a write; the writer turns it into a `RefusedWrite`."""

    def __init__(self, reason: WriteReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def refusal_reason(error: ApiError) -> WriteReason:
    """The reason for a refusal by the API server; an error that concerns no object is a failure."""
    if NAMESPACE_TERMINATING in error.causes:
        return WriteReason.NAMESPACE_TERMINATING
    match error.status:
        case 403:
            used_up = EXCEEDED_QUOTA in error.message
            return WriteReason.QUOTA_EXCEEDED if used_up else WriteReason.FORBIDDEN
        case 400 | 422:
            return WriteReason.INVALID
        case 409:
            return WriteReason.CONFLICT
        case _:
            return WriteReason.FAILED


def refuse_unless_ours(owner: Reconciled, live: Manifest, *, retained: bool) -> None:
    """Raise `RefusedError` when the live object is not ours or is being deleted."""
    metadata = live["metadata"]
    if not (_is_kept_for(owner, live) if retained else controller_uid(live) == owner.uid):
        if _is_of_predecessor(owner, live):
            raise RefusedError(
                WriteReason.BEING_DELETED,
                f"{live['kind']} {metadata['name']} belongs to a deleted {owner.resource.kind} of the same "
                "name; wait until the garbage collector has removed it",
            )
        raise RefusedError(
            WriteReason.NAME_TAKEN,
            f"{live['kind']} {metadata['name']} exists and does not belong to this {owner.resource.kind}; "
            f"delete it, or give this {owner.resource.kind} another name",
        )
    if metadata.get("deletionTimestamp"):
        raise RefusedError(
            WriteReason.BEING_DELETED,
            f"{live['kind']} {metadata['name']} is being deleted; it is made again once it is gone",
        )


def _is_of_predecessor(owner: Reconciled, live: Manifest) -> bool:
    """Whether it belongs to an earlier object of the owner's kind and name."""
    references = live["metadata"].get("ownerReferences") or ()
    return any({**reference, "uid": owner.uid} == owner.reference for reference in references)


def _is_kept_for(owner: Reconciled, live: Manifest) -> bool:
    labels = live["metadata"].get("labels") or {}
    named = (labels.get(LABEL_OWNER_KIND), labels.get(LABEL_OWNER_NAME))
    expected = (owner.resource.kind, owner.manifest["metadata"]["name"])
    return named == expected and controller_uid(live) is None
