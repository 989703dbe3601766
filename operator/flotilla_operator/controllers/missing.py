"""Fault of a reference: its object does not exist, or is not as it must be."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flotilla_operator.controllers.chains import Finding
from flotilla_operator.controllers.conditions import MendedBy


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Why something that the object names cannot be used, and what ends that."""

    reason: StrEnum
    message: str
    mended_by: MendedBy = MendedBy.PERSON


def finding_of(missing: Sequence[Missing]) -> Finding | None:
    """An objection with the messages of all; what a person must mend comes first and gives the reason."""
    if not missing:
        return None
    ordered = sorted(missing, key=lambda one: one.mended_by is not MendedBy.PERSON)
    first, message = ordered[0], "; ".join(one.message for one in ordered)
    return Finding(reason=first.reason, message=message, mended_by=first.mended_by)
