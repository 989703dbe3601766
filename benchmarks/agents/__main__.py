"""`make bench-agents`: many small tasks through a fleet, and the task store alone.

100 callers submit 5,100 tasks of a model call and a tool to one gateway; two workers do them. Then 1,000
tasks wait for a slow model at once. Redis syncs each write.

- `done`, `tasks_per_second`: of the 5,100, from the first submission to the last end.
- `effects_repeated`: effects of the tool that happened twice.
- `gateway_peak_mib`: its largest memory; its pod has 128 MiB.
- `in_flight_per_worker`, `worker_peak_mib`: how many tasks each worker held, and the largest memory of one.
- `call_overhead_p50_ms`: both writes of a call, one after another, while nothing else is written.
- `fsync_p50_ms`: what the disk takes for one small write; the overhead has two.
- `store_calls_per_second`: calls that two processes write for 64 tasks, without any agent.
- `bytes_per_call`: what such a call takes in Redis' memory.
- `thousand_call_ratio`: 1,000 calls of a task divided by 100, in bytes or in replay, whichever is larger.
- `answer_cpu_ms`, `httpx_answer_cpu_ms`: processor time of a streamed answer in the worker's HTTP client, and
  in httpx 0.28, by the number of answers at once; `answer_cpu_growth`: ours at 500 divided by ours at 10.
- `dbos_…`, `langgraph_…`: steps of as many tasks in as many processes, on PostgreSQL; what a step takes in
  the database; and effects that happened again after a kill, which neither of them prevents.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from agents import fleet_run, http_clients, replay, store_alone
from agents.peers import comparison
from wanted import Wanted, add_only_print, at_least, at_most, conclude, exactly, under

TASKS: Final = 5100
DEADLINE_SECONDS: Final = 180.0
GATEWAY_MIB: Final = 128
WORKER_MIB: Final = 512


def wanted(tasks: int) -> tuple[Wanted, ...]:
    """The limits for this many tasks."""
    return (
        exactly(tasks, "done"),
        at_most(0, "effects_repeated"),
        at_least(100, "tasks_per_second"),
        under(GATEWAY_MIB, "gateway_peak_mib"),
        at_least(fleet_run.IN_FLIGHT, "in_flight_per_worker"),
        under(WORKER_MIB, "worker_peak_mib"),
        under(3, "call_overhead_p50_ms"),
        at_least(1689, "store_calls_per_second"),
        at_most(11, "thousand_call_ratio"),
        at_most(2, "answer_cpu_growth"),
    )


def measure(folder: Path, tasks: int, *, with_peers: bool) -> dict[str, Any]:
    """All figures."""
    began = time.monotonic()
    figures = {
        **store_alone.run(folder / "store"),
        **replay.run(folder / "replay"),
        **http_clients.run(folder / "clients"),
        **fleet_run.run(folder / "fleet", tasks, DEADLINE_SECONDS),
        **(comparison.run(folder / "peers") if with_peers else {}),
    }
    return {**figures, "seconds": round(time.monotonic() - began)}


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS, help=f"how many tasks (default: {TASKS})")
    parser.add_argument(
        "--no-peers", action="store_true", help="leave DBOS and LangGraph's saver out of it (default: in)"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which stay there (default: none)")
    add_only_print(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flotilla-agents-") as name:
        figures = measure(options.keep or Path(name), options.tasks, with_peers=not options.no_peers)
    return conclude(figures, wanted(options.tasks), only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
