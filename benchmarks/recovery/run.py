"""One run: submit tasks, kill processes, say what became of unknown effects, and wait for the end.

Each of the three has a thread. What they noted is the evidence, with what stands in Redis and in the logs.
"""

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from fleet.arrivals import arrivals_of, model_arrivals_of
from fleet.caller import Caller, Unknown
from fleet.calls import EFFECTS, tool_config
from fleet.effects import LOG, effect_server
from fleet.facts import FINAL, statuses_in, tasks_in
from fleet.kills import Planned, each_in_time
from fleet.redis_site import RedisSite
from fleet.site import FLEET, Part, Shape, Site, site, worker_name
from recovery.judge import Evidence
from recovery.judge import step_of as step_of_call
from recovery.plans import steps_of, turns_of
from recovery.resumes import Killed

ENTRYPOINT: Final = "recovery.agent:agent"
LOOK_SECONDS: Final = 0.5
SUBMITTED_WITHIN: Final = 0.7  # of the time in which processes are killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Plan of a run. Kills are spread over `kill_seconds`; then the tasks have `end_seconds` to end."""

    tasks: int
    seed: int
    longest_ms: int
    kill_seconds: float
    end_seconds: float
    kills: Sequence[Planned]
    lease_seconds: float = 5


@dataclass(slots=True, kw_only=True)
class Notes:
    """Notes of the run about itself."""

    submitted: dict[int, str] = field(default_factory=dict)
    killed: list[Killed] = field(default_factory=list)
    kills: int = 0
    resolved: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """All that the checker needs, and what the run noted."""

    notes: Notes
    evidence: Evidence


def run(folder: Path, wanted: Wanted, redis: RedisSite | None = None) -> Outcome:
    """Start everything, run, and collect the evidence."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = Notes()
    with effect_server(folder) as effects, site(folder, shape(effects, wanted), redis) as fleet:
        stopping = threading.Event()
        with ThreadPoolExecutor(2) as threads:
            resolving = threads.submit(_resolve_unknown, fleet, effects, notes, stopping)
            submitting = threads.submit(_submit, fleet, wanted, notes)
            try:
                _kill(fleet, wanted.kills, notes, resolving.done)
                submitting.result()
                _wait_for_ends(fleet, wanted, notes, resolving.done)
            finally:
                stopping.set()
            resolving.result()
        evidence = Evidence(
            submitted=notes.submitted,
            plans={number: tuple(steps_of(_turns(wanted, number))) for number in range(wanted.tasks)},
            tasks=tasks_in(fleet.redis.client(), FLEET),
            arrivals=[*arrivals_of(folder / LOG), *model_arrivals_of(fleet.double_log)],
        )
    return Outcome(notes=notes, evidence=evidence)


def shape(effects: str, wanted: Wanted) -> Shape:
    """The fleet: its agent is that of the benchmark, its tools are paths of the effect server."""
    return Shape(
        worker={
            "entrypoint": ENTRYPOINT,
            "tools": [tool_config(kind, effects) for kind in EFFECTS],
            "concurrency": 100,
        },
        queue={"lease_seconds": wanted.lease_seconds, "journal_ttl_seconds": 86_400},
        limits={"max_steps": 100, "max_wall_seconds": 3600},
        double={"reply_tokens": 16, "decode_step_seconds": 0.02},
    )


def _turns(wanted: Wanted, number: int) -> Any:
    return turns_of(wanted.seed, number, wanted.longest_ms)


def _submit(fleet: Site, wanted: Wanted, notes: Notes) -> None:
    """Submit the tasks, spread over most of the time in which processes are killed."""
    caller, began = Caller(fleet.urls), time.monotonic()
    for number in range(wanted.tasks):
        due = began + SUBMITTED_WITHIN * wanted.kill_seconds * number / wanted.tasks
        time.sleep(max(0.0, due - time.monotonic()))
        order = {"task": number, "seed": wanted.seed, "longestMs": wanted.longest_ms}
        notes.submitted[number] = caller.submit(
            json.dumps(order), f"task-{number}", metadata={"task": str(number)}
        )
    caller.close()


def _kill(fleet: Site, kills: Sequence[Planned], notes: Notes, is_over: Callable[[], bool]) -> None:
    """Kill, one after another. A kill takes until its process is started again."""
    for planned in each_in_time(kills):
        if is_over():
            return
        at = time.time_ns() // 1_000_000
        fleet.kill(planned.part, planned.number)
        notes.kills += 1
        if planned.part is Part.WORKER:
            notes.killed.append(Killed(worker=worker_name(planned.number), at=at))


def _wait_for_ends(fleet: Site, wanted: Wanted, notes: Notes, is_over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + wanted.end_seconds
    client, left = fleet.redis.client(), len(notes.submitted)
    while time.monotonic() < deadline and not is_over():
        statuses = statuses_in(client, FLEET, notes.submitted.values())
        left = sum(status not in FINAL for status in statuses)
        if not left:
            return
        time.sleep(LOOK_SECONDS)
    print(f"{left} tasks have not ended", flush=True)


def _resolve_unknown(fleet: Site, effects: str, notes: Notes, stopping: threading.Event) -> None:
    """Say of each unknown effect what the effect server says of it."""
    caller = Caller(fleet.urls)
    with httpx2.Client(timeout=10) as asked:
        while not stopping.wait(LOOK_SECONDS):
            for unknown in list(caller.unknown_effects()):
                caller.resolve(unknown, happened=_happened(asked, effects, caller, unknown))
                notes.resolved += 1
    caller.close()


def _happened(asked: httpx2.Client, effects: str, caller: Caller, unknown: Unknown) -> bool:
    number = caller.task(unknown.task)["metadata"]["task"]
    told = asked.get(f"{effects}/happened", params={"task": number, "step": step_of_call(unknown.call)})
    return bool(told.raise_for_status().json()["happened"])
