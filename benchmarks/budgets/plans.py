"""The trees of the benchmark: which task makes how many calls, with which prompts, under which limit. Pure.

A tree has 15 tasks on four levels. Together they ask the model 200 times, all at the same moment. Every limit
but one leaves room for all of it.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any, Final

DEPTH: Final = 3
CHILDREN: Final = 2
CALLS: Final = 200
FAILS: Final = "This is refused."  # the double answers such a prompt with an error
FAIL_EVERY: Final = 23
LONGEST_PROMPT: Final = 12  # repeats of a script's words
LEAST_TOKENS, MOST_TOKENS = 6, 40
INPUT_USD, OUTPUT_USD = 2.5, 10.0  # for a million tokens
NANO_USD_PER_USD: Final = 10**9
SCRIPTS: Final = (
    "The weather in Lisbon is mild.",
    "Погода в Лиссабоне мягкая.",
    "Ο καιρός στη Λισαβόνα είναι ήπιος.",
    "الطقس في لشبونة معتدل.",
    "מזג האוויר בליסבון נוח.",
    "लिस्बन में मौसम सुहावना है।",
    "อากาศในลิสบอนไม่รุนแรง",
    "里斯本的天气很温和。",
    "リスボンの天気はおだやかです。",
    "리스본의 날씨는 온화합니다.",
)


class Limit(StrEnum):
    """The limit that a tree is pressed against."""

    STEPS = "Steps"
    TOKENS = "Tokens"
    COST = "Cost"


LIMITS: Final[Mapping[Limit, Mapping[str, Any]]] = {
    Limit.STEPS: {"maxSteps": 120},
    Limit.TOKENS: {"maxTokens": 30_000},
    Limit.COST: {"maxCostUSD": 0.08},
}
ROOM: Final = {"max_steps": 10_000, "max_tokens": 10_000_000, "max_cost_usd": 100.0, "max_wall_seconds": 3600}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call of the model. `role` is that of a model whose server counts tokens, or does not."""

    name: str
    prompt: str
    max_tokens: int
    role: str


def paths() -> tuple[str, ...]:
    """The paths of a tree's tasks, the root's first: `r`, `r.0`, `r.0.1`, …"""
    levels = (product(map(str, range(CHILDREN)), repeat=depth) for depth in range(DEPTH + 1))
    return tuple(".".join(("r", *steps)) for level in levels for steps in level)


def children_of(path: str) -> tuple[str, ...]:
    """The paths of the tasks that this one spawns."""
    return tuple(f"{path}.{number}" for number in range(CHILDREN)) if path.count(".") < DEPTH else ()


def calls_of(tree: int, path: str) -> tuple[Asked, ...]:
    """The calls that this task makes at once."""
    tasks = paths()
    place = tasks.index(path)
    count, more = divmod(CALLS, len(tasks))
    return tuple(_asked(tree, path, number) for number in range(count + (place < more)))


def _asked(tree: int, path: str, number: int) -> Asked:
    drawn = random.Random(f"{tree}/{path}/{number}")
    name = f"{path}/call-{number}"
    words = " ".join([SCRIPTS[drawn.randrange(len(SCRIPTS))]] * drawn.randint(1, LONGEST_PROMPT))
    fails = FAILS if drawn.randrange(FAIL_EVERY) == 0 else ""
    return Asked(
        name=name,
        prompt=f"[task {tree} {name}] {words} {fails}".rstrip(),
        max_tokens=drawn.randint(LEAST_TOKENS, MOST_TOKENS),
        role=drawn.choice(("Default", "Routine")),
    )
