"""Hashes of JSON values that do not depend on the order of keys.

There are two for JSON values, and neither may change, because their results stand in clusters: names and
labels hold those of `stable_hash`, annotations of written objects those of `hash_of`.
"""

import base64
import hashlib
import hmac
import json
from typing import Any


def stable_hash(value: Any, *, length: int = 10) -> str:
    """A short hash of a JSON value that is valid in names; the order of lists matters, that of keys not."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _name_safe(hashlib.sha256(canonical.encode()).digest(), length)


def hash_of(value: Any) -> str:
    """The hash of what was written; after a change of it, every object would be written once more."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def keyed_hash(value: bytes, *, key: str, length: int = 16) -> str:
    """A short hash of a secret that may be public: without the key nobody can test guesses against it."""
    return _name_safe(hmac.digest(key.encode(), value, "sha256"), length)


def _name_safe(digest: bytes, length: int) -> str:
    return base64.b32encode(digest).decode().lower()[:length]
