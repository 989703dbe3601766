"""The keys of callers in a mounted secret: each entry is one caller, and its value is that caller's key.

Keys are never logged. Only their hashes are kept. An entry that can be no key is nobody's, and is told.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.secret_files import entries_in

READ_EVERY_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class MountedKeys:
    """The keys of a mounted secret, read again every second to notice changes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._hashes: Mapping[str, bytes] = {}
        self._problems: Sequence[str] = ()

    async def follow(self, interval_seconds: float = READ_EVERY_SECONDS) -> None:
        """Read the entries again and again, forever: without this, a revoked key would stay valid."""
        while True:
            try:
                await self.refresh()
            except Exception:
                log.exception("caller_keys_not_read", directory=str(self._directory))
            await asyncio.sleep(interval_seconds)

    async def refresh(self) -> None:
        """Read the entries. While the directory cannot be read, the entries read before stay valid."""
        try:
            found = await asyncio.to_thread(entries_in, self._directory)
        except OSError as problem:
            log.warning(
                "caller_keys_unreadable", directory=str(self._directory), problem=what_failed(problem)
            )
            return
        hashes = {name: _hash(key.encode()) for name, key in found.values.items()}
        if found.problems != self._problems:
            log.warning("caller_keys_unusable", problems=found.problems)
        self._problems = found.problems
        if hashes != self._hashes:
            log.info("caller_keys_changed", callers=sorted(hashes))
        self._hashes = hashes

    def caller_of(self, key: str) -> str | None:
        """The entry with this value, None for none. All are compared, so the duration reveals nothing."""
        presented = _hash(key.encode("latin-1"))  # as HTTP headers are decoded
        found = [name for name, known in self._hashes.items() if hmac.compare_digest(known, presented)]
        return found[0] if found else None


def bearer_token(authorization: str | None) -> str | None:
    """The token as it was sent, None for none.

    Only spaces and tabs around it are removed. No key has them at its ends (`contract.secret_values`).
    """
    scheme, _, rest = (authorization or "").strip(" \t").partition(" ")
    token = rest.strip(" \t")
    return token if scheme.lower() == "bearer" and token else None


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
