"""Marks objects in the caches that were sent to the API server, but were never seen there."""

from collections.abc import Mapping
from typing import Any

PREFIX = "unseen-"  # no UID of the API server begins with this


def unseen_uid(unique: str) -> str:
    """A UID for such an object."""
    return f"{PREFIX}{unique}"


def is_unseen(metadata: Mapping[str, Any]) -> bool:
    """Whether nobody knows whether the object with this metadata exists."""
    return str(metadata["uid"]).startswith(PREFIX)
