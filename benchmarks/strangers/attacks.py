"""The attacks that docs/security.md says are stopped, and what became of those that were tried.

A test that plays an attack is marked `attack`, with the first cell of the page's row. The row says what stops
the attack, and the test fails where nothing does.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

MARK = "attack"
HEAD = re.compile(r"\| who tries what \|")
ROW = re.compile(r"\| (?P<attack>.+?) \| ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One test that played an attack: how the page names the attack, the test, and whether it passed.

    `operator_mib` is the most memory that the operator took meanwhile, where the test measures it.
    """

    attack: str
    test: str
    stopped: bool
    operator_mib: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Outcome of the attacks.

    `untried` are rows of the page that no test plays, `unknown` attacks of tests that the page does not have.
    """

    rows: tuple[str, ...]
    reached: tuple[str, ...]
    untried: tuple[str, ...]
    unknown: tuple[str, ...]
    operator_peak_mib: float | None


def attacks_of(page: str) -> tuple[str, ...]:
    """The first cells of all tables of the page whose first column is "who tries what"."""
    return tuple(chain.from_iterable(_rows(table) for table in page.split("\n\n") if HEAD.match(table)))


def report(rows: Sequence[str], played: Iterable[Played]) -> Report:
    """Sum up: a row was reached where one of its tests did not pass."""
    every = tuple(played)
    tried = {one.attack for one in every}
    memory = [one.operator_mib for one in every if one.operator_mib is not None]
    return Report(
        rows=tuple(rows),
        reached=tuple(row for row in rows if any(one.attack == row and not one.stopped for one in every)),
        untried=tuple(row for row in rows if row not in tried),
        unknown=tuple(sorted(tried - set(rows))),
        operator_peak_mib=round(max(memory), 1) if memory else None,
    )


def _rows(table: str) -> Iterator[str]:
    _, _, *rows = table.strip().splitlines()
    for row in rows:
        if found := ROW.match(row):
            yield found["attack"]
