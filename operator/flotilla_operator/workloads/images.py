"""The images of pods, as the chart names them, and the parts that pod templates have."""

from dataclasses import dataclass

from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.proxies import NO_PROXIES, Proxies
from flotilla_operator.workloads.template_parts import ALL_PARTS, TemplatePart


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Settings of the chart for all pods: the image of each part, and how the kubelet pulls them.

    Engines for accelerators and CPUs differ. `milvus` is empty where the chart names none.
    `accelerator_tolerations` are those of core/v1 that pods with accelerators get beside their own.
    `metrics_peers` are the peers (networking.k8s.io/v1) that alone may scrape metrics; without any, everybody
    may. `proxies` are for addresses outside of the cluster. `parts` are those of template_parts.py that pod
    templates get: all, but in templates of before. `gateway_role` is the ClusterRole of gateways that have
    the API server check tokens.
    """

    runtime: str
    haproxy: str
    redis: str
    milvus: str
    engine: str
    engine_cpu: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    accelerator_tolerations: tuple[Manifest, ...] = ()
    metrics_peers: tuple[Manifest, ...] = ()
    proxies: Proxies = NO_PROXIES
    parts: frozenset[TemplatePart] = ALL_PARTS
    gateway_role: str = "flotilla-gateway"
    gateways_accept_cluster_tokens: bool = False
