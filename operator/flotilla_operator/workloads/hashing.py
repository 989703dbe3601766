"""Hashes that stay the same for the same meaning, whatever order the keys came in."""

import base64
import hashlib
import hmac
import json
from typing import Any


def stable_hash(value: Any, *, length: int = 10) -> str:
    """A short name-safe hash of a JSON value; the order of mapping keys does not count, that of lists
    does.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _name_safe(hashlib.sha256(canonical.encode()).digest(), length)


def keyed_hash(value: bytes, *, key: str, length: int = 16) -> str:
    """A short hash of a secret value, fit to be shown: without the key nobody can try values against it."""
    return _name_safe(hmac.digest(key.encode(), value, "sha256"), length)


def _name_safe(digest: bytes, length: int) -> str:
    return base64.b32encode(digest).decode().lower()[:length]
