"""The points at which a test can end the process: before and after each kind of write.

The function that is called at these points is passed in. Production passes `go_on`; a test passes a function
that kills its own process at one of the points.
"""

from enum import StrEnum


class CrashPoint(StrEnum):
    """A point before or after one kind of write."""

    BEFORE_APPLY = "before-apply"
    AFTER_APPLY = "after-apply"
    BEFORE_CREATE = "before-create"
    AFTER_CREATE = "after-create"
    BEFORE_JSON_PATCH = "before-json-patch"
    AFTER_JSON_PATCH = "after-json-patch"
    BEFORE_DELETE = "before-delete"
    AFTER_DELETE = "after-delete"
    BEFORE_FINALIZERS = "before-finalizers"
    AFTER_FINALIZERS = "after-finalizers"
    BEFORE_STATUS = "before-status"
    AFTER_STATUS = "after-status"
    BEFORE_EVENT = "before-event"
    AFTER_EVENT = "after-event"
    BEFORE_LEASE = "before-lease"
    AFTER_LEASE = "after-lease"


def go_on(_point: CrashPoint) -> None:
    """Do nothing, in production."""
