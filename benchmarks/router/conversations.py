"""What the choice of the replica is worth: a trace of conversations over engine doubles with a KV cache.

The trace is faster by `factor` than it was recorded: prompts are read, and answers are shorter, by the same
factor, so the load is that of the recording. The bound is the hit rate of one replica with the KV memory of
all, asked in the trace's order.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engine_double.kv_cache import KVCache
from local_cluster.directories import CHECKOUT
from local_cluster.processes import free_port
from router.parts import Balancer, ask, engine_addresses, plain_balancers, running, two_routers

REPLICAS = 8
BLOCK_TOKENS = 512
KV_BLOCKS = 960  # 16 contexts of 30,000 tokens, as a TP-4 replica holds
PREFILL_TOKENS_PER_SECOND = 11_300
DECODE_STEP_SECONDS = 0.012
MAX_NUM_SEQS = 48
POLICIES = ("session header", "key in the body", "round robin", "least connections")


@contextmanager
def doubles(folder: Path, factor: float) -> Iterator[int]:
    """Fresh engines; their port."""
    port = free_port()
    config = folder / "double.json"
    settings = {
        "model": "m",
        "max_model_len": 200_000,
        "max_num_seqs": MAX_NUM_SEQS,
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
            _wait_until_healthy(f"http://{ip}:{port}/health")
        yield port


def _wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"{url} does not answer")


def replay(folder: Path, policy: str, trace: Path, *, requests: int, factor: float) -> dict[str, float]:
    """One policy over the whole trace."""
    with doubles(folder, factor) as engine_port, _balancer(folder, policy, engine_port) as balancer:
        options = ["-requests", str(requests), "-factor", str(factor)]
        options += ["-headers"] if policy == "session header" else []
        answer = ask("replay", "-url", balancer.url, "-trace", str(trace), *options)
        tokens = [_cache_tokens(f"http://{ip}:{engine_port}") for ip in engine_addresses(REPLICAS)]
    loads = list(answer["replicas"].values())
    return {
        "prefix_hit_rate": sum(hits for hits, _ in tokens) / sum(asked for _, asked in tokens),
        "ttft_p95_seconds": answer["p95_ms"] / 1000,
        "ttft_p50_seconds": answer["p50_ms"] / 1000,
        "busiest_over_mean": max(loads) * REPLICAS / sum(loads),
        "busiest_tokens_over_mean": max(asked for _, asked in tokens)
        * REPLICAS
        / sum(asked for _, asked in tokens),
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


def bound(trace: Path, requests: int) -> float:
    """The hit rate of one replica with the memory of all."""
    cache = KVCache(blocks=KV_BLOCKS * REPLICAS, block_tokens=BLOCK_TOKENS)
    hits = asked = 0
    with trace.open() as lines:
        for _, line in zip(range(requests), lines, strict=False):
            blocks: Mapping[str, Any] = json.loads(line)
            keys = blocks["hash_ids"]
            hits += cache.cached_blocks(keys)
            asked += len(keys)
            cache.hold(keys)
            cache.release(keys, 0)
    return hits / asked


def measure(folder: Path, trace: Path, *, requests: int, factor: float) -> dict[str, Any]:
    """Every figure by policy, and each policy's share of the bound."""
    best = bound(trace, requests)
    found = {policy: replay(folder, policy, trace, requests=requests, factor=factor) for policy in POLICIES}
    for policy, values in found.items():
        print(policy, {key: round(value, 3) for key, value in values.items()})
    by_policy = {key: {policy: found[policy][key] for policy in POLICIES} for key in found[POLICIES[0]]}
    shares = {policy: found[policy]["prefix_hit_rate"] / best for policy in POLICIES}
    return {**by_policy, "share_of_bound": shares, "bound": best, "time_factor": factor}
