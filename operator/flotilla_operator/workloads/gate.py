"""The scheduling gate of the pods of a group with several pods: it is lifted once all of them exist.

A gated pod cannot be bound. If a quota or a webhook refuses the last pod of a group, the others therefore
hold no accelerators. The last pod is created when all others exist, and needs no gate; then the gates of the
others are lifted. The patch that lifts a gate also records the time, from which the scheduler's deadline
counts.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flotilla_operator.objects.times import timestamp
from flotilla_runtime import contract

GATE = f"{contract.DOMAIN}/gang"


def gates() -> list[dict[str, str]]:
    """The `schedulingGates` of a new pod."""
    return [{"name": GATE}]


def is_gated(spec: Mapping[str, Any]) -> bool:
    """Whether the pod still has our gate."""
    return any(gate["name"] == GATE for gate in spec.get("schedulingGates") or ())


def lifting(pod: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    """The operations of a JSON patch that lifts our gate and keeps the gates of others."""
    names = [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]
    path = f"/spec/schedulingGates/{names.index(GATE)}"
    annotation = contract.ANNOTATION_GATE_LIFTED.replace("/", "~1")
    text = timestamp(now)
    return [
        {"op": "test", "path": f"{path}/name", "value": GATE},
        {"op": "remove", "path": path},
        {"op": "add", "path": f"/metadata/annotations/{annotation}", "value": text},
    ]
