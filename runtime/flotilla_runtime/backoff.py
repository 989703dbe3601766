"""How long to wait before something that failed is tried again: longer after each failure, with jitter. Pure.

The jitter keeps those that failed at the same time from trying again at the same time. The randomness is an
argument.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

Draw = Callable[[float, float], float]  # picks a number from a range, as random.uniform does

MOST_DOUBLINGS: Final = 64  # avoids an overflow; waits reach their limit long before


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The longest wait after n failures in a row is base · 2ⁿ⁻¹, at most the limit.

    `least_share` is the share of the longest wait that every wait has. With 0 the jitter is full: a wait is a
    random time between zero and the longest.
    """

    base_seconds: float
    limit_seconds: float
    least_share: float = 0.0

    def seconds_after(self, failures: int, draw: Draw) -> float:
        """The wait after this many failures in a row."""
        doublings = min(failures - 1, MOST_DOUBLINGS)
        longest = min(self.limit_seconds, self.base_seconds * 2.0**doublings)
        return draw(self.least_share * longest, longest)
