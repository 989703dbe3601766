"""Callers' keys as the mounted secret holds them → the map HAProxy looks them up in.

One entry of the secret is one caller; its value is the key. Only the SHA-256 of a key leaves this module,
in the form in which HAProxy computes it (upper-case hexadecimal).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

ANONYMOUS = "anonymous"  # every caller's name where no keys are asked for


def read_caller_keys(directory: Path) -> dict[str, str]:
    """Callers by the hash of their key; no directory or an empty entry lets nobody in.

    Kubernetes swaps the whole secret by a link that starts with '..'; those names are no entries.
    """
    if not directory.is_dir():
        return {}
    entries = sorted(
        path for path in directory.iterdir() if not path.name.startswith("..") and path.is_file()
    )
    keys = ((path.read_bytes().strip(), path.name) for path in entries)
    return {hashlib.sha256(key).hexdigest().upper(): caller for key, caller in keys if key}


def map_text(keys: Mapping[str, str]) -> str:
    """The map's file, from which a restarted HAProxy knows the callers before the agent has spoken."""
    return "".join(f"{digest} {caller}\n" for digest, caller in sorted(keys.items()))
