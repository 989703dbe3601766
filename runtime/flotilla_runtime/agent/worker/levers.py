"""Puts the levers of a fleet's configuration in front of a worker's calls."""

import random
import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from flotilla_runtime.agent.levers.buckets import Turns
from flotilla_runtime.agent.levers.calls import LimitedCalls
from flotilla_runtime.agent.levers.guards import Circuits
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.programs import ContextOf
from flotilla_runtime.agent.protocols import Calls
from flotilla_runtime.agent.store.rate_limits import RateLimits
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import WorkerConfig


def under_levers(
    calls: Calls,
    config: WorkerConfig,
    redis: Redis,
    *,
    tools: Mapping[str, Tool],
    context_of: ContextOf,
    registry: CollectorRegistry,
) -> Calls:
    """These calls under rate limits and circuits."""
    metrics = LeverMetrics(registry)
    buckets = RateLimits(redis, config.queue.fleet, config.rate_limits)
    return LimitedCalls(
        calls,
        config.models,
        tools=tools,
        turns=Turns(buckets, monotonic_seconds=time.monotonic, draw=random.uniform),
        circuits=Circuits(metrics, time.monotonic),
        metrics=metrics,
        context_of=context_of,
        monotonic_seconds=time.monotonic,
    )
