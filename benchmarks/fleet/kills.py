"""Plan of kills, drawn from a seed: a process and a time for each."""

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet.site import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A kill: of one process of a part, so many seconds after the first task was submitted."""

    after_seconds: float
    part: Part
    number: int


def kills_of(
    seed: int, count: int, seconds: float, sizes: Mapping[Part, int], shares: Mapping[Part, int]
) -> tuple[Planned, ...]:
    """So many kills within this time, in the order of time. `shares` says how often each part is hit."""
    drawn = random.Random(f"{seed}/kills")
    times = sorted(drawn.uniform(0, seconds) for _ in range(count))
    parts = drawn.choices(tuple(shares), weights=tuple(shares.values()), k=count)
    return tuple(
        Planned(after_seconds=after, part=part, number=drawn.randrange(sizes[part]))
        for after, part in zip(times, parts, strict=True)
    )


def each_in_time(kills: Iterable[Planned]) -> Iterator[Planned]:
    """Each of these kills when its time has come, or later where the one before took long."""
    began = time.monotonic()
    for planned in kills:
        time.sleep(max(0.0, began + planned.after_seconds - time.monotonic()))
        yield planned
