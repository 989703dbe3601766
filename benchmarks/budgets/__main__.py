"""`make bench-budgets`: press trees of tasks against each limit, and count what does not add up.

A tree has 15 tasks on four levels, which ask the model 200 times at once. One tree each is limited in steps,
in tokens and in money. Prompts are in ten scripts, for a model whose tokenizer makes a token of each byte.
Half of the calls go to a server that counts tokens, half to one that does not. Some prompts are refused, some
answers fail, some streams break. First nothing is killed; then trees run until the kills of workers, engine
doubles and Redis are done. The budgets in Redis, the journals and the model's own count are then compared:

- `overshoot`: what was used, or used and reserved at any moment that was looked at, above a limit.
- `leaked`: what stays reserved in a tree that has ended.
- `unbalanced_tokens`: where budget and journals differ, where a call's tokens differ from the model's count,
  and what the model counted beyond the budget.
- `unended`: tasks that did not end.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from budgets.judge import Verdict, judge
from budgets.run import SIZES, Outcome, run
from fleet.kills import kills_of
from fleet.site import Part
from wanted import add_only_print, at_least, at_most, conclude

SHARES: Final = {Part.WORKER: 6, Part.DOUBLE: 3, Part.REDIS: 1}
KILL_SECONDS: Final = 180.0
SHOWN: Final = 20
WANTED = (
    *(at_most(0, name) for name in ("overshoot", "leaked", "unbalanced_tokens", "unended")),
    *(at_least(1, name) for name in ("answered", "refused", "failed")),
)


def figures_of(outcome: Outcome, verdict: Verdict, seed: int) -> dict[str, Any]:
    """The figures; the first faults are printed."""
    for words in verdict.words[:SHOWN]:
        print(words, flush=True)
    ends: Counter[str] = Counter()
    for told in outcome.results:
        ends.update(told)
    return {
        "trees": len(outcome.evidence.roots),
        "kills": outcome.kills,
        "seed": seed,
        "overshoot": verdict.overshoot,
        "leaked": verdict.leaked,
        "unbalanced_tokens": verdict.unbalanced_tokens,
        "unended": verdict.unended,
        **{name: ends[name] for name in ("answered", "refused", "failed")},
    }


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how many kills (default: 100)")
    parser.add_argument("--seed", type=int, default=17, help="what all is drawn from (default: 17)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=KILL_SECONDS,
        help=f"the kills are spread over this time (default: {KILL_SECONDS:g})",
    )
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which stay there (default: none)")
    add_only_print(parser)
    options = parser.parse_args()
    began = time.monotonic()
    kills = kills_of(options.seed, options.kills, options.seconds, SIZES, SHARES)
    with tempfile.TemporaryDirectory(prefix="flotilla-budgets-") as name:
        outcome = run(options.keep or Path(name), kills)
    figures = figures_of(outcome, judge(outcome.evidence), options.seed)
    figures["seconds"] = round(time.monotonic() - began)
    return conclude(figures, WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
