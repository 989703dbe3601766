"""The scheduling gate that holds the pods of a group of several back until all of them exist.

A gated pod may not be bound by anybody, so a quota or a webhook that refuses the last pod of a group leaves
pods that hold no accelerator. The last pod itself is created when all others exist and needs no gate; then
theirs are lifted. That is one patch, which also notes the time: from then on the scheduler has a deadline.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flotilla_runtime import contract

GATE = f"{contract.DOMAIN}/gang"


def time_text(time: datetime) -> str:
    """A time as it stands in an annotation: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def gates() -> list[dict[str, str]]:
    """A pod's `schedulingGates` as it is created."""
    return [{"name": GATE}]


def is_gated(spec: Mapping[str, Any]) -> bool:
    """Whether our gate still stands."""
    return any(gate["name"] == GATE for gate in spec.get("schedulingGates") or ())


def lifting(pod: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    """The operations of the JSON patch that lifts our gate and leaves those of others."""
    names = [gate["name"] for gate in pod["spec"].get("schedulingGates") or ()]
    path = f"/spec/schedulingGates/{names.index(GATE)}"
    annotation = contract.ANNOTATION_GATE_LIFTED.replace("/", "~1")
    text = time_text(now)
    return [
        {"op": "test", "path": f"{path}/name", "value": GATE},
        {"op": "remove", "path": path},
        {"op": "add", "path": f"/metadata/annotations/{annotation}", "value": text},
    ]
