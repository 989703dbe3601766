"""Where the embedding model of the live generation is called. Pure.

Whoever can write to Milvus chooses what the collection says. So only the name of the ModelReplicaSet is taken
from there, and queries are sent to no address but those that the operator gives to routers of this namespace.
"""

from flotilla_runtime.contract import Embedder, RetrieverConfig, router_urls


def address_of(embedder: Embedder, config: RetrieverConfig) -> str | None:
    """The base URL for the embedder that a collection names; None where no router can have the address."""
    if config.namespace is None:
        return embedder.url
    if config.embedder is not None and config.embedder.model_ref == embedder.model_ref:
        return config.embedder.url
    return embedder.url if embedder.url in router_urls(embedder.model_ref, config.namespace) else None
