"""Whose an object is, and why a write was refused.

An object is ours by the UID in its controller owner reference; a name or a label alone proves nothing.
Retained objects outlive their owner, so they carry no reference and are known by the labels that name it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.client import ApiError
from flotilla_operator.cluster.resources import FLOTILLA_GROUP, Resource
from flotilla_operator.cluster.writes import Manifest, ObjectRef

LABEL_OWNER_KIND: Final = f"{FLOTILLA_GROUP}/kind"
LABEL_OWNER_NAME: Final = f"{FLOTILLA_GROUP}/owner"
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
# A quota that is used up passes by itself, as what an admission plugin forbids does not; the API server tells
# the two apart in its message alone.
EXCEEDED_QUOTA: Final = "exceeded quota: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The reconciled object, in whose name children are written."""

    resource: Resource
    manifest: Manifest

    @property
    def uid(self) -> str:
        """Its UID."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def reference(self) -> dict[str, Any]:
        """The owner reference its children carry; foreground deletion waits for them."""
        return {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "name": self.manifest["metadata"]["name"],
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


class RefusalReason(StrEnum):
    """Why a write was not done."""

    NAME_TAKEN = "NameTaken"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    FORBIDDEN = "Forbidden"
    QUOTA_EXCEEDED = "QuotaExceeded"
    INVALID = "Invalid"
    CONFLICT = "Conflict"
    BEING_DELETED = "BeingDeleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One write that was not done, and why; the rest of the plan went on."""

    ref: ObjectRef
    reason: RefusalReason
    message: str


class RefusedError(Exception):
    """Carries a refusal out of a write."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def refusal_reason(error: ApiError) -> RefusalReason:
    """What kind of refusal an answer is; one that says nothing about the object is raised again."""
    if NAMESPACE_TERMINATING in error.causes:
        return RefusalReason.NAMESPACE_TERMINATING
    match error.status:
        case 403:
            used_up = EXCEEDED_QUOTA in error.message
            return RefusalReason.QUOTA_EXCEEDED if used_up else RefusalReason.FORBIDDEN
        case 400 | 422:
            return RefusalReason.INVALID
        case 409:
            return RefusalReason.CONFLICT
        case _:
            raise error


def refuse_unless_ours(owner: Owner, live: Manifest, *, retained: bool) -> None:
    """Raise `RefusedError` when the live object is another's, or ours and on its way out."""
    metadata = live["metadata"]
    if not (_is_kept_for(owner, live) if retained else controller_uid(live) == owner.uid):
        if _is_of_predecessor(owner, live):
            raise RefusedError(
                RefusalReason.BEING_DELETED,
                f"{live['kind']} {metadata['name']} is of a deleted {owner.resource.kind} of this name; the "
                "garbage collector removes it",
            )
        raise RefusedError(
            RefusalReason.NAME_TAKEN,
            f"{live['kind']} {metadata['name']} exists and is not this object's; delete or rename it",
        )
    if metadata.get("deletionTimestamp"):
        raise RefusedError(RefusalReason.BEING_DELETED, f"{live['kind']} {metadata['name']} is being deleted")


def _is_of_predecessor(owner: Owner, live: Manifest) -> bool:
    """Whether it was left by an object of the owner's kind and name, of which there can be one at a time."""
    references = live["metadata"].get("ownerReferences") or ()
    return any({**reference, "uid": owner.uid} == owner.reference for reference in references)


def _is_kept_for(owner: Owner, live: Manifest) -> bool:
    labels = live["metadata"].get("labels") or {}
    named = (labels.get(LABEL_OWNER_KIND), labels.get(LABEL_OWNER_NAME))
    expected = (owner.resource.kind, owner.manifest["metadata"]["name"])
    return named == expected and controller_uid(live) is None
