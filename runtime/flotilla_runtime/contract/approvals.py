"""Ids of the approvals of a tool's calls, which the journal makes and the command line reads."""

import re
from typing import Final

# Ends the id, with a number from the second one on; no name has a #.
OF_APPROVAL: Final = "#approval"
APPROVAL: Final = re.compile(rf"(?P<call>.*){OF_APPROVAL}(?:-(?P<number>[0-9]+))?", re.DOTALL)


def approval_of(call: str, number: int = 1) -> str:
    """The id of an approval of a tool's call: of the first one, or of the one after so many others."""
    return f"{call}{OF_APPROVAL}" if number == 1 else f"{call}{OF_APPROVAL}-{number}"


def approved_call(call: str) -> str:
    """The call for whose approval this one asks; the call itself where it is no approval of a tool's call."""
    found = APPROVAL.fullmatch(call)
    return found["call"] if found else call


def is_asked_again(call: str) -> bool:
    """Whether this is an approval of a call that was approved before."""
    found = APPROVAL.fullmatch(call)
    return found is not None and found["number"] is not None
