"""Checks of who may search: callers that send a key of the mounted secret.

While workers of an older release still search without a key, the operator lets those in too. It says so in a
file beside the configuration, which is read again like the keys. A wrong key is refused even then.
"""

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

import structlog

from flotilla_runtime.contract import KEYLESS, RetrieverConfig
from flotilla_runtime.mounted_keys import READ_EVERY_SECONDS, MountedKeys, bearer_token
from flotilla_runtime.retrieval.problems import ProblemError

LOG = structlog.get_logger()
ANONYMOUS: Final = "anonymous"  # the caller of a search without a key, where that is let in
UNKNOWN: Final = "unknown"  # the caller of a search that is refused for its key

MISSING_DETAIL: Final = (
    "the search has no key; send the header Authorization: Bearer, followed by a key of the index's Secret"
)
WRONG_DETAIL: Final = "the key is not in the index's Secret; send one of its keys as the bearer token"


class Access(Protocol):
    """Identifies the caller of a search."""

    async def refresh(self) -> None:
        """Read again who may search."""

    async def follow(self) -> None:
        """Read it again and again, forever."""

    def caller_of(self, authorization: str | None) -> str:
        """The caller that sent this Authorization header; raises a ProblemError when it may not search."""


class Everybody:
    """No keys are asked for: the operator is older, and mounts none."""

    async def refresh(self) -> None:
        """Nothing can change."""

    async def follow(self) -> None:
        """Nothing can change."""

    def caller_of(self, authorization: str | None) -> str:
        """Everybody is the same caller."""
        return ANONYMOUS


class KeyHolders:
    """Callers with a key and, for as long as the operator says so, those without one."""

    def __init__(self, keys: MountedKeys, keyless_path: Path) -> None:
        self._keys = keys
        self._keyless_path = keyless_path
        self._keyless = False

    async def refresh(self) -> None:
        """Read the keys, and whether searches without one are let in: not if that cannot be read."""
        await self._keys.refresh()
        self._keyless = await asyncio.to_thread(_says_keyless, self._keyless_path)

    async def follow(self) -> None:
        """Read both every second."""
        while True:
            try:
                await self.refresh()
            except Exception:
                LOG.exception("access_not_read")
            await asyncio.sleep(READ_EVERY_SECONDS)

    def caller_of(self, authorization: str | None) -> str:
        """The entry of the secret that has the key."""
        if authorization is None and self._keyless:
            return ANONYMOUS
        token = bearer_token(authorization)
        if token is None:
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", MISSING_DETAIL)
        caller = self._keys.caller_of(token)
        if caller is None:
            raise ProblemError(HTTPStatus.UNAUTHORIZED, "unauthorized", WRONG_DETAIL)
        return caller


def access_to(config: RetrieverConfig) -> Access:
    """The check of who may search, by the configuration."""
    if config.caller_keys_directory is None:
        return Everybody()
    return KeyHolders(MountedKeys(Path(config.caller_keys_directory)), Path(config.keyless_path))


def _says_keyless(path: Path) -> bool:
    try:
        return path.read_text().strip() == KEYLESS
    except (OSError, ValueError):
        return False
