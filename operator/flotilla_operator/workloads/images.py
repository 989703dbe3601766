"""The images that pods are made from, as the chart names them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """One image a part, and how the kubelet fetches them; an engine is built for accelerators or for CPUs."""

    runtime: str
    haproxy: str
    redis: str
    milvus: str
    engine: str
    engine_cpu: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
