"""Removes what containers said as they ended, where kinds are restricted.

A container may print a Secret that it mounts, and who may read objects of the kinds need not be one who may
read logs. So the caches never hold these words there, and no status can show them. Reports of our own images,
in their own form, stay. So do the kubelet's reasons and the exit codes.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from flotilla_operator.objects.resources import Manifest
from flotilla_runtime.contract import LABEL_COMPONENT, LABEL_OWNER_NAME, ModelFacts, StepReport

Told = type[StepReport] | type[ModelFacts] | None

BUILD: Final = "build"
# The container runtime quotes the command, in which the kubelet has replaced `$(NAME)` by values.
QUOTES_THE_COMMAND: Final = frozenset({"CreateContainerError", "RunContainerError"})
KINDS_OF_CONTAINERS: Final = ("initContainerStatuses", "containerStatuses")


def without_last_words(pod: Manifest) -> Manifest:
    """A pod of ours without free texts of its containers, which says instead where to read them."""
    labels = pod["metadata"].get("labels") or {}
    status = pod.get("status")
    if LABEL_OWNER_NAME not in labels or not status:
        return pod
    is_build = labels.get(LABEL_COMPONENT) == BUILD
    kept = {**status}
    for kind in KINDS_OF_CONTAINERS:
        if status.get(kind):
            told: Told = StepReport if is_build else ModelFacts if kind == KINDS_OF_CONTAINERS[0] else None
            kept[kind] = [_quiet(container, pod["metadata"], told) for container in status[kind]]
    return {**pod, "status": kept}


def _quiet(container: Manifest, metadata: Manifest, told: Told) -> Manifest:
    pod = f"-n {metadata.get('namespace')} {metadata['name']}"
    logs = f"kubectl logs {pod} -c {container['name']}"
    quiet = {**container}
    for time, previous in (("state", ""), ("lastState", " --previous")):
        if state := container.get(time):
            quiet[time] = {
                name: _quiet_state(name, held, pod, f"{logs}{previous}", told) for name, held in state.items()
            }
    return quiet


def _quiet_state(name: str, held: Manifest, pod: str, logs: str, told: Told) -> Manifest:
    if not held or not held.get("message"):
        return held
    if name == "terminated" and not _is_told(held, told):
        return {**held, "message": f"its words are in its logs alone: {logs}"}
    if name == "waiting" and held.get("reason") in QUOTES_THE_COMMAND:
        return {**held, "message": f"{held['reason']}; kubectl describe pod {pod} says why"}
    return held


def _is_told(ended: Mapping[str, Any], told: Told) -> bool:
    """Whether a container left a report in a form of ours. Facts are left only by one that succeeds."""
    if told is None or (told is ModelFacts and ended.get("exitCode") != 0):
        return False
    try:
        told.model_validate_json(ended["message"])
    except (ValidationError, ValueError):
        return False
    return True
