"""The runs: a fleet for each number of tasks a slot, and one whose replica is killed late."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from fleet.caller import Caller
from fleet.facts import FINAL, TaskFacts, statuses_in, tasks_in
from fleet.generations import generations_of
from fleet.redis_site import wait_until
from fleet.site import FLEET, MODEL, Part, Shape, Site, site
from flotilla_runtime.contract import HEADER_SESSION, FleetCapacity, ModelCapacity, TaskKeys
from multiplexing.figures import Load, late_death_extra, load_of, seconds_of
from multiplexing.plans import (
    DEATH_AT_SECONDS,
    DEATH_CALLS,
    ROOM_TOKENS,
    SLOTS,
    WARM_TASKS,
    Order,
    double_config,
)
from patterns.server import slow_server

ENTRYPOINT: Final = "multiplexing.agent:agent"
LOOK_SECONDS: Final = 0.2
END_SECONDS: Final = 120.0
DOUBLES_OF_DEATH: Final = 6  # so that some task has its replica for itself
BY_SESSION: Final = f"hash req.hdr({HEADER_SESSION})\n    hash-type consistent crc32 avalanche"
TASKS_OF_DEATH: Final = 4
ARGUMENTS: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ms": {"type": "integer"}, "ends": {"type": "string"}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many tasks are there, and how many at work: None is what admission says."""

    tasks: int
    at_work: int | None
    speed: float
    seed: int


def loaded(folder: Path, wanted: Wanted) -> Load:
    """Submit all tasks at once, and wait until all have ended."""
    folder.mkdir(parents=True)
    capacity = folder / "capacity.json"
    if wanted.at_work is None:
        capacity.write_text(known_capacity().model_dump_json())
    with (
        slow_server(folder, wanted.seed) as tools,
        site(folder, shape(tools, double_config(wanted.speed), capacity)) as fleet,
    ):
        if wanted.at_work is not None:
            fleet.redis.client().set(TaskKeys(FLEET).admitted, wanted.at_work)
        orders = [Order(task=n, seed=wanted.seed, speed=wanted.speed) for n in range(wanted.tasks)]
        ids = _submitted(fleet, orders)
        _wait_for_ends(fleet, ids)
        return load_of(_facts(fleet, ids), wanted.speed)


def died_late(folder: Path, seed: int) -> float | None:
    """How many seconds later tasks of 45 s end whose replica is killed in the 40th second."""
    folder.mkdir(parents=True)
    none = folder / "capacity.json"
    with (
        slow_server(folder, seed) as tools,
        site(
            folder, shape(tools, double_config(1.0), none, doubles=DOUBLES_OF_DEATH, balance=BY_SESSION)
        ) as fleet,
    ):
        orders = [Order(task=n, seed=seed, calls=DEATH_CALLS, even=True) for n in range(TASKS_OF_DEATH)]
        ids = _submitted(fleet, orders)
        time.sleep(max(0.0, _started(fleet, ids[0]) + DEATH_AT_SECONDS - time.time()))
        where = _replicas(fleet.double_log)
        alone = min(where, key=lambda task: list(where.values()).count(where[task]))
        wait_until(lambda: _is_asking(fleet.double_log, alone), "a call of the task whose replica dies")
        number = [str(one.pid) for one in fleet.parts[Part.DOUBLE]].index(where[alone])
        fleet.parts[Part.DOUBLE][number].kill()  # it does not come back while these tasks run
        _wait_for_ends(fleet, ids)
        took = {n: seconds_of(task, 1.0) for n, task in enumerate(_facts(fleet, ids)) if task.has_ended}
    killed = [seconds for n, seconds in took.items() if where[n] == where[alone]]
    return late_death_extra(killed, [seconds for n, seconds in took.items() if where[n] != where[alone]])


def known_capacity() -> FleetCapacity:
    """Facts that the operator tells of such a model."""
    room = ModelCapacity(
        name=MODEL, context_tokens=ROOM_TOKENS, kv_tokens=WARM_TASKS * ROOM_TOKENS, slots=SLOTS
    )
    return FleetCapacity(models=(room,))


def shape(
    tools: str,
    double: dict[str, Any],
    capacity: Path,
    *,
    doubles: int = 1,
    balance: str = "leastconn",
) -> Shape:
    """Two workers with room for all tasks, so that nothing but the fleet's limit holds tasks back."""
    tool = {
        "name": "work",
        "description": "A step of the benchmark.",
        "parameters": ARGUMENTS,
        "http": {"url": f"{tools}/work"},
        "effect": "Pure",
    }
    return Shape(
        worker={"entrypoint": ENTRYPOINT, "concurrency": 100, "tools": [tool]},
        gateway={"auth": "None", "capacity_path": str(capacity)},
        queue={"journal_ttl_seconds": 86_400},
        models=[{"context_tokens": 32_768}],
        limits={"max_steps": 100, "max_tokens": 10_000_000, "max_wall_seconds": 3600},
        double=double,
        workers=2,
        gateways=1,
        doubles=doubles,
        balance=balance,
    )


def _submitted(fleet: Site, orders: Sequence[Order]) -> list[str]:
    caller = Caller(fleet.urls)
    ids = [caller.submit(json.dumps(asdict(order)), f"task-{order.task}") for order in orders]
    caller.close()
    return ids


def _wait_for_ends(fleet: Site, ids: Sequence[str]) -> None:
    client, deadline = fleet.redis.client(), time.monotonic() + END_SECONDS
    left = len(ids)
    while time.monotonic() < deadline:
        left = sum(status not in FINAL for status in statuses_in(client, FLEET, ids))
        if not left:
            return
        time.sleep(LOOK_SECONDS)
    print(f"{left} tasks have not ended", flush=True)


def _facts(fleet: Site, ids: Sequence[str]) -> list[TaskFacts]:
    tasks = tasks_in(fleet.redis.client(), FLEET)
    return [tasks[one] for one in ids]


def _started(fleet: Site, task: str) -> float:
    """When a task was first claimed, in seconds since the epoch."""
    while not (at := fleet.redis.client().hget(TaskKeys(FLEET).task(task), "startedAt")):
        time.sleep(LOOK_SECONDS)
    return int(at) / 1000


def _replicas(log: Path) -> dict[int, str]:
    """The process that answered each task last."""
    return {one.task: one.id.partition("-")[0] for one in generations_of(log)}


def _is_asking(log: Path, task: int) -> bool:
    """Whether a call of this task is under way at a double."""
    return [one for one in generations_of(log) if one.task == task][-1].is_whole is None
