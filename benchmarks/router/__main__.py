"""`make bench-router`: what the router costs, and what its choice of replica is worth.

Two routers behind one address. First the same requests with and without them, in alternation: 4 KB bodies at
500 a second and as fast as it goes, and 500 streams of 200 tokens. Then a trace of conversations over engine
doubles with a KV cache, with and without session headers, beside round robin and least connections, and in a
simulation over many ways to hash. The last line is one JSON object. About eight minutes with a trace.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from router import conversations, latency


def main() -> int:
    """Measures both halves, or what of them is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="JSON lines of Mooncake's form; see docs/performance.md")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--factor", type=float, default=10)
    options = parser.parse_args()
    if options.trace is not None and not options.trace.is_file():
        parser.error(
            f"there is no trace at {options.trace}: take conversation_trace.jsonl from the repository "
            "kvcache-ai/Mooncake (FAST25-release/traces) and name it with TRACE=…"
        )
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
