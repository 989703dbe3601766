"""The limits of a benchmark's figures; a benchmark fails when a figure misses its limit.

A figure that was not measured counts as missed, so that a renamed key is noticed. A miss that
docs/performance.md reports is marked as known: it is printed, and the benchmark does not fail for it.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from operator import eq, ge, le, lt
from typing import Any


class Sense(Enum):
    """How a figure is compared with its limit."""

    UNDER = ("under", lt)
    AT_MOST = ("at most", le)
    AT_LEAST = ("at least", ge)
    EXACTLY = ("exactly", eq)

    def __init__(self, words: str, holds: Callable[[float, float], bool]) -> None:
        self.words = words
        self.holds = holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One figure, found by its path of JSON keys, and its limit."""

    path: tuple[str, ...]
    sense: Sense
    limit: float
    known_to_miss: bool = False

    def miss(self, figures: Mapping[str, Any]) -> "Miss | None":
        """The miss, or None when the figure is within its limit."""
        found: Any = figures
        for key in self.path:
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is not None and self.sense.holds(found, self.limit):
            return None
        return Miss(wanted=self, found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A figure that misses its limit; `found` is None when it was not measured."""

    wanted: Wanted
    found: float | None

    def __str__(self) -> str:
        name = " of ".join(reversed(self.wanted.path))
        is_now = "was not measured" if self.found is None else f"is {self.found:.6g}"
        known = " (known, see docs/performance.md)" if self.wanted.known_to_miss else ""
        return f"missed{known}: {name} {is_now}, wanted {self.wanted.sense.words} {self.wanted.limit:g}"


def under(limit: float, *path: str) -> Wanted:
    """The figure must be less than the limit."""
    return Wanted(path=path, sense=Sense.UNDER, limit=limit)


def at_most(limit: float, *path: str) -> Wanted:
    """The figure must be the limit or less."""
    return Wanted(path=path, sense=Sense.AT_MOST, limit=limit)


def at_least(limit: float, *path: str) -> Wanted:
    """The figure must be the limit or more."""
    return Wanted(path=path, sense=Sense.AT_LEAST, limit=limit)


def exactly(limit: float, *path: str) -> Wanted:
    """The figure must equal the limit; True is 1."""
    return Wanted(path=path, sense=Sense.EXACTLY, limit=limit)


def known_to_miss(wanted: Wanted) -> Wanted:
    """The same limit, but a miss is only printed."""
    return replace(wanted, known_to_miss=True)


def misses(figures: Mapping[str, Any], wanted: Iterable[Wanted]) -> list[Miss]:
    """The figures that miss their limits, in the order of `wanted`."""
    return [miss for each in wanted if (miss := each.miss(figures)) is not None]


def add_only_print(parser: argparse.ArgumentParser) -> None:
    """Add the option --only-print, which every benchmark has."""
    parser.add_argument(
        "--only-print", action="store_true", help="end with exit status 0 even when a figure misses its limit"
    )


def conclude(figures: Mapping[str, Any], wanted: Sequence[Wanted], *, only_print: bool) -> int:
    """Print the misses, and the figures as the last line; returns the exit status."""
    missed = misses(figures, wanted)
    for miss in missed:
        print(miss)
    print(json.dumps(figures))
    fails = any(not miss.wanted.known_to_miss for miss in missed)
    return int(fails and not only_print)
