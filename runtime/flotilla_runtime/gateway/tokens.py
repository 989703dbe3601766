"""The claims of a token, as far as everybody can read them. They are believed of no token by themselves.

The API server says whether a token is good. Its claims then tell when it ends, and of one that was refused
they help to say why.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PARTS: Final = 3  # of a signed JSON web token: head, claims, signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of a token, unverified; `audiences` is None where it names none."""

    audiences: tuple[str, ...] | None = None
    expires_at: float | None = None


def claims_of(token: str) -> Claims | None:
    """The claims of a JSON web token; None for what is none."""
    parts = token.split(".")
    if len(parts) != PARTS:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    if not isinstance(found, Mapping):
        return None
    return Claims(audiences=_audiences(found.get("aud")), expires_at=_seconds(found.get("exp")))


def _audiences(named: Any) -> tuple[str, ...] | None:
    listed = [named] if isinstance(named, str) else named
    if not isinstance(listed, list):
        return None
    return tuple(one for one in listed if isinstance(one, str)) or None


def _seconds(time: Any) -> float | None:
    """A time in seconds since 1970; None for what is no number, or none that a time can be."""
    if isinstance(time, bool) or not isinstance(time, int | float):
        return None
    return float(time) if abs(time) < 1e15 else None
