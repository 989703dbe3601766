"""Writes that the API server or the operator itself refused, or that failed, as values."""

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
    FAILED = "WriteFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedWrite:
    """One write that was refused, and why. The other writes are carried out.

    `asks_for_fewer`: the API server has too much to do, so nothing more was sent. `retry_after_seconds` is
    the least time that it wants to be left alone.
    """

    ref: ObjectRef
    reason: WriteReason
    message: str
    asks_for_fewer: bool = False
    retry_after_seconds: float | None = None
