"""Many small tasks through a whole fleet: first for speed, then so slow that all are in flight at once."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from agents.load import submit_all, write_keys
from fleet.arrivals import arrivals_of
from fleet.calls import Kind, tool_config
from fleet.effects import LOG, effect_server
from fleet.facts import FINAL, statuses_in
from fleet.redis_site import wait_until
from fleet.site import FLEET, Part, Shape, Site, site
from flotilla_runtime.contract import GatewayAuth

WORKERS: Final = 2
IN_FLIGHT: Final = 500  # of each worker
CALLERS: Final = 100
SLOW_SECONDS: Final = 30.0
SLOW: Final = "slow"
QUICK: Final = "quick"
LOOK_SECONDS: Final = 0.5
SUCCEEDED: Final = "Succeeded"


def shape(effects: str, callers: Path) -> Shape:
    """The fleet. The model answers slowly where it is asked to."""
    slow = {"matches": f"Be {SLOW}", "content": "Well.", "delay_seconds": SLOW_SECONDS, "times": None}
    return Shape(
        worker={
            "entrypoint": "agents.agent:agent",
            "tools": [tool_config(Kind.BOOK, effects)],
            "concurrency": IN_FLIGHT,
        },
        gateway={"auth": GatewayAuth.SECRET, "callers_directory": str(callers)},
        double={
            "reply_tokens": 8,
            "decode_step_seconds": 0.005,
            "max_num_seqs": 2 * IN_FLIGHT,
            "script": [slow],
        },
        workers=WORKERS,
        gateways=1,
        doubles=1,
    )


def run(folder: Path, tasks: int, deadline_seconds: float) -> dict[str, Any]:
    """Both parts; the figures."""
    keys = write_keys(folder / "callers", CALLERS)
    with effect_server(folder) as effects, site(folder, shape(effects, folder / "callers")) as fleet:
        began = time.monotonic()
        ids = asyncio.run(submit_all(fleet.urls[0], keys, tasks, QUICK))
        submitted = time.monotonic() - began
        done = _wait_for_ends(fleet, ids, began + deadline_seconds)
        seconds = time.monotonic() - began
        gateway_mib = fleet.peak_mib(Part.GATEWAY)
        print(f"submitted in {submitted:.1f} s, {done} done in {seconds:.1f} s", flush=True)
        slow = asyncio.run(submit_all(fleet.urls[0], keys, WORKERS * IN_FLIGHT, SLOW, first=tasks))
        most = _most_in_flight(fleet)
        _wait_for_ends(fleet, slow, time.monotonic() + deadline_seconds)
        arrivals = [one for one in arrivals_of(folder / LOG) if one.task < tasks]
        return {
            "tasks": tasks,
            "done": done,
            "tasks_per_second": round(done / seconds, 1),
            "submissions_per_second": round(tasks / submitted, 1),
            "effects_repeated": sum(one.applied for one in arrivals) - len({one.task for one in arrivals}),
            "gateway_peak_mib": round(gateway_mib, 1),
            "in_flight_per_worker": most,
            "worker_peak_mib": round(fleet.peak_mib(Part.WORKER), 1),
        }


def _wait_for_ends(fleet: Site, ids: Sequence[str], deadline: float) -> int:
    """How many of these tasks have succeeded once all have ended, or the time is over."""
    client, left, done = fleet.redis.client(), list(ids), 0
    while left and time.monotonic() < deadline:
        statuses = statuses_in(client, FLEET, left)
        done += statuses.count(SUCCEEDED)
        left = [one for one, status in zip(left, statuses, strict=True) if status not in FINAL]
        if left:
            time.sleep(LOOK_SECONDS)
    return done


def _most_in_flight(fleet: Site) -> int:
    """The tasks that the worker with the fewest holds, once each has all its places taken, or none comes."""
    most = 0

    def full() -> bool:
        nonlocal most
        with urllib.request.urlopen(f"{fleet.status_urls[0]}/v1/status", timeout=10) as answer:
            workers: dict[str, int] = json.load(answer)["workers"]
        if len(workers) == WORKERS:
            most = max(most, min(workers.values()))
        return most >= IN_FLIGHT

    with suppress(TimeoutError):
        wait_until(full, "workers whose places are taken", seconds=SLOW_SECONDS)
    return most
