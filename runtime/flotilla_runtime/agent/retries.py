"""When to try a failed call again: full jitter, so that clients who failed together do not come back
together.

Pure: the randomness is an argument. A server's own Retry-After is kept to, with jitter on top.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """So many tries; the pause before repetition n is drawn from zero to base · 2ⁿ⁻¹, or to the limit."""

    tries: int
    base_seconds: float
    limit_seconds: float

    def pause_seconds(
        self, failures: int, retry_after_seconds: float | None, draw: Callable[[float, float], float]
    ) -> float:
        """How long to wait after so many failures; `draw` picks a number from a range."""
        jitter = draw(0.0, min(self.limit_seconds, self.base_seconds * 2 ** (failures - 1)))
        return min(retry_after_seconds or 0.0, self.limit_seconds) + jitter


MODEL_RETRIES = RetryPolicy(tries=8, base_seconds=0.5, limit_seconds=30)
INDEX_RETRIES = RetryPolicy(tries=3, base_seconds=0.2, limit_seconds=2)
STORE_RETRIES = RetryPolicy(tries=30, base_seconds=0.1, limit_seconds=2)
