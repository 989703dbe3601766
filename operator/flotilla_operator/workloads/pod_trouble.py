"""Why a pod makes no progress, in the words of the kubelet, the scheduler or the container itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from flotilla_operator.objects.times import known_time
from flotilla_operator.replicas.trouble import Trouble, TroubleReason

IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
CONFIG_REASONS = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "PreCreateHookError",
        "PreStartHookError",
    }
)
SAYS_NOTHING = frozenset({"Error", "Completed"})  # reasons that add nothing to the exit code
WORDS_FOR_TOO_LITTLE = ("Insufficient ", "Too many pods")
SCHEDULING_GATED = "SchedulingGated"  # the reason of a pod's condition PodScheduled
EVICTED_BECAUSE = frozenset({"EvictionByEvictionAPI", "DeletionByTaintManager"})
LAST_WORDS_LIMIT = 400
CONTAINERS_MAY_START = "PodReadyToStartContainers"  # set by the kubelet once volumes and network are ready


def trouble_of(
    pod: Mapping[str, Any],
    *,
    init_fails: TroubleReason = TroubleReason.MODEL_FETCH_FAILED,
    ends: TroubleReason = TroubleReason.ENGINE_CRASHING,
) -> Trouble | None:
    """The first thing that keeps the pod's containers from running, init containers first.

    `init_fails` and `ends` are the reasons to give when an init container or another container has ended.
    """
    status = pod.get("status") or {}
    if pod["spec"].get("schedulingGates"):
        return None
    if not pod["spec"].get("nodeName"):
        message = scheduler_message(pod)
        return Trouble(reason=TroubleReason.UNSCHEDULABLE, message=message) if message else None
    for container in status.get("initContainerStatuses") or ():
        if not _is_done(container) and (found := _container_trouble(container, init_fails)):
            return found
    for container in status.get("containerStatuses") or ():
        if not container.get("ready") and (found := _container_trouble(container, ends)):
            return found
    return None


def router_trouble(pods: Iterable[Mapping[str, Any]]) -> Trouble | None:
    """The most important trouble of a set's routers, with the pod's name."""
    crashing = TroubleReason.ROUTER_CRASHING
    troubled = ((pod, trouble_of(pod, init_fails=crashing, ends=crashing)) for pod in pods)
    found = [
        replace(trouble, message=f"{pod['metadata']['name']}: {trouble.message}")
        for pod, trouble in troubled
        if trouble is not None
    ]
    return min(found, key=lambda trouble: trouble.rank, default=None)


def setup_waits_since(pod: Mapping[str, Any]) -> datetime | None:
    """Since when the kubelet has not got the pod's volumes and network ready; None when they are."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == CONTAINERS_MAY_START and condition["status"] == "False":
            since = condition.get("lastTransitionTime")
            return known_time(since)
    return None


def scheduler_message(pod: Mapping[str, Any]) -> str:
    """Why the scheduler has not bound a pod.

    A message about the scheduling gate is not taken: it remains until the scheduler has looked at the pod
    without gates.
    """
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("reason") or ""
            return "" if reason == SCHEDULING_GATED else str(condition.get("message") or reason)
    return ""


def lacks_resources(scheduler_message: str) -> bool:
    """Whether a node has too little of something that becomes free again. Only the scheduler's words tell."""
    return any(words in scheduler_message for words in WORDS_FOR_TOO_LITTLE)


def is_evicted(pod: Mapping[str, Any]) -> bool:
    """Whether the pod is being deleted because its node is emptied."""
    return any(
        condition["type"] == "DisruptionTarget"
        and condition["status"] == "True"
        and condition.get("reason") in EVICTED_BECAUSE
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )


def how_it_ended(container: Mapping[str, Any]) -> str | None:
    """How a container ended, with its last words; None when it has not ended.

    An engine should never end, so code 0 is reported too.
    """
    ended = _last_end(container)
    if ended is None:
        return None
    return f"container {container['name']} ended with code {ended.get('exitCode')}: {last_words(ended)}"


def has_ended(container: Mapping[str, Any]) -> bool:
    """Whether a container has ended at least once, even if it was restarted since."""
    return bool(container.get("restartCount") or (container.get("state") or {}).get("terminated"))


def when_it_ended(container: Mapping[str, Any]) -> str:
    """A key that sorts containers by the time of their end; those without a known time come last."""
    return str((_last_end(container) or {}).get("finishedAt") or "unknown")


def last_words(ended: Mapping[str, Any]) -> str:
    """The last line that a container logged, which is where programs say why they end.

    The kubelet's own reason comes before it, because a program that is killed for memory has no time to log
    anything.
    """
    lines: Sequence[str] = [
        line.strip() for line in (ended.get("message") or "").splitlines() if line.strip()
    ]
    reason = ended.get("reason") or ""
    if not lines:
        return reason or "it left no message"
    known = f"{reason}: " if reason and reason not in SAYS_NOTHING else ""
    return f"{known}{lines[-1][:LAST_WORDS_LIMIT]}"


def _last_end(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    ended = (container.get("state") or {}).get("terminated")
    last: Mapping[str, Any] | None = ended or (container.get("lastState") or {}).get("terminated")
    return last


def _is_done(container: Mapping[str, Any]) -> bool:
    """Whether an init container has done its work, or is a sidecar that is ready."""
    ended = _last_end(container)
    return bool(container.get("ready")) or (ended is not None and ended.get("exitCode") == 0)


def _container_trouble(container: Mapping[str, Any], crashing: TroubleReason) -> Trouble | None:
    name, state = container["name"], container.get("state") or {}
    waiting = state.get("waiting") or {}
    said = waiting.get("message") or waiting.get("reason") or ""
    if waiting.get("reason") in IMAGE_REASONS:
        return Trouble(reason=TroubleReason.IMAGE_PULL_FAILED, message=f"container {name}: {said}")
    if waiting.get("reason") in CONFIG_REASONS:
        return Trouble(reason=TroubleReason.CONTAINER_CONFIG_ERROR, message=f"container {name}: {said}")
    words = how_it_ended(container)
    if words is None:
        return None
    if restarts := container.get("restartCount") or 0:
        words += (
            f"; restarted {restarts} times, each after a longer wait" if restarts > 1 else "; restarted once"
        )
    return Trouble(reason=crashing, message=words)
