"""Whether a worker takes tasks while models refuse its calls; pure.

A call counts as refused when its model turned away even the last try of it (429, 5xx, or no connection).
While a model does so, a new task would only join those that wait for it. After a pause one task is taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How often in a row a model has refused, and until when nothing is taken for it."""

    in_a_row: int = 0
    until: float = float("-inf")


NONE: Final = Refusals()


def after_reply(before: Refusals, *, is_refused: bool, now: float) -> Refusals:
    """Return the refusals after a reply. Those of calls under way during a pause do not make it longer."""
    if not is_refused:
        return NONE
    if now < before.until:
        return before
    pause = min(FIRST_PAUSE_SECONDS * 2**before.in_a_row, LONGEST_PAUSE_SECONDS)
    return Refusals(in_a_row=before.in_a_row + 1, until=now + pause)


def most_to_claim(models: Iterable[Refusals], free: int, now: float) -> int:
    """How many of the free places may be filled: none in a pause, one after it, until a model answers."""
    refusing = [model for model in models if model.in_a_row]
    if any(now < model.until for model in refusing):
        return 0
    return min(free, 1) if refusing else free
