"""One run: each pattern, the same calls one after another, races, retries, and all patterns under kills."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from fleet.caller import Caller
from fleet.facts import FINAL, TaskFacts, statuses_in, tasks_in
from fleet.kills import Planned, each_in_time
from fleet.site import FLEET, MODEL, Part, Shape, Site, site
from patterns.server import slow_server
from patterns.stories import ROLES, SOURCES, Mode, Order, Story

ENTRYPOINT: Final = "patterns.agent:agent"
SIZES: Final = {Part.WORKER: 2, Part.DOUBLE: 2}
LOOK_SECONDS: Final = 0.2
REPEATS: Final = 3  # of a pattern alone, of which the median counts
END_SECONDS: Final = 120.0
PATTERNS: Final = tuple(story for story in Story if story is not Story.STEPS)
CALLS: Final = frozenset({"Model", "Tool", "Retrieve", "Tell", "Spawn"})
ARGUMENTS: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ms": {"type": "integer"}, "ends": {"type": "string"}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is run."""

    races: int
    step_tasks: int
    troubled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One task: what it was to do, and its facts."""

    order: Order
    facts: TaskFacts

    @property
    def result(self) -> Mapping[str, Any]:
        """Result of its agent; empty if it failed."""
        text = self.facts.fields.get("result")
        return json.loads(text) or {} if text else {}

    @property
    def is_whole(self) -> bool:
        """Whether the task ended with all that could be there."""
        return bool(self.result.get("is_whole"))

    @property
    def calls(self) -> int:
        """How many calls it made, each counted once."""
        intents = (entry for entry in self.facts.entries if entry.type == "Intended")
        return len({entry.call for entry in intents if entry.fields["kind"] in CALLS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All tasks, and how many milliseconds after the winner's answer each loser was closed."""

    done: Sequence[Done]
    closed_ms: Sequence[float]
    kills: int


def run(folder: Path, sizes: Sizes, kills: Sequence[Planned], seed: int) -> Outcome:
    """Start everything, run, and collect what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    orders: dict[str, Order] = {}
    with slow_server(folder, seed) as slow, site(folder, shape(slow)) as fleet:
        caller = Caller(fleet.urls)
        for story in PATTERNS:
            times = 1 if story is Story.MAP_REDUCE else REPEATS
            _done(fleet, caller, orders, [(story, Mode.PATTERN)] * times)
            _done(fleet, caller, orders, [(story, Mode.SEQUENTIAL)])
        _done(fleet, caller, orders, [(Story.RACE, Mode.PATTERN)] * sizes.races, at_once=10)
        closed = httpx2.get(f"{slow}/losers", timeout=10).json()["closed"]
        for mode in (Mode.PATTERN, Mode.SEQUENTIAL):
            _done(fleet, caller, orders, [(Story.STEPS, mode)] * sizes.step_tasks, at_once=100)
        with ThreadPoolExecutor(1) as threads:
            killing = threads.submit(_kill, fleet, kills)
            rounds = 0
            while rounds < sizes.troubled or not killing.done():
                troubled = [(story, Mode.TROUBLED) for story in PATTERNS]
                _done(fleet, caller, orders, troubled, at_once=len(troubled))
                rounds += 1
            killing.result()
        caller.close()
        tasks = tasks_in(fleet.redis.client(), FLEET)
    done = [Done(order=order, facts=tasks[task]) for task, order in orders.items() if task in tasks]
    return Outcome(done=done, closed_ms=sorted(closed.values()), kills=len(kills))


def shape(slow: str) -> Shape:
    """The fleet: its tools are paths of the slow server."""
    names = ("work", *SOURCES)
    tools = [_tool(name, f"{slow}/work", "Pure") for name in names]
    return Shape(
        worker={
            "entrypoint": ENTRYPOINT,
            "concurrency": 100,
            "tools": [*tools, _tool("once", f"{slow}/once", "Unsafe")],
        },
        queue={"lease_seconds": 2, "max_attempts": 1000, "journal_ttl_seconds": 86_400},
        limits={"max_steps": 2000, "max_tokens": 10_000_000, "max_wall_seconds": 600},
        models=[{"role": role, "name": f"{MODEL}-{role.lower()}"} for role in ROLES],
        double={"reply_tokens": 4, "decode_step_seconds": 0.012},
        workers=SIZES[Part.WORKER],
        doubles=SIZES[Part.DOUBLE],
        gateways=1,
    )


def _tool(name: str, url: str, effect: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "A step of the benchmark.",
        "parameters": ARGUMENTS,
        "http": {"url": url},
        "effect": effect,
    }


def _done(
    fleet: Site,
    caller: Caller,
    orders: dict[str, Order],
    wanted: Iterable[tuple[Story, Mode]],
    at_once: int = 1,
) -> None:
    """Submit these tasks, so many at the same time, and wait until all have ended."""
    client = fleet.redis.client()
    mine: list[str] = []
    deadline = time.monotonic() + END_SECONDS
    for story, mode in wanted:
        order = Order(story, mode, len(orders))
        while len(_open(client, mine)) >= at_once and time.monotonic() < deadline:
            time.sleep(0.02)
        text = json.dumps({"story": order.story, "mode": order.mode, "task": order.task})
        task = caller.submit(text, f"task-{order.task}")
        orders[task] = order
        mine.append(task)
    while (left := _open(client, mine)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    if left:
        print(f"{len(left)} tasks have not ended", flush=True)


def _open(client: Any, tasks: Sequence[str]) -> list[str]:
    pairs = zip(tasks, statuses_in(client, FLEET, tasks), strict=True)
    return [task for task, status in pairs if status not in FINAL]


def _kill(fleet: Site, kills: Sequence[Planned]) -> None:
    for planned in each_in_time(kills):
        fleet.kill(planned.part, planned.number)
