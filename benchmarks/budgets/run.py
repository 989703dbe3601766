"""One run: trees that run undisturbed, then trees under kills, while the budgets in Redis are looked at."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import redis

from budgets.judge import Evidence
from budgets.plans import FAILS, INPUT_USD, LIMITS, OUTPUT_USD, ROOM
from fleet.caller import Caller
from fleet.facts import FINAL, statuses_in, tasks_in
from fleet.generations import generations_of
from fleet.kills import Planned, each_in_time
from fleet.site import FLEET, MODEL, Part, Shape, Site, site

ENTRYPOINT: Final = "budgets.agent:agent"
SIZES: Final = {Part.WORKER: 3, Part.DOUBLE: 2, Part.REDIS: 1}
LOOK_SECONDS: Final = 0.1
END_SECONDS: Final = 60.0
LEASE_SECONDS: Final = 2
PRICES: Final = {
    "input_per_million_usd": INPUT_USD,
    "cached_input_per_million_usd": INPUT_USD,
    "output_per_million_usd": OUTPUT_USD,
}
# A prompt may fail however often it is tried: its call is given up, so that trees end within END_SECONDS.
TIMEOUTS: Final = {"first_token_seconds": 10, "between_tokens_seconds": 10, "total_seconds": 10}
SHAPE: Final = Shape(
    worker={"entrypoint": ENTRYPOINT, "concurrency": 100},
    queue={"lease_seconds": LEASE_SECONDS, "max_attempts": 1000, "journal_ttl_seconds": 86_400},
    limits={**ROOM, "max_depth": 3, "max_fan_out": 5},
    models=(
        {"role": "Default", "pricing": PRICES, "timeouts": TIMEOUTS},
        {
            "role": "Routine",
            "name": f"{MODEL}-that-counts",
            "tokenizes": True,
            "pricing": PRICES,
            "timeouts": TIMEOUTS,
        },
    ),
    double={
        "byte_tokens": True,
        "decode_step_seconds": 0.04,
        "script": [{"matches": FAILS, "status": 500, "times": None}],
        "faults": {"fail_every": 29, "faulty_streams": 8, "cut_streams_after_tokens": 3},
    },
    workers=SIZES[Part.WORKER],
    doubles=SIZES[Part.DOUBLE],
    gateways=1,
)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The evidence, the results of the roots, and how many kills there were."""

    evidence: Evidence
    results: Sequence[Mapping[str, int]]
    kills: int


@dataclass(slots=True, kw_only=True)
class _Looks:
    """Figures seen in Redis while trees ran."""

    roots: dict[int, str] = field(default_factory=dict)
    seen: list[Mapping[str, str]] = field(default_factory=list)


def run(folder: Path, kills: Sequence[Planned]) -> Outcome:
    """Start everything, run, and collect the evidence."""
    folder.mkdir(parents=True, exist_ok=True)
    looks, stopping, made = _Looks(), threading.Event(), 0
    with site(folder, SHAPE) as fleet, ThreadPoolExecutor(2) as threads:
        caller = Caller(fleet.urls)
        looking = threads.submit(_look, fleet, looks, stopping)
        try:
            _round(fleet, caller, looks)
            _wait_for_ends(fleet, looks)
            killing = threads.submit(_kill, fleet, kills)
            while not killing.done():
                _round(fleet, caller, looks)
                _wait_for_ends(fleet, looks, or_if=killing.done)
            made = killing.result()
            _wait_for_ends(fleet, looks)
        finally:
            stopping.set()
        looking.result()
        caller.close()
        tasks = tasks_in(fleet.redis.client(), FLEET)
        generations = generations_of(fleet.double_log)
    roots = (tasks[root].fields for root in looks.roots.values() if root in tasks)
    return Outcome(
        evidence=Evidence(roots=looks.roots, tasks=tasks, seen=looks.seen, generations=generations),
        results=[json.loads(fields["result"]) for fields in roots if fields.get("result")],
        kills=made,
    )


def _round(fleet: Site, caller: Caller, looks: _Looks) -> None:
    """Submit a tree for each limit."""
    for limits in LIMITS.values():
        tree = len(looks.roots)
        order = json.dumps({"tree": tree, "path": "r"})
        looks.roots[tree] = caller.submit(order, f"tree-{tree}", limits=dict(limits))


def _wait_for_ends(fleet: Site, looks: _Looks, or_if: Callable[[], bool] = lambda: False) -> None:
    deadline, client = time.monotonic() + END_SECONDS, fleet.redis.client()
    while time.monotonic() < deadline and not or_if():
        with suppress(redis.RedisError):
            if set(statuses_in(client, FLEET, looks.roots.values())) <= FINAL:
                return
        time.sleep(LOOK_SECONDS)


def _kill(fleet: Site, kills: Sequence[Planned]) -> int:
    for planned in each_in_time(kills):
        fleet.kill(planned.part, planned.number)
    return len(kills)


def _look(fleet: Site, looks: _Looks, stopping: threading.Event) -> None:
    """Read the budgets of all trees, again and again; what is as it was is left out."""
    client: Any = fleet.redis.client()
    last: dict[str, Mapping[str, str]] = {}
    while not stopping.wait(LOOK_SECONDS):
        for root in list(looks.roots.values()):
            with suppress(redis.RedisError):
                found = client.hgetall(f"flotilla:{{{FLEET}}}:task:{root}")
                if found and found != last.get(root):
                    last[root] = found
                    looks.seen.append(found)
