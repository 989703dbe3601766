"""Simulates the router's rule with many seeds of its hash, for any window of the trace and any bound.

    PYTHONPATH=e2e:operator:runtime:cli:benchmarks .venv/bin/python -m router.many_ways --trace FILE

A hash decides which long conversations share a replica, so the result of one seed is chance. The last line of
the output is one JSON object.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from engine_double.work import Limits, Speeds
from router.parts import ROUTERS
from router.simulation import Fleet, bound, keys_found, simulate
from router.trace import BLOCK_TOKENS, Turn, read_turns

REPLICAS = 8
KV_BLOCKS = 960  # 16 contexts of 30,000 tokens, as a TP-4 replica holds
PREFILL_TOKENS_PER_SECOND = 11_300
DECODE_STEP_SECONDS = 0.012
MAX_NUM_SEQS = 48
MAX_NUM_BATCHED_TOKENS = 8192
ROUTER_POLICIES = ("session header", "key in the body")
SIMULATIONS = 16


def simulated(
    turns: Sequence[Turn], best: float, factor: float, *, bound_from_share: float | None = None
) -> dict[str, dict[str, float]]:
    """Both policies over many seeds: the mean share of the bound with its standard error, and the largest
    load of a replica in any of them.
    """
    replicas = fleet(factor)
    found: dict[str, dict[str, float]] = {}
    for policy in ROUTER_POLICIES:
        keys = keys_found(turns, headers=policy == "session header")
        runs = [
            simulate(turns, keys, replicas, seed=seed, bound_from_share=bound_from_share)
            for seed in range(SIMULATIONS)
        ]
        shares = [run.prefix_hit_rate / best for run in runs]
        found[policy] = {
            "share_of_bound": statistics.mean(shares),
            "share_of_bound_deviation": statistics.stdev(shares),
            "share_of_bound_standard_error": statistics.stdev(shares) / len(shares) ** 0.5,
            "busiest_over_mean": max(run.busiest_over_mean for run in runs),
            "moved_share": statistics.mean(run.moved_share for run in runs),
            "ttft_p95_seconds": statistics.mean(run.ttft_p95_seconds for run in runs) * factor,
        }
        print("simulated", policy, {key: round(value, 3) for key, value in found[policy].items()}, flush=True)
    return found


def fleet(factor: float) -> Fleet:
    """The simulated counterpart of the engine doubles and routers that the benchmark starts."""
    return Fleet(
        replicas=REPLICAS,
        routers=ROUTERS,
        speeds=Speeds(
            prefill_tokens_per_second=PREFILL_TOKENS_PER_SECOND * factor,
            decode_step_seconds=DECODE_STEP_SECONDS,
        ),
        engine=Limits(
            max_num_seqs=MAX_NUM_SEQS,
            max_num_batched_tokens=MAX_NUM_BATCHED_TOKENS,
            kv_blocks=KV_BLOCKS,
            block_tokens=BLOCK_TOKENS,
        ),
        factor=factor,
    )


def main() -> int:
    """Simulate one rule on one window of the trace."""
    parser = argparse.ArgumentParser(prog="python -m router.many_ways", description=__doc__)
    parser.add_argument(
        "--trace", type=Path, required=True, help="the trace file, as for `make bench-router`"
    )
    parser.add_argument(
        "--skip", type=int, default=0, help="how many requests to skip at the beginning (default: 0)"
    )
    parser.add_argument(
        "--requests", type=int, default=2000, help="how many requests to simulate (default: 2000)"
    )
    parser.add_argument(
        "--factor", type=float, default=10, help="how much faster than recorded they arrive (default: 10)"
    )
    parser.add_argument(
        "--bound-from-share",
        type=float,
        help="the share of a replica's capacity from which the bound applies (default: router.lua's 0.5)",
    )
    options = parser.parse_args()
    turns = read_turns(options.trace, options.requests, skipped=options.skip)
    best = bound(turns, fleet(options.factor))
    found = simulated(turns, best, options.factor, bound_from_share=options.bound_from_share)
    print(json.dumps({"bound": best, "simulated": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
