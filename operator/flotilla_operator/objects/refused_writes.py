"""Writes that the API server or the operator itself refused, as values."""

from dataclasses import dataclass
from enum import StrEnum

from flotilla_operator.objects.resources import ObjectRef


class WriteReason(StrEnum):
    """Why a write was refused."""

    NAME_TAKEN = "NameTaken"
    NAMESPACE_TERMINATING = "NamespaceTerminating"
    FORBIDDEN = "Forbidden"
    QUOTA_EXCEEDED = "QuotaExceeded"
    INVALID = "Invalid"
    CONFLICT = "Conflict"
    BEING_DELETED = "BeingDeleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedWrite:
    """One write that was refused, and why. The other writes are carried out."""

    ref: ObjectRef
    reason: WriteReason
    message: str
