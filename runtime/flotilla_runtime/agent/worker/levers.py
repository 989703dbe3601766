"""Puts the levers of a fleet's configuration in front of a worker's calls."""

import random
import time
from collections.abc import Mapping

import httpx2
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from flotilla_runtime.agent.levers.buckets import Turns
from flotilla_runtime.agent.levers.cached_calls import CachedCalls, Embedder
from flotilla_runtime.agent.levers.calls import LimitedCalls
from flotilla_runtime.agent.levers.guards import Circuits
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.programs import ContextOf
from flotilla_runtime.agent.protocols import Calls
from flotilla_runtime.agent.store.rate_limits import RateLimits
from flotilla_runtime.agent.store.result_cache import ResultCache
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.agent.worker.embedder import QueryEmbedder
from flotilla_runtime.contract import EMBED_ROLE, WorkerConfig


def under_levers(
    calls: Calls,
    config: WorkerConfig,
    redis: Redis,
    client: httpx2.AsyncClient,
    *,
    environment: Mapping[str, str],
    tools: Mapping[str, Tool],
    context_of: ContextOf,
    registry: CollectorRegistry,
) -> Calls:
    """These calls under rate limits and circuits, and before them the cache."""
    metrics = LeverMetrics(registry)
    buckets = RateLimits(redis, config.queue.fleet, config.rate_limits)
    turns = Turns(buckets, monotonic_seconds=time.monotonic, draw=random.uniform)
    circuits = Circuits(metrics, time.monotonic)
    limited = LimitedCalls(
        calls,
        config.models,
        tools=tools,
        turns=turns,
        circuits=circuits,
        metrics=metrics,
        context_of=context_of,
        monotonic_seconds=time.monotonic,
    )
    if config.cache is None:
        return limited
    embed = next((model for model in config.models if model.role == EMBED_ROLE), None)
    embedder: Embedder | None = None
    if embed is not None and config.cache.semantic_threshold is not None:
        embedder = QueryEmbedder(client, embed, environment=environment, turns=turns, circuits=circuits)
    return CachedCalls(
        limited,
        ResultCache(redis, config.queue.fleet),
        config.cache,
        revision=config.revision,
        tools=tools,
        metrics=metrics,
        embedder=embedder,
    )
