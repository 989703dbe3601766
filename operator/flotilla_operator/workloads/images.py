"""The images that pods are made from, as the chart names them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """One image a part, and how the kubelet fetches them."""

    runtime: str
    haproxy: str
    redis: str
    milvus: str
    engine: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
