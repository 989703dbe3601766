"""`make bench-router`: the latency that the router adds, and what its choice of the replica gains.

Both halves use two routers behind one address.

- The first half sends the same requests with and without the routers, in alternation: 4 KB bodies at 500 a
  second and as fast as possible (the latter also through plain HAProxies), and 500 streams of 200 tokens,
  with 20 ms between tokens and, in one round, 50 ms.
- The second half replays a trace of conversations on engine doubles with a KV cache, with and without session
  headers. It compares the router with round robin and with least connections, and simulates the trace with
  many seeds of the router's hash. `--no-trace` leaves this half out.

Both take about ten minutes. The last line of the output is one JSON object; the exit status is 1 when a
figure misses its limit and docs/performance.md does not say so already.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from router import conversations, latency
from router.many_ways import ROUTER_POLICIES
from wanted import add_only_print, at_least, at_most, conclude, known_to_miss, under

WITH_HEADERS, WITHOUT_HEADERS = ROUTER_POLICIES
WANTED = (
    under(2, "added_p95_ms"),
    under(0.5, "router_cores"),
    under(0.5, "cores", "streams_20_ms_with", "router"),
    under(0.5, "cores", "streams_50_ms_with", "router"),
    known_to_miss(under(2, "saturated_added_p95_ms")),
    known_to_miss(under(2, "saturated_8_connections_added_p95_ms")),
    under(2, "streams_20_ms_added_first_token_p95_ms"),
    known_to_miss(under(2, "streams_20_ms_at_once_added_first_token_p95_ms")),
    under(2, "streams_50_ms_added_first_token_p95_ms"),
)
WANTED_OF_TRACE = (
    at_least(0.95, "share_of_bound", WITH_HEADERS),
    at_least(0.90, "share_of_bound", WITHOUT_HEADERS),
    *(at_most(1.3, "busiest_over_mean", policy) for policy in ROUTER_POLICIES),
    *(at_most(1.3, "busiest_tokens_over_mean", policy) for policy in ROUTER_POLICIES),
)
WHERE = (
    "download conversation_trace.jsonl from the repository kvcache-ai/Mooncake (FAST25-release/traces) and "
    "run `make bench-router TRACE=FILE`, or put it at ../shared/data/mooncake_conversation_trace.jsonl; or "
    "run `make bench-router ARGS=--no-trace`, which does not measure prefix_hit_rate, ttft_p95_seconds and "
    "share_of_bound"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both halves, or with --no-trace the first one."""
    parser = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    trace = parser.add_mutually_exclusive_group()
    trace.add_argument(
        "--trace", type=Path, help="a file of JSON lines in Mooncake's format; see docs/performance.md"
    )
    trace.add_argument(
        "--no-trace", action="store_true", help="measure only the latency that the router adds"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each phase is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=6, help="the length of a phase (default: 6)")
    parser.add_argument(
        "--requests", type=int, default=2000, help="how many requests of the trace to replay (default: 2000)"
    )
    parser.add_argument(
        "--factor", type=float, default=10, help="how much faster than recorded to replay it (default: 10)"
    )
    add_only_print(parser)
    options = parser.parse_args(arguments)
    if options.trace is None and not options.no_trace:
        parser.error(f"there is no trace file: {WHERE}")
    if options.trace is not None and not options.trace.is_file():
        parser.error(f"there is no trace file {options.trace}: {WHERE}")
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-router-") as name:
        folder = Path(name)
        results = latency.measure(folder, rounds=options.rounds, seconds=options.seconds)
        if options.trace is not None:
            results |= conversations.measure(
                folder, options.trace, requests=options.requests, factor=options.factor
            )
    wanted = WANTED if options.no_trace else (*WANTED, *WANTED_OF_TRACE)
    return conclude(results, wanted, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
