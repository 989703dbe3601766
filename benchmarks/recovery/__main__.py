"""`make bench-recovery`: kill what runs tasks, and count what was lost or happened twice.

Tasks of 20 calls run on three workers; a third makes some calls at the same time. Workers, gateways, Redis
(fsync Always) and engine doubles are killed with SIGKILL at times drawn from a seed, and start again. A
checker that shares no code with the runtime then compares Redis with what arrived at the servers:

- `lost`: tasks that were answered and did not end, and steps of finished tasks that never arrived.
- `given_up`: tasks that ended without a result.
- `keyed_effects_doubled`: effects of an Idempotent tool that happened twice.
- `unsafe_effects_repeated`: effects of an Unsafe tool that happened twice.
- `finished_calls_repeated`: calls that arrived again after their result was in the journal.
- `resume_p50_seconds`, `resume_p99_seconds`: from the kill of a worker to the next call of each of its tasks.

`sentinel` and `cluster` are further runs in which the primaries of Redis are killed, and nothing else. A
failover may lose results that were written, so a finished call may be repeated there; no effect may.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fleet.kills import Planned, kills_of
from fleet.redis_site import RedisSite
from fleet.redis_topologies import ClusterRedis, SentinelRedis
from fleet.site import FLEET, Part
from recovery.judge import Verdict, judge
from recovery.resumes import percentile, resumes_of
from recovery.run import Outcome, Wanted, run
from wanted import add_only_print, at_most, conclude, under

LEASE_SECONDS: Final = 5
LONGEST_MS: Final = 600
KILL_SECONDS: Final = 130.0
END_SECONDS: Final = 60.0
SIZES: Final = {Part.WORKER: 3, Part.GATEWAY: 2, Part.DOUBLE: 2, Part.REDIS: 1}
SHARES: Final = dict.fromkeys(Part, 1)  # each part is hit as often as any other
FAILOVER_TASKS: Final = 12
BETWEEN_FAILOVERS_SECONDS: Final = 8.0
SHOWN: Final = 20
SLOWEST: Final = 5
NOTHING = ("lost", "given_up", "keyed_effects_doubled", "unsafe_effects_repeated")
WANTED = (
    *(at_most(0, name) for name in (*NOTHING, "finished_calls_repeated")),
    under(10, "resume_p99_seconds"),
    *(at_most(0, topology, name) for topology in ("sentinel", "cluster") for name in NOTHING),
)


def counts(verdict: Verdict) -> dict[str, int]:
    """How often each thing went wrong; the first of each kind are printed."""
    found = {
        "lost": verdict.lost,
        "given_up": verdict.given_up,
        "keyed_effects_doubled": verdict.keyed_effects_doubled,
        "unsafe_effects_repeated": verdict.unsafe_effects_repeated,
        "finished_calls_repeated": verdict.finished_calls_repeated,
    }
    for name, faults in found.items():
        for fault in faults[:SHOWN]:
            print(f"{name}: {fault}", flush=True)
    return {name: len(faults) for name, faults in found.items()}


def figures_of(outcome: Outcome, tasks: int, seed: int) -> dict[str, Any]:
    """The figures of one run."""
    resumes = sorted(
        resumes_of(outcome.notes.killed, outcome.evidence.tasks.values()), key=lambda each: each.seconds
    )
    for slow in resumes[-SLOWEST:]:
        print(
            f"task {slow.task} went on {slow.seconds:.1f} s after {slow.kill.worker} was killed", flush=True
        )
    seconds = [each.seconds for each in resumes]
    return {
        "tasks": tasks,
        "kills": outcome.notes.kills,
        "seed": seed,
        **counts(judge(outcome.evidence)),
        "resumes": len(resumes),
        "resume_p50_seconds": percentile(seconds, 50),
        "resume_p99_seconds": percentile(seconds, 99),
        "resolved": outcome.notes.resolved,
    }


def killed_anywhere(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The main run: one Redis, and kills of all parts."""
    wanted = Wanted(
        tasks=options.tasks,
        seed=options.seed,
        longest_ms=LONGEST_MS,
        kill_seconds=options.seconds,
        end_seconds=END_SECONDS,
        kills=kills_of(options.seed, options.kills, options.seconds, SIZES, SHARES),
        lease_seconds=LEASE_SECONDS,
    )
    return figures_of(run(folder, wanted), options.tasks, options.seed)


def failed_over(
    folder: Path, options: argparse.Namespace, servers: Callable[[Path], RedisSite]
) -> dict[str, Any]:
    """A run in which nothing but the primary of Redis is killed."""
    kills = tuple(
        Planned(after_seconds=BETWEEN_FAILOVERS_SECONDS * (number + 0.5), part=Part.REDIS, number=0)
        for number in range(options.failovers)
    )
    wanted = Wanted(
        tasks=max(FAILOVER_TASKS, 2 * options.failovers),
        seed=options.seed,
        longest_ms=LONGEST_MS,
        kill_seconds=BETWEEN_FAILOVERS_SECONDS * options.failovers,
        end_seconds=END_SECONDS,
        kills=kills,
        lease_seconds=LEASE_SECONDS,
    )
    outcome = run(folder, wanted, servers(folder / "redis"))
    found = figures_of(outcome, wanted.tasks, options.seed)
    return {name: found[name] for name in ("tasks", "kills", *NOTHING, "finished_calls_repeated")}


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All runs, one after another."""
    began = time.monotonic()
    found = killed_anywhere(folder / "single", options)
    if options.failovers:
        key = f"flotilla:{{{FLEET}}}:leases"
        found["sentinel"] = failed_over(folder / "sentinel", options, SentinelRedis)
        found["cluster"] = failed_over(folder / "cluster", options, lambda place: ClusterRedis(place, key))
    return {**found, "seconds": round(time.monotonic() - began)}


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100, help="how many tasks (default: 100)")
    parser.add_argument("--kills", type=int, default=100, help="how many kills (default: 100)")
    parser.add_argument("--seed", type=int, default=17, help="what all is drawn from (default: 17)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=KILL_SECONDS,
        help=f"the kills are spread over this time (default: {KILL_SECONDS:g})",
    )
    parser.add_argument(
        "--failovers",
        type=int,
        default=3,
        help="how many primaries are killed under Sentinel and Cluster; 0: no such runs (default: 3)",
    )
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which stay there (default: none)")
    add_only_print(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flotilla-recovery-") as name:
        figures = measure(options.keep or Path(name), options)
    wanted = [each for each in WANTED if options.failovers or each.path[0] not in ("sentinel", "cluster")]
    return conclude(figures, wanted, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
