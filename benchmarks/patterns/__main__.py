"""`make bench-patterns`: what patterns gain, and what they survive.

Each pattern is done three times alone, a tree once, then the same calls one after another. Then all patterns
run with a branch that fails and one that hangs, until all kills of workers and engine doubles are done. Under
each pattern's name:

- `seconds`: from the agent's first word to its last, by the pattern: the median; `sequential_seconds`: one
  call after another. Those of map_reduce are measured on 100 items and multiplied, since 1,111 calls would
  take minutes; those of race are the usual way alone. Of `actor`, three actors get three messages each, and
  say how many they handled, which must be three.
- `calls`: calls of the task and messages that it sends to actors, each counted once.
- `completed`: the share of tasks that ended with all that could be there, also of those under kills.

Beside them:

- `loser_closed_p99_ms`: from the winner's answer to the end of the loser's connection, as the server saw it.
- `with_retries`, `without_retries`: the share of tasks of 12 steps that completed, of which one in 20 fails.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from fleet.kills import kills_of
from fleet.site import Part
from patterns.run import PATTERNS, REPEATS, SIZES, Done, Outcome, Sizes, run
from patterns.stories import CALLS, SAMPLE, TOOL_MS, Mode, Story
from wanted import add_only_print, at_least, at_most, conclude, exactly

SHARES: Final = {Part.WORKER: 3, Part.DOUBLE: 1}
KILL_SECONDS: Final = 30.0
SLOWEST_SECONDS: Final = max(TOOL_MS) / 1000
WANTED = (
    at_most(1.1 * SLOWEST_SECONDS, "fan_out", "seconds"),
    exactly(CALLS, "map_reduce", "calls"),
    at_most(100, "loser_closed_p99_ms"),
    at_least(0.999, "with_retries"),
    *(exactly(1, story, "completed") for story in PATTERNS),
)


def figures_of(outcome: Outcome, seed: int) -> dict[str, Any]:
    """The figures."""
    figures: dict[str, Any] = {"seed": seed, "kills": outcome.kills}
    for story in PATTERNS:
        own = [one for one in outcome.done if one.order.story is story]
        figures[story] = _pattern(story, own)
    steps = [one for one in outcome.done if one.order.story is Story.STEPS]
    figures["loser_closed_p99_ms"] = _p99(outcome.closed_ms)
    figures["losers"] = len(outcome.closed_ms)
    figures["with_retries"] = _share([one for one in steps if one.order.mode is Mode.PATTERN])
    figures["without_retries"] = _share([one for one in steps if one.order.mode is Mode.SEQUENTIAL])
    return figures


def _pattern(story: Story, own: Sequence[Done]) -> dict[str, Any]:
    by = {mode: [one for one in own if one.order.mode is mode] for mode in Mode}
    alone, sequential = by[Mode.PATTERN][:REPEATS], by[Mode.SEQUENTIAL][0]
    factor = CALLS / (SAMPLE + SAMPLE // 10 + 1) if story is Story.MAP_REDUCE else 1
    sequential_seconds = sequential.result.get("seconds")
    return {
        "seconds": _median([one.result.get("seconds") for one in alone]),
        "sequential_seconds": None if sequential_seconds is None else round(sequential_seconds * factor, 3),
        "calls": alone[0].calls,
        "completed": _share([one for one in own if one.order.mode is not Mode.SEQUENTIAL]),
    }


def _median(seconds: Sequence[float | None]) -> float | None:
    """None if one of the tasks has not ended well."""
    known = [one for one in seconds if one is not None]
    return statistics.median(known) if len(known) == len(seconds) else None


def _share(tasks: Sequence[Done]) -> float | None:
    """Of all tasks that were submitted; None without any."""
    return sum(one.is_whole for one in tasks) / len(tasks) if tasks else None


def _p99(values: Sequence[float]) -> float | None:
    return round(values[min(len(values) - 1, int(0.99 * len(values)))], 1) if values else None


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=18, help="what all is drawn from (default: 18)")
    parser.add_argument("--races", type=int, default=100, help="races whose losers are timed (default: 100)")
    parser.add_argument("--tasks", type=int, default=300, help="tasks of 12 steps, each way (default: 300)")
    parser.add_argument(
        "--troubled", type=int, default=3, help="least tasks of each pattern under kills (default: 3)"
    )
    parser.add_argument("--kills", type=int, default=10, help="kills in 30 s (default: 10)")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which stay there (default: none)")
    add_only_print(parser)
    options = parser.parse_args()
    began = time.monotonic()
    sizes = Sizes(races=options.races, step_tasks=options.tasks, troubled=options.troubled)
    kills = kills_of(options.seed, options.kills, KILL_SECONDS, SIZES, SHARES)
    with tempfile.TemporaryDirectory(prefix="flotilla-patterns-") as name:
        outcome = run(options.keep or Path(name), sizes, kills, options.seed)
    figures = figures_of(outcome, options.seed)
    figures["bench_seconds"] = round(time.monotonic() - began)
    return conclude(figures, WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
