"""`make bench-isolation`: measure what `isolateTenants` costs, with 1, 10 and 50 tenants of one model.

Each tenant asks ten questions. All prompts begin with the same 2,000 tokens, as those of one agent with its
tools do, and end with 100 of their own. Four requests are under way at once. The model is an engine double
with room for 100,000 tokens in its cache, which computes 11,300 tokens of prompt a second.

- `prefix_hit_rate`: the share of the prompts' tokens that were found in the cache.
- `first_token_ms`: the time to the first token, p50 and p95.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx2

from local_cluster.directories import CHECKOUT
from local_cluster.processes import free_port
from router.parts import running, wait_until_healthy
from wanted import Wanted, add_only_print, at_least, conclude

TENANTS: Final = (1, 10, 50)
QUESTIONS: Final = 10
AT_ONCE: Final = 4
SHARED_TOKENS: Final = 2000
OWN_TOKENS: Final = 100
CHARACTERS_PER_TOKEN: Final = 4
SETTINGS: Final = {
    "model": "m",
    "max_model_len": 8192,
    "kv_blocks": 6250,
    "block_tokens": 16,
    "reply_tokens": 1,
    "prompt_tokens_details": True,
}


async def asked(client: httpx2.AsyncClient, question: str, salt: str | None) -> tuple[float, int, int]:
    """The seconds to the first token, and how many tokens the prompt had, and had in the cache."""
    body: dict[str, Any] = {
        "model": "m",
        "messages": [
            {"role": "system", "content": text(SHARED_TOKENS, 0)},
            {"role": "user", "content": question},
        ],
        "max_tokens": 1,
    }
    if salt is not None:
        body["cache_salt"] = salt
    begun = time.monotonic()
    answer = (await client.post("/v1/chat/completions", json=body)).raise_for_status().json()
    took = time.monotonic() - begun
    usage = answer["usage"]
    return took, usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def text(tokens: int, seed: int) -> str:
    """A text of about so many tokens."""
    letters = random.Random(seed).choices("abcdefgh ", k=tokens * CHARACTERS_PER_TOKEN)
    return "".join(letters)


async def measured(port: int, tenants: int, *, isolated: bool) -> dict[str, float]:
    """The figures of all tenants' questions, which come in a random order."""
    asking = [(tenant, number) for tenant in range(tenants) for number in range(QUESTIONS)]
    random.Random(tenants).shuffle(asking)
    places = asyncio.Semaphore(AT_ONCE)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        async def one(tenant: int, number: int) -> tuple[float, int, int]:
            async with places:
                question = text(OWN_TOKENS, 1 + tenant * QUESTIONS + number)
                return await asked(client, question, f"tenant {tenant}" if isolated else None)

        found = await asyncio.gather(*(one(*each) for each in asking))
    return {
        "prefix_hit_rate": round(sum(hit for *_, hit in found) / sum(read for _, read, _ in found), 3),
        "first_token_ms_p50": round(1000 * _percentile([took for took, *_ in found], 50), 1),
        "first_token_ms_p95": round(1000 * _percentile([took for took, *_ in found], 95), 1),
    }


def _percentile(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def figures() -> dict[str, dict[str, float]]:
    """The figures by number of tenants, with and without isolation; each with an empty cache."""
    found: dict[str, dict[str, float]] = {}
    for tenants in TENANTS:
        for isolated in (False, True):
            with tempfile.TemporaryDirectory() as made:
                folder, port = Path(made), free_port()
                (folder / "double.json").write_text(json.dumps(SETTINGS))
                command = (sys.executable, "-m", "engine_double", "--config", str(folder / "double.json"))
                log = folder / "double.log"
                with running(*command, "--port", str(port), log=log, cwd=CHECKOUT / "e2e"):
                    wait_until_healthy(f"http://127.0.0.1:{port}/health")
                    name = f"{tenants}_{'isolated' if isolated else 'shared'}"
                    found[name] = asyncio.run(measured(port, tenants, isolated=isolated))
                    print(name, found[name], flush=True)
    return found


WANTED: Final[tuple[Wanted, ...]] = (
    at_least(0.9, "50_shared", "prefix_hit_rate"),
    at_least(0.8, "10_isolated", "prefix_hit_rate"),
)


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m isolation", description=__doc__)
    add_only_print(parser)
    options = parser.parse_args()
    return conclude(figures(), WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
