"""The short names by which what was written is recognised in an annotation.

They stand in the cluster beside what they name: another way to make them would write everything once more.
"""

import hashlib
import json
from typing import Any


def hash_of(value: Any) -> str:
    """A short name for exactly this value of JSON, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]
