"""When to try a failed call again: full jitter, so that clients who failed together do not come back
together.

Pure: the randomness is an argument. A server's own Retry-After is kept to, with jitter on top.
"""

from collections.abc import Callable
from dataclasses import dataclass

MOST_DOUBLINGS = 30  # no pause is that long, and a float ends at a thousand


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """The pause before repetition n is drawn from zero to base · 2ⁿ⁻¹, or to the limit."""

    base_seconds: float
    limit_seconds: float

    def pause_seconds(
        self, failures: int, retry_after_seconds: float | None, draw: Callable[[float, float], float]
    ) -> float:
        """How long to wait after so many failures; `draw` picks a number from a range."""
        doublings = min(failures - 1, MOST_DOUBLINGS)
        jitter = draw(0.0, min(self.limit_seconds, self.base_seconds * 2**doublings))
        return min(retry_after_seconds or 0.0, self.limit_seconds) + jitter


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy(Pauses):
    """So many tries, with pauses in between."""

    tries: int


MODEL_RETRIES = RetryPolicy(tries=8, base_seconds=0.5, limit_seconds=30)
INDEX_RETRIES = RetryPolicy(tries=3, base_seconds=0.2, limit_seconds=2)
STORE_PAUSES = Pauses(base_seconds=0.1, limit_seconds=2)
