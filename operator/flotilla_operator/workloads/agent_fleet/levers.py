"""Rate limits and the cache as the workers read them."""

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_runtime import contract


def rate_limits(spec: AgentFleetSpec) -> tuple[contract.RateLimit, ...]:
    """The limits on calls of all workers together, by their names."""
    return tuple(
        contract.RateLimit(
            name=limit.name,
            requests_per_minute=limit.requests_per_minute,
            tokens_per_minute=limit.tokens_per_minute,
        )
        for limit in sorted(spec.rate_limits, key=lambda limit: limit.name)
    )


def cache(spec: AgentFleetSpec) -> contract.CacheConfig:
    """Return the configuration of the caches of results."""
    return contract.CacheConfig(
        retrieval=spec.cache.retrieval,
        pure_tools=spec.cache.pure_tools,
        semantic_threshold=spec.cache.semantic_threshold,
    )
