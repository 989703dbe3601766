"""Rules of NetworkPolicies (networking.k8s.io/v1): peers that may connect to a component's ports.

Ports for callers are open to everybody, because callers come from anywhere. Ports for metrics are open to
everybody until the chart's `monitoring.namespaceSelector` names who scrapes. Probes come from the node,
which network plugins let through.
"""

from collections.abc import Mapping

from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.images import Images


def from_everybody(*ports: int) -> Manifest:
    """Everybody may connect to these TCP ports."""
    return {"ports": [{"protocol": "TCP", "port": port} for port in ports]}


def from_pods(*selectors: Mapping[str, str], ports: tuple[int, ...]) -> Manifest:
    """Pods of the same namespace with these labels may connect to these TCP ports."""
    peers = [{"podSelector": {"matchLabels": dict(selector)}} for selector in selectors]
    return {"from": peers, **from_everybody(*ports)}


def from_monitoring(images: Images, *ports: int) -> Manifest:
    """Whoever scrapes metrics may connect to these TCP ports: everybody, unless the chart names who does."""
    if not images.metrics_peers:
        return from_everybody(*ports)
    return {"from": [dict(peer) for peer in images.metrics_peers], **from_everybody(*ports)}
