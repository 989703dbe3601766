"""Pins a pod to one node, with the checks of the kube-scheduler.

It uses required node affinity on `metadata.name` and never `nodeName`, which would bypass the scheduler and
its checks of taints, volumes and devices. The user's node selector terms are alternatives, so the node is
added to each of them: a term without it would allow other nodes.
"""

from collections.abc import Mapping
from typing import Any

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def pinned(affinity: Mapping[str, Any] | None, node: str) -> dict[str, Any]:
    """The affinity, with the node's name in every required term."""
    whole = dict(affinity or {})
    node_affinity = dict(whole.get("nodeAffinity") or {})
    terms = (node_affinity.get(REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    pin = {"key": "metadata.name", "operator": "In", "values": [node]}
    node_affinity[REQUIRED] = {
        "nodeSelectorTerms": [
            {**term, "matchFields": [*(term.get("matchFields") or ()), pin]} for term in terms
        ]
    }
    return {**whole, "nodeAffinity": node_affinity}
