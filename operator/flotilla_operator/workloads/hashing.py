"""Hashes that stay the same for the same meaning, whatever order the keys came in."""

import base64
import hashlib
import json
from typing import Any


def stable_hash(value: Any, *, length: int = 10) -> str:
    """A short name-safe hash of a JSON value; the order of mapping keys does not count, that of lists
    does.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    digest = hashlib.sha256(canonical.encode()).digest()
    return base64.b32encode(digest).decode().lower()[:length]
