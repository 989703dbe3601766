"""Pins a pod to one node in a way the kube-scheduler still checks.

Required node affinity on `metadata.name`, never `nodeName`: that would skip the scheduler and with it taints,
volumes and the devices' accounting. With several of the user's own terms, which are alternatives, each is
pinned, because one that is not would let the pod go elsewhere.
"""

from collections.abc import Mapping
from typing import Any

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def pinned(affinity: Mapping[str, Any] | None, node: str) -> dict[str, Any]:
    """The affinity with the node's name in every required term."""
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
