"""`make bench-router`: what the router costs, and what its choice of replica is worth.

Two routers behind one address. First the same requests with and without them, in alternation: 4 KB bodies at
500 a second and as fast as it goes, and 500 streams of 200 tokens. Then a trace of conversations over engine
doubles with a KV cache, with and without session headers, beside round robin and least connections, and in a
simulation over many ways to hash. The last line is one JSON object. About eight minutes; `--no-trace`
leaves the second half out.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from router import conversations, latency

WHERE = (
    "take conversation_trace.jsonl from the repository kvcache-ai/Mooncake (FAST25-release/traces) and name "
    "it with TRACE=…, or leave prefix_hit_rate, ttft_p95_seconds and share_of_bound out with ARGS=--no-trace"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both halves, or the first alone where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m router", description=__doc__)
    trace = parser.add_mutually_exclusive_group()
    trace.add_argument("--trace", type=Path, help="JSON lines of Mooncake's form; see docs/performance.md")
    trace.add_argument("--no-trace", action="store_true", help="only what the router adds to a request")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--factor", type=float, default=10)
    options = parser.parse_args(arguments)
    if options.trace is None and not options.no_trace:
        parser.error(f"no trace was named: {WHERE}")
    if options.trace is not None and not options.trace.is_file():
        parser.error(f"there is no trace at {options.trace}: {WHERE}")
    with tempfile.TemporaryDirectory(prefix="flotilla-bench-router-") as name:
        folder = Path(name)
        results = latency.measure(folder, rounds=options.rounds, seconds=options.seconds)
        if options.trace is not None:
            results |= conversations.measure(
                folder, options.trace, requests=options.requests, factor=options.factor
            )
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
