"""The images of pods, as the chart names them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The image of each part, and how the kubelet pulls them. Engines for accelerators and CPUs differ."""

    runtime: str
    haproxy: str
    redis: str
    milvus: str
    engine: str
    engine_cpu: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
