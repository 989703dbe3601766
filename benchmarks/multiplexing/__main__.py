"""`make bench-multiplexing`: how many tasks a model's slots and KV cache carry; whether admission finds it.

A model has 5 slots and room for 16 warm tasks. A task makes 10 calls of 1 s, each after a tool of about 2 s,
with a history that comes to 20,000 tokens. Fixed numbers of tasks are at work, then as many as admission
says. `utilisation`, `warm_prefill_share`, `task_p95_seconds` and `seconds` each have a figure for 1, 3 and 10
tasks a slot and for admission:

- `utilisation`: the share of the slots' time that the calls need when nothing is computed again, from the
  first tenth of the calls to the last. The first call of a task computes its history, which stops all slots
  for 1.8 s, so not even a model that is always busy comes to 1.
- `warm_prefill_share`: of the calls that follow another one of their task, those whose history was in the
  cache.
- `task_p95_seconds`: from the first claim to the end; `seconds`: until all tasks have ended.

Beside them:

- `admission_of_best`: the utilisation under admission, as a share of the best fixed number's.
- `late_death_extra_seconds`: how much later tasks of 45 s end whose replica was killed in the 40th second
  with a call under way, than the quickest of others beside them. It may be one call's time, on a replica
  that does not know the history.

All times are seconds of the story. The load runs are `--speed` times faster, tokens are a tenth.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from multiplexing.figures import Load
from multiplexing.plans import SLOTS, cold_call_seconds
from multiplexing.run import Wanted, died_late, loaded
from wanted import add_only_print, at_least, at_most, conclude

TASKS_PER_SLOT: Final = (1, 3, 10)
ADMISSION: Final = "admission"
WAVES: Final = 4  # tasks of a run for each at work: more would only take longer
SHOWN: Final = ("utilisation", "warm_prefill_share", "task_p95_seconds", "seconds")
WANTED = (
    at_least(0.9, "admission_of_best"),
    at_least(0.9, "warm_prefill_share", ADMISSION),
    at_most(cold_call_seconds(), "late_death_extra_seconds"),
)


def figures_of(loads: Mapping[str, Load], late_death: float | None) -> dict[str, Any]:
    """The figures of all runs."""
    figures: dict[str, Any] = {
        name: {run: getattr(load, name) for run, load in loads.items()} for name in SHOWN
    }
    fixed = [load.utilisation for run, load in loads.items() if run != ADMISSION and load.utilisation]
    own = loads[ADMISSION].utilisation
    figures["admission_of_best"] = round(own / max(fixed), 3) if own is not None and fixed else None
    figures["late_death_extra_seconds"] = late_death
    return figures


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tasks", type=int, default=50, help="most tasks of a run (default: 50)")
    parser.add_argument("--speed", type=float, default=10, help="how much faster than told (default: 10)")
    parser.add_argument("--seed", type=int, default=18, help="what the tools' times are drawn from")
    parser.add_argument("--no-death", action="store_true", help="leave the late death out")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which stay there (default: none)")
    add_only_print(parser)
    options = parser.parse_args()
    began = time.monotonic()
    at_work = {**{str(each): each * SLOTS for each in TASKS_PER_SLOT}, ADMISSION: None}
    with tempfile.TemporaryDirectory(prefix="flotilla-multiplexing-") as name:
        folder = options.keep or Path(name)
        loads = {}
        for run, most in at_work.items():
            tasks = min(options.tasks, WAVES * (most or options.tasks))
            wanted = Wanted(tasks=tasks, at_work=most, speed=options.speed, seed=options.seed)
            loads[run] = loaded(folder / run, wanted)
            print(f"{run}: {loads[run]}", flush=True)
        late_death = None if options.no_death else died_late(folder / "death", options.seed)
    figures = {**figures_of(loads, late_death), "tasks": options.tasks, "speed": options.speed}
    figures["bench_seconds"] = round(time.monotonic() - began)
    limits = [each for each in WANTED if not (options.no_death and "late_death" in each.path[0])]
    return conclude(figures, limits, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
