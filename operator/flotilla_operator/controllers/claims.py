"""Decides how a claim with data follows its owner's deletion policy. Pure.

A claim that is to be deleted with its owner has an owner reference, a retained one has none. After a change
of the policy, the claim first gets or loses the reference; the next reconcile applies it.
"""

from enum import StrEnum

from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.objects.owners import Owner


class ClaimReason(StrEnum):
    """Action on a claim, and its reason."""

    APPLIED = "Applied"
    ADOPTED = "Adopted"  # it was retained, and is to be deleted with its owner
    RELEASED = "Released"  # it was to be deleted with its owner, and is retained


def claim_reason(claim: LiveObject | None, owner: Owner, *, retained: bool, ours: bool) -> ClaimReason:
    """Decide the action on a claim. One that is not `ours` is applied, which the writer then refuses."""
    if claim is None or not ours:
        return ClaimReason.APPLIED
    if claim.controller_uid is None and not retained:
        return ClaimReason.ADOPTED
    if claim.controller_uid == owner.uid and retained:
        return ClaimReason.RELEASED
    return ClaimReason.APPLIED
