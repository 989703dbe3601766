"""What an engine says of itself on /metrics: read with limits, and believed only where it can be so.

The routers read it and not the operator, because they are the only ones that the engines' network policy lets
in. What is missing, below zero, without end or no number at all is None, unknown.
"""

import math

import aiohttp

from flotilla_runtime.router.pods import Replica

IN_FLIGHT = ("vllm:num_requests_running", "vllm:num_requests_waiting")
KV_USAGE = ("vllm:kv_cache_usage_perc",)  # a share, in spite of its name
METRICS_LIMIT_BYTES = 8 * 2**20


def in_flight(text: str) -> float | None:
    """Requests that run or wait."""
    found = _figures(text, IN_FLIGHT)
    return None if found is None else sum(figure for figures in found for figure in figures)


def kv_usage(text: str) -> float | None:
    """The share of the KV cache in use, from 0 to 1; the mean over the engine's cores."""
    found = _figures(text, KV_USAGE)
    if found is None or max(found[0]) > 1:
        return None
    return sum(found[0]) / len(found[0])


async def read_metrics(session: aiohttp.ClientSession, replica: Replica, port: int) -> str | None:
    """The engine's metrics; None when it does not answer properly in the session's time."""
    host = f"[{replica.ip}]" if ":" in replica.ip else replica.ip
    try:
        async with session.get(f"http://{host}:{port}/metrics") as answer:
            answer.raise_for_status()
            return await _read_limited(answer)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


def _figures(text: str, names: tuple[str, ...]) -> list[list[float]] | None:
    """The figures of each of these metrics; None unless all are there and every one can be true."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for line in text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name in found:
            try:
                figure = float(line.rsplit(" ", 1)[1])
            except (IndexError, ValueError):
                return None
            # With one below zero a busy engine would add up to idle.
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
