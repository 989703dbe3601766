"""Plans of the benchmark's tasks. Pure, and shared by the agent and the run."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

TOOL_MS: Final = (500, 600, 700, 800, 900, 1000)  # six independent tools
SOURCES: Final = ("source_1", "source_2", "source_3", "source_4")
ROLES: Final = ("Default", "Routine", "Third")
DESKS: Final = 3  # actors
LETTERS: Final = 3  # messages to each actor, before it is asked how many it had
LETTER_MS: Final = 200
CHUNKS: Final = 12
GROUP: Final = 10
ITEMS: Final = 1000
SAMPLE: Final = 100  # items of the tree whose calls are made one after another, since 1,111 take minutes
CALLS: Final = 1111
STEPS: Final = 12
BRANCH_SECONDS: Final = 15.0  # a branch's time goes on while its worker is replaced, which takes seconds


class Story(StrEnum):
    """A pattern, or tasks of twelve steps."""

    FAN_OUT = "fan_out"
    DOCUMENTS = "documents"
    ENSEMBLE = "ensemble"
    SEARCH = "search"
    MAP_REDUCE = "map_reduce"
    PIPELINE = "pipeline"
    RACE = "race"
    ACTOR = "actor"
    STEPS = "steps"


class Mode(StrEnum):
    """How a story is done."""

    PATTERN = "pattern"
    SEQUENTIAL = "sequential"
    TROUBLED = "troubled"  # the pattern, with a branch that fails and one that hangs, under kills


@dataclass(frozen=True, slots=True)
class Order:
    """The input of a task."""

    story: Story
    mode: Mode
    task: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "story", Story(self.story))
        object.__setattr__(self, "mode", Mode(self.mode))


def items_of(mode: Mode) -> list[str]:
    """The items of a tree: a thousand, or a sample where they go one after another or under kills."""
    return [f"Item {number}." for number in range(ITEMS if mode is Mode.PATTERN else SAMPLE)]


def plan_of(order: Order) -> str:
    """Words of the engine double: three calls, and of a troubled one a fourth that fails."""
    calls: list[dict[str, Any]] = [
        {"name": f"{order.task}/call-{number}", "ms": 500, "ends": "well"} for number in range(3)
    ]
    if order.mode is Mode.TROUBLED:
        calls.append({"name": f"{order.task}/call-3", "ms": 10, "ends": "fails"})
    turns = [{"tool_calls": [{"name": "work", "arguments": call} for call in calls]}]
    return f"[[plan {json.dumps({'turns': turns})}]]"
