"""How long to wait before something that failed is tried again: longer after each failure, with jitter. Pure.

The jitter is full: it keeps those that failed at the same time from trying again at the same time. The
randomness is an argument.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Draw = Callable[[float, float], float]  # picks a number from a range, as random.uniform does

MOST_DOUBLINGS: Final = 64  # avoids an overflow; waits reach their limit long before


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDelay:
    """The wait after n failures in a row is a random time between zero and base · 2ⁿ⁻¹, at most the limit."""

    base_seconds: float
    limit_seconds: float

    def seconds_after(self, failures: int, draw: Draw) -> float:
        """The wait after this many failures in a row."""
        doublings = min(failures - 1, MOST_DOUBLINGS)
        return draw(0.0, min(self.limit_seconds, self.base_seconds * 2.0**doublings))
