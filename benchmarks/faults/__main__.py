"""`make bench-faults`: seeded schedules of changes and faults, and what went wrong in them.

Each schedule is a scene: the real operator on a fake API server and a virtual clock, with users, nodes and
faults as `tests/scenes/schedules.py` draws them from the seed.

- `doubled`: more replicas serve than were wanted, or are there in the end.
- `undrained`: a replica was deleted while it served, without a drain or before its deadline.
- `left_behind`: objects that are still there half an hour after everything was deleted.
- `stuck`: the objects did not settle within an hour after the faults.

Each counts schedules. The last line of the output is one JSON object. The exit status is 1 unless all are 0.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import structlog

from tests.scenes.schedules import Outcome, play
from wanted import add_only_print, at_most, conclude

RUNS = 300
KINDS = ("doubled", "undrained", "left_behind", "stuck")
WANTED = tuple(at_most(0, kind) for kind in KINDS)


def measure(seed: int, runs: int) -> dict[str, Any]:
    """Play schedules with these seeds, several at once; what goes wrong is printed."""
    with ProcessPoolExecutor(max_workers=os.cpu_count(), initializer=be_quiet) as pool:
        outcomes = list(_told(pool.map(play, range(seed, seed + runs))))
    counts = {kind: sum(bool(getattr(one, kind)) for one in outcomes) for kind in KINDS}
    return {"runs": runs, **counts, "seed": seed}


def be_quiet() -> None:
    """Log nothing: every fault would be a line."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _told(outcomes: Iterable[Outcome]) -> Iterable[Outcome]:
    for outcome in outcomes:
        for problem in outcome.problems:
            print(f"seed {outcome.seed}: {problem}", flush=True)
        yield outcome


def main() -> int:
    """Play the schedules, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help="how many schedules (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed (default: %(default)s)")
    add_only_print(parser)
    options = parser.parse_args()
    return conclude(measure(options.seed, options.runs), WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
