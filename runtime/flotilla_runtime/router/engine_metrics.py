"""Reads an engine's figures from its /metrics.

The routers read them, because the engines' network policy allows only the routers and not the operator. The
size of an answer is limited. A figure that is missing, negative, infinite or not a number is unknown (None).

The names are those of vLLM 0.32, in Prometheus' text format; e2e/tests/test_engine_contract.py compares them
with a real vLLM. When a name changes, its figure is unknown: a drain then ends at its deadline, and the
status has no KV usage.
"""

import math

import aiohttp

from flotilla_runtime.contract import url_host
from flotilla_runtime.router.pods import Replica

IN_FLIGHT = ("vllm:num_requests_running", "vllm:num_requests_waiting")
KV_USAGE = ("vllm:kv_cache_usage_perc",)  # a share, in spite of its name
METRICS_LIMIT_BYTES = 8 * 2**20


def in_flight(text: str) -> float | None:
    """The number of requests that run or wait."""
    found = _figures(text, IN_FLIGHT)
    return None if found is None else sum(figure for figures in found for figure in figures)


def kv_usage(text: str) -> float | None:
    """The share of the KV cache in use, from 0 to 1; the mean over the engine's cores."""
    found = _figures(text, KV_USAGE)
    if found is None or max(found[0]) > 1:
        return None
    return sum(found[0]) / len(found[0])


async def read_metrics(session: aiohttp.ClientSession, replica: Replica, port: int) -> str | None:
    """The text of the engine's metrics; None when it does not answer properly within the session's time."""
    try:
        async with session.get(f"http://{url_host(replica.ip)}:{port}/metrics") as answer:
            answer.raise_for_status()
            return await _read_limited(answer)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


def _figures(text: str, names: tuple[str, ...]) -> list[list[float]] | None:
    """The figures of each of these metrics; None unless all metrics exist and all figures are possible."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for line in text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name in found:
            try:
                figure = float(line.rsplit(" ", 1)[1])
            except (IndexError, ValueError):
                return None
            # A negative figure could make the sum of a busy engine zero, which would look idle.
            if not math.isfinite(figure) or figure < 0:
                return None
            found[name].append(figure)
    return list(found.values()) if all(found.values()) else None


async def _read_limited(answer: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > METRICS_LIMIT_BYTES:
            raise ValueError(f"the metrics are longer than {METRICS_LIMIT_BYTES} bytes")
    return body.decode(errors="replace")
