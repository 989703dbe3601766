"""Reads the callers' keys from the mounted secret and makes the map in which HAProxy looks them up.

Each entry of the secret is one caller, and its value is the key. Only the SHA-256 of a key leaves this
module, in HAProxy's format (upper-case hexadecimal).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

ANONYMOUS = "anonymous"  # the name of every caller when no keys are required


def read_caller_keys(directory: Path) -> dict[str, str]:
    """The callers by the hash of their key. Without the directory there are none; empty entries are ignored.

    Kubernetes replaces a secret's files with a link whose name starts with '..'; such names are not entries.
    """
    if not directory.is_dir():
        return {}
    entries = sorted(
        path for path in directory.iterdir() if not path.name.startswith("..") and path.is_file()
    )
    keys = ((path.read_bytes().strip(), path.name) for path in entries)
    return {hashlib.sha256(key).hexdigest().upper(): caller for key, caller in keys if key}


def map_text(keys: Mapping[str, str]) -> str:
    """The content of the map file, from which a restarted HAProxy knows the callers at once."""
    return "".join(f"{digest} {caller}\n" for digest, caller in sorted(keys.items()))
