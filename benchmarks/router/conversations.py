"""Measures the choice of the replica: a trace of conversations on engine doubles with a KV cache.

The trace is replayed `factor` times faster than it was recorded. The engines' prefill is faster and the
answers are shorter by the same factor, so the load is that of the recording; times to first token are
multiplied by the factor. The bound is the hit rate of a single replica with the KV memory of all, asked in
the trace's order. Without the session header the router takes its key from the body (trace.py says how the
text is made).
"""

import json
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from local_cluster.directories import CHECKOUT
from local_cluster.processes import free_port
from router.many_ways import (
    DECODE_STEP_SECONDS,
    KV_BLOCKS,
    MAX_NUM_BATCHED_TOKENS,
    MAX_NUM_SEQS,
    PREFILL_TOKENS_PER_SECOND,
    REPLICAS,
    ROUTER_POLICIES,
    fleet,
    simulated,
)
from router.parts import (
    Balancer,
    ask,
    engine_addresses,
    plain_balancers,
    running,
    two_routers,
    wait_until_healthy,
)
from router.simulation import bound
from router.trace import BLOCK_TOKENS, Turn, Writer, read_turns

POLICIES = (*ROUTER_POLICIES, "round robin", "least connections")


@contextmanager
def doubles(folder: Path, factor: float) -> Iterator[int]:
    """New engine doubles with empty caches; yields their port."""
    port = free_port()
    config = folder / "double.json"
    settings = {
        "model": "m",
        "max_model_len": 200_000,
        "max_num_seqs": MAX_NUM_SEQS,
        "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS,
        "kv_blocks": KV_BLOCKS,
        "block_tokens": BLOCK_TOKENS,
        "prefill_tokens_per_second": PREFILL_TOKENS_PER_SECOND * factor,
        "decode_step_seconds": DECODE_STEP_SECONDS,
    }
    config.write_text(json.dumps(settings))
    with ExitStack() as stack:
        for ip in engine_addresses(REPLICAS):
            command = (sys.executable, "-m", "engine_double", "--config", str(config), "--host", ip)
            stack.enter_context(
                running(*command, "--port", str(port), log=folder / "doubles.log", cwd=CHECKOUT / "e2e")
            )
        for ip in engine_addresses(REPLICAS):
            wait_until_healthy(f"http://{ip}:{port}/health")
        yield port


def write_turns(turns: Iterable[Turn], path: Path, factor: float) -> None:
    """Write the load generator's input: each request's body, and the time when it is due."""
    writer = Writer()
    with path.open("w") as file:
        for turn in turns:
            messages = [{"role": each.role, "content": each.content} for each in writer.messages(turn)]
            body = {
                "model": "m",
                "messages": messages,
                "stream": True,
                "ignore_eos": True,
                "max_tokens": max(1, int(turn.reply_tokens / factor)),
            }
            line = {"due_seconds": turn.due_seconds / factor, "session": turn.session, "body": body}
            file.write(json.dumps(line) + "\n")


def replay(folder: Path, policy: str, turns: Path, factor: float) -> dict[str, float]:
    """The figures of one policy over the whole trace."""
    with doubles(folder, factor) as engine_port, _balancer(folder, policy, engine_port) as balancer:
        headers = ("-headers",) if policy == "session header" else ()
        answer = ask("replay", "-url", balancer.url, "-turns", str(turns), *headers)
        tokens = [_cache_tokens(f"http://{ip}:{engine_port}") for ip in engine_addresses(REPLICAS)]
    requests = list(answer["replicas"].values())
    asked = [asked for _, asked in tokens]
    return {
        "prefix_hit_rate": sum(hits for hits, _ in tokens) / sum(asked),
        "ttft_p95_seconds": answer["p95_ms"] / 1000 * factor,
        "ttft_p50_seconds": answer["p50_ms"] / 1000 * factor,
        "busiest_over_mean": max(requests) * REPLICAS / sum(requests),
        "busiest_tokens_over_mean": max(asked) * REPLICAS / sum(asked),
    }


def _balancer(folder: Path, policy: str, engine_port: int) -> AbstractContextManager[Balancer]:
    balance = {"round robin": "roundrobin", "least connections": "leastconn"}.get(policy)
    if balance is None:
        return two_routers(folder, engine_port, REPLICAS, max_num_seqs=MAX_NUM_SEQS)
    return plain_balancers(folder, engine_port, REPLICAS, balance=balance)


def _cache_tokens(url: str) -> tuple[float, float]:
    """Hits and queries of one engine's prefix cache, in tokens."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {
        line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:prefix")
    }
    return found["vllm:prefix_cache_hits_total"], found["vllm:prefix_cache_queries_total"]


def measure(folder: Path, trace: Path, *, requests: int, factor: float) -> dict[str, Any]:
    """Every figure by policy, and each policy's share of the bound."""
    turns = read_turns(trace, requests)
    best = bound(turns, fleet(factor))
    prepared = folder / "turns.jsonl"
    write_turns(turns, prepared, factor)
    found = {}
    for policy in POLICIES:
        found[policy] = replay(folder, policy, prepared, factor)
        print(policy, {key: round(value, 3) for key, value in found[policy].items()}, flush=True)
    by_policy = {key: {policy: found[policy][key] for policy in POLICIES} for key in found[POLICIES[0]]}
    shares = {policy: found[policy]["prefix_hit_rate"] / best for policy in POLICIES}
    return {
        **by_policy,
        "share_of_bound": shares,
        "bound": best,
        "time_factor": factor,
        "simulated": simulated(turns, best, factor),
    }
