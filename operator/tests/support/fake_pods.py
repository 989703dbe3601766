"""The API server's own rules for pods: defaults, what may not change, and a deletion's grace."""

import copy
from collections.abc import Mapping
from typing import Any

from flotilla_operator.placement.manifests import FINISHED
from tests.support.fake_changes import Manifest

GRACE_SECONDS = 30
# Of a pod's spec these may still change; the gates and what holds while there are some only in one direction.
CHANGEABLE = frozenset({"schedulingGates", "tolerations", "activeDeadlineSeconds"})
WHILE_GATED = frozenset({"nodeSelector", "affinity"})


def with_defaults(pod: Manifest) -> Manifest:
    """A new pod as the API server stores it."""
    spec = pod.setdefault("spec", {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", GRACE_SECONDS)
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        limits = (container.get("resources") or {}).get("limits")
        if limits:
            container["resources"]["requests"] = {**limits, **container["resources"].get("requests", {})}
    pod["status"] = {"phase": "Pending"}
    if spec.get("schedulingGates"):
        gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
        pod["status"]["conditions"] = [
            {**gated, "message": "Scheduling is blocked due to non-empty scheduling gates"}
        ]
    return pod


def forbidden_change(held: Manifest, changed: Manifest) -> str:
    """Fault of a change of a pod's spec; empty when it may be made."""
    before, after = held.get("spec") or {}, changed.get("spec") or {}
    gates = _names(before.get("schedulingGates"))
    if not _names(after.get("schedulingGates")) <= gates:
        return "spec.schedulingGates: only deletion is allowed"
    allowed = CHANGEABLE | (WHILE_GATED if gates else frozenset())
    for key in sorted(before.keys() | after.keys()):
        if key not in allowed and _without_images(before.get(key)) != _without_images(after.get(key)):
            return f"spec.{key}: pod updates may not change fields other than the image and some others"
    return ""


def grace_seconds(pod: Manifest, asked: int | None) -> int:
    """How long the pod's containers get to end; none when none runs."""
    ended = (pod.get("status") or {}).get("phase") in FINISHED
    spec = pod.get("spec") or {}
    if ended or not spec.get("nodeName"):
        return 0
    own: int = spec.get("terminationGracePeriodSeconds", GRACE_SECONDS)
    return own if asked is None else asked


def _names(gates: Any) -> set[str]:
    return {gate["name"] for gate in gates or ()}


def _without_images(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    copied = copy.deepcopy(value)
    for item in copied:
        if isinstance(item, Mapping):
            item.pop("image", None)  # type: ignore[attr-defined]
    return copied
