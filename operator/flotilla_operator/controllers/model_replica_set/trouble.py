"""Why a pod does not get on, in the words of the kubelet, the scheduler or the container itself."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.controllers.conditions import parsed_timestamp
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.workloads.engine_pod import CONTAINER, START_WITHIN_SECONDS

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
SAYS_NOTHING = frozenset({"Error", "Completed"})  # reasons of an end that the exit code says already
# The kubelet goes on trying, but what is wrong here seldom passes by itself, and a warning should say so.
# What keeps a stage from running stands first: an engine that waits for that stage in vain crashes over it.
FOR_A_PERSON = (
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_CONFIG_ERROR,
    Reason.MODEL_FETCH_FAILED,
    Reason.ENGINE_CRASHING,
    Reason.ROUTER_CRASHING,
)
SCHEDULING_GATED = "SchedulingGated"  # the reason of a pod's condition PodScheduled
EVICTED_BECAUSE = frozenset({"EvictionByEvictionAPI", "DeletionByTaintManager"})
LAST_WORDS_LIMIT = 400
CONTAINERS_MAY_START = "PodReadyToStartContainers"  # says the kubelet once volumes and network are there
SLOW_SETUP = timedelta(minutes=2)  # a cloud's disk is attached within one
SLOW_START = timedelta(minutes=10)  # where no start of the set has been measured
SLOW_START_AT_LEAST = timedelta(minutes=5)
SLOW_TIMES_USUAL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps a group's pod from getting on."""

    reason: Reason
    message: str

    @property
    def rank(self) -> int:
        """The smaller, the sooner it should be told: what passes by itself comes last."""
        return FOR_A_PERSON.index(self.reason) if self.reason in FOR_A_PERSON else len(FOR_A_PERSON)


def trouble_of(
    pod: Mapping[str, Any],
    *,
    init_fails: Reason = Reason.MODEL_FETCH_FAILED,
    ends: Reason = Reason.ENGINE_CRASHING,
) -> Trouble | None:
    """The first thing that keeps the pod's containers from getting on, init containers first. What it is
    called when they have ended depends on what they are for.
    """
    status = pod.get("status") or {}
    if pod["spec"].get("schedulingGates"):
        return None
    if not pod["spec"].get("nodeName"):
        message = scheduler_message(pod)
        return Trouble(reason=Reason.UNSCHEDULABLE, message=message) if message else None
    for container in status.get("initContainerStatuses") or ():
        if not _is_done(container) and (found := _container_trouble(container, init_fails)):
            return found
    for container in status.get("containerStatuses") or ():
        if not container.get("ready") and (found := _container_trouble(container, ends)):
            return found
    return None


def router_trouble(pods: Iterable[Mapping[str, Any]]) -> Trouble | None:
    """The worst of what keeps a set's routers from getting on, with the pod's name."""
    crashing = Reason.ROUTER_CRASHING
    troubled = ((pod, trouble_of(pod, init_fails=crashing, ends=crashing)) for pod in pods)
    found = [
        replace(trouble, message=f"{pod['metadata']['name']}: {trouble.message}")
        for pod, trouble in troubled
        if trouble is not None
    ]
    return min(found, key=lambda trouble: trouble.rank, default=None)


def slow_setup(pod: Mapping[str, Any], now: datetime) -> Trouble | None:
    """A pod for which the kubelet does not get volumes or network ready; why, it says in the pod's events
    alone.
    """
    for condition in (pod.get("status") or {}).get("conditions") or ():
        since = condition.get("lastTransitionTime")
        held = condition["type"] == CONTAINERS_MAY_START and condition["status"] == "False"
        if held and since is not None and now - parsed_timestamp(since) >= SLOW_SETUP:
            name = pod["metadata"]["name"]
            message = (
                f"its volumes or its network are not there since {since}; see kubectl describe pod {name}"
            )
            return Trouble(reason=Reason.POD_SETUP_SLOW, message=message)
    return None


def slow_start(pod: Mapping[str, Any], usual_seconds: float | None, now: datetime) -> Trouble | None:
    """An engine that runs and has given no first answer for much longer than others of its set needed."""
    usual = None if usual_seconds is None else timedelta(seconds=usual_seconds)
    slow_after = SLOW_START if usual is None else max(SLOW_START_AT_LEAST, SLOW_TIMES_USUAL * usual)
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        since = ((container.get("state") or {}).get("running") or {}).get("startedAt")
        if container["name"] != CONTAINER or container.get("started") or since is None:
            continue
        if now - parsed_timestamp(since) < slow_after:
            continue
        others = "" if usual is None else f", others of the set served after {usual.total_seconds():.0f} s"
        message = (
            f"container {CONTAINER} runs since {since} and has given no first answer{others}; "
            f"the kubelet starts it anew {START_WITHIN_SECONDS} s after its start"
        )
        return Trouble(reason=Reason.ENGINE_SLOW_TO_START, message=message)
    return None


def scheduler_message(pod: Mapping[str, Any]) -> str:
    """What the scheduler says of a pod that it has not bound; that it had a gate stands there until the
    scheduler has looked at it without.
    """
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            reason = condition.get("reason") or ""
            return "" if reason == SCHEDULING_GATED else str(condition.get("message") or reason)
    return ""


def is_evicted(pod: Mapping[str, Any]) -> bool:
    """Whether it is deleted because somebody empties its node, and not for itself."""
    return any(
        condition["type"] == "DisruptionTarget"
        and condition["status"] == "True"
        and condition.get("reason") in EVICTED_BECAUSE
        for condition in (pod.get("status") or {}).get("conditions") or ()
    )


def how_it_ended(container: Mapping[str, Any]) -> str | None:
    """How a container has ended, with its last words; None where it has not. For an engine there is no good
    end, so code 0 is told, too.
    """
    ended = _last_end(container)
    if ended is None:
        return None
    return f"container {container['name']} ended with code {ended.get('exitCode')}: {last_words(ended)}"


def has_ended(container: Mapping[str, Any]) -> bool:
    """Whether a container has ended, or was started anew since."""
    return bool(container.get("restartCount") or (container.get("state") or {}).get("terminated"))


def when_it_ended(container: Mapping[str, Any]) -> str:
    """A key by which containers sort in the order in which they have ended, those of no known time last."""
    return str((_last_end(container) or {}).get("finishedAt") or "unknown")


def last_words(ended: Mapping[str, Any]) -> str:
    """The last line that a container left, for that is where programs say why they end, and before it what
    the kubelet knows better: a program that is killed for memory has no time to say so.
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
    """Whether an init container has done its work, or as a sidecar is at it."""
    ended = _last_end(container)
    return bool(container.get("ready")) or (ended is not None and ended.get("exitCode") == 0)


def _container_trouble(container: Mapping[str, Any], crashing: Reason) -> Trouble | None:
    name, state = container["name"], container.get("state") or {}
    waiting = state.get("waiting") or {}
    said = waiting.get("message") or waiting.get("reason") or ""
    if waiting.get("reason") in IMAGE_REASONS:
        return Trouble(reason=Reason.IMAGE_PULL_FAILED, message=f"container {name}: {said}")
    if waiting.get("reason") in CONFIG_REASONS:
        return Trouble(reason=Reason.CONTAINER_CONFIG_ERROR, message=f"container {name}: {said}")
    words = how_it_ended(container)
    if words is None:
        return None
    if restarts := container.get("restartCount") or 0:
        words += (
            f"; restarted {restarts} times, each after a longer wait" if restarts > 1 else "; restarted once"
        )
    return Trouble(reason=crashing, message=words)
