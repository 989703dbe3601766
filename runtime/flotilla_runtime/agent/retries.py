"""How often a failed call is tried again, and the pauses in between. Pure.

A server's Retry-After is respected, with jitter on top.
"""

from dataclasses import dataclass
from typing import Final

from flotilla_runtime.backoff import Backoff, Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """The number of tries, with pauses in between."""

    tries: int
    backoff: Backoff

    def pause_seconds(self, failures: int, retry_after_seconds: float | None, draw: Draw) -> float:
        """The pause after this many failures."""
        asked = min(retry_after_seconds or 0.0, self.backoff.limit_seconds)
        return asked + self.backoff.seconds_after(failures, draw)


MODEL_RETRIES: Final = RetryPolicy(tries=8, backoff=Backoff(base_seconds=0.5, limit_seconds=30))
INDEX_RETRIES: Final = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.2, limit_seconds=2))
TOOL_RETRIES: Final = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.2, limit_seconds=2))
STORE_BACKOFF: Final = Backoff(base_seconds=0.1, limit_seconds=2)
