"""Plan of each task of the benchmark: 20 calls, drawn from a seed. Pure.

The agent carries a plan out, and the checker knows from it which effects must have happened.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from fleet.calls import Kind

STEPS = 20
GROUP = 4
GROUPS = 2
PARALLEL_EVERY = 3  # one task of three makes some of its calls at the same time
LEAST_MS = 100


SHARES = {Kind.MODEL: 5, Kind.LOOK_UP: 3, Kind.BOOK: 6, Kind.SHIP: 4, Kind.NOTIFY: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call. The tool waits `before_ms` until its effect happens, and `after_ms` until it answers."""

    name: str
    kind: Kind
    before_ms: int
    after_ms: int


Turn = tuple[Step, ...]


def turns_of(seed: int, task: int, longest_ms: int) -> tuple[Turn, ...]:
    """The task's turns. The steps of one turn are made at the same time."""
    drawn = random.Random(f"{seed}/{task}")
    steps = [_step(drawn, place, longest_ms) for place in range(STEPS)]
    groups = GROUPS if task % PARALLEL_EVERY == 0 else 0
    turns: list[Turn] = [tuple(steps[place * GROUP : (place + 1) * GROUP]) for place in range(groups)]
    turns += [(step,) for step in steps[groups * GROUP :]]
    drawn.shuffle(turns)
    return tuple(turns)


def steps_of(turns: tuple[Turn, ...]) -> Iterator[Step]:
    """All steps of a task."""
    return chain.from_iterable(turns)


def _step(drawn: random.Random, place: int, longest_ms: int) -> Step:
    kind = drawn.choices(tuple(SHARES), weights=tuple(SHARES.values()))[0]
    before, after = (drawn.randint(min(LEAST_MS, longest_ms), longest_ms) for _ in range(2))
    return Step(name=f"step-{place:02}", kind=kind, before_ms=before, after_ms=after)
