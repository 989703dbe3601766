"""The revisions whose tasks a worker takes: its own, and those that it has adopted.

The operator writes the adopted ones into a file, which the kubelet brings up to date while the worker runs.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from flotilla_runtime.contract.failure_texts import what_failed

READ_EVERY_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class Revisions:
    """Reads the file anew every few seconds. What cannot be read leaves everything as it was."""

    def __init__(self, own: str, path: str | None, monotonic_seconds: Callable[[], float]) -> None:
        self.own: Final = own
        self._path = Path(path) if path is not None else None
        self._clock = monotonic_seconds
        self._adopted: tuple[str, ...] = ()
        self._read_at = float("-inf")

    def now(self) -> tuple[str, ...]:
        """The worker's own revision, followed by the adopted ones."""
        if self._path is not None and self._clock() - self._read_at >= READ_EVERY_SECONDS:
            self._read_at = self._clock()
            self._read(self._path)
        return (self.own, *self._adopted)

    def _read(self, path: Path) -> None:
        try:
            adopted = tuple(read_adopted(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as problem:
            log.warning("adopted_revisions_unreadable", path=str(path), problem=what_failed(problem))
            return
        if adopted != self._adopted:
            log.info("revisions_adopted", revisions=adopted)
            self._adopted = adopted


def read_adopted(text: str) -> list[str]:
    """The revisions in a JSON list of texts; pure."""
    told = json.loads(text)
    if not isinstance(told, list) or not all(isinstance(revision, str) for revision in told):
        raise ValueError(f"expected a JSON list of revisions, got {text[:100]!r}")
    return told
