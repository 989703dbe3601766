"""Decides when a deleted index lets go of its finalizer. Pure.

The collections in an external Milvus are removed first, if the deletion policy says so. At the deadline the
index lets go in any case, and an event says what was left: nothing outside the cluster may block a deletion.
The time counts from the operator's first look, because nobody could remove anything before.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from flotilla_operator.controllers.vector_index.cleanup import CleanupState
from flotilla_operator.controllers.vector_index.seen import Leaving

CLEANUP_LOOK_SECONDS = 1.0
CLEANUP_DEADLINE = timedelta(seconds=45)


class FarewellReason(StrEnum):
    """How far the farewell of a deleted index is."""

    NOT_HELD = "NotHeld"  # our finalizer is gone, and something else holds the index
    NOTHING_OUTSIDE = "NothingOutside"
    UNDER_WAY = "UnderWay"
    REMOVED = "Removed"
    GIVEN_UP = "GivenUp"
    TOO_LATE = "TooLate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Farewell:
    """Next step of a deleted index; `starts` says that the removal of its collections starts.

    `message` says what was not removed and why, where that is known.
    """

    leaving: Leaving
    reason: FarewellReason
    message: str = ""
    starts: bool = False

    @property
    def lets_go(self) -> bool:
        return self.reason is not FarewellReason.UNDER_WAY


def farewell(leaving: Leaving, now: datetime) -> Farewell:
    """How far the farewell is."""
    if not leaving.held:
        return Farewell(leaving=leaving, reason=FarewellReason.NOT_HELD)
    if not leaving.deletes or (leaving.remains is None and not leaving.unreadable):
        return Farewell(leaving=leaving, reason=FarewellReason.NOTHING_OUTSIDE)
    cleanup = leaving.cleanup if not leaving.unreadable else None
    if cleanup is not None and cleanup.state is CleanupState.DONE:
        return Farewell(leaving=leaving, reason=FarewellReason.REMOVED)
    if cleanup is not None and cleanup.state is CleanupState.GIVEN_UP:
        return Farewell(leaving=leaving, reason=FarewellReason.GIVEN_UP, message=cleanup.message)
    over = now >= leaving.looked_at_since + CLEANUP_DEADLINE
    return Farewell(
        leaving=leaving,
        reason=FarewellReason.TOO_LATE if over else FarewellReason.UNDER_WAY,
        message=leaving.unreadable,
        starts=cleanup is None and not leaving.unreadable,
    )
