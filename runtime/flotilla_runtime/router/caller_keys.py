"""Reads the callers' keys from the mounted secret and makes the map in which HAProxy looks them up.

Each entry of the secret is one caller, and its value is the key. Only the SHA-256 of a key leaves this
module, in HAProxy's format (upper-case hexadecimal).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flotilla_runtime.secret_files import entries_in

ANONYMOUS = "anonymous"  # the name of every caller when no keys are required


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerKeys:
    """The callers by the hash of their key, and what is wrong with the entries that can be no key."""

    by_hash: Mapping[str, str]
    problems: tuple[str, ...] = ()


def read_caller_keys(directory: Path) -> CallerKeys:
    """The keys of the mounted secret. Without the directory there are none."""
    if not directory.is_dir():
        return CallerKeys(by_hash={})
    found = entries_in(directory)
    hashes = {hashlib.sha256(key.encode()).hexdigest().upper(): name for name, key in found.values.items()}
    return CallerKeys(by_hash=hashes, problems=found.problems)


def map_text(keys: Mapping[str, str]) -> str:
    """The content of the map file, from which a restarted HAProxy knows the callers at once."""
    return "".join(f"{digest} {caller}\n" for digest, caller in sorted(keys.items()))
