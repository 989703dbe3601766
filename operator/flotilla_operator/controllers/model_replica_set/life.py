"""The life of a group, read from its pod: one file decides the phase, what troubles it and whether it must
go.

    Waiting (no pod) → Binding → Loading → Ready ⇄ Draining → gone

A phase is never kept anywhere, it is read anew each time; so nothing can disagree with the cluster. What ends
a group is a visible chain of checks; what only troubles one (an image that cannot be pulled, a crash loop) is
left to the kubelet's own retries and said in a condition with the container's last words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from flotilla_operator.controllers.conditions import is_true, parsed_timestamp
from flotilla_operator.controllers.model_replica_set.reasons import EventReason, Reason
from flotilla_operator.placement.manifests import FINISHED, pinned_node
from flotilla_runtime import contract

Pod = Mapping[str, Any]

BIND_TIMEOUT = timedelta(seconds=30)
IMAGE_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
LAST_WORDS_LIMIT = 400


class Phase(StrEnum):
    """Where a group stands in its life."""

    WAITING = "Waiting"
    GATED = "Gated"
    BINDING = "Binding"
    LOADING = "Loading"
    READY = "Ready"
    DRAINING = "Draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a group's pod does not get on, in the words of the kubelet or of the container itself."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a group must go, and whether its pod is beyond a graceful stop."""

    reason: EventReason
    message: str
    by_force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """One replica as its pod shows it."""

    name: str
    pod_name: str
    uid: str
    phase: Phase
    pinned: bool
    revision: str
    server_id: int
    node: str | None
    created_at: datetime
    trouble: Trouble | None = None
    ending: Ending | None = None
    in_flight: int | None = None
    sessions: int | None = None
    ready: bool = False
    started: bool = False
    going: bool = False
    drain_epoch: int | None = None
    node_leaves: bool = False
    others_on_node: int = 0

    @property
    def lives(self) -> bool:
        """Whether it counts as a replica: it neither leaves nor has to."""
        return self.phase is not Phase.DRAINING and self.ending is None

    @property
    def may_return(self) -> bool:
        """Whether it drains and could serve on: no pod of it is deleted yet."""
        return self.drain_epoch is not None and not self.going and self.ending is None

    @property
    def may_have_requests(self) -> bool:
        """Whether routers may have sent it requests, so that it must drain before it goes."""
        return self.ready or self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A pod with what judging it takes."""

    pod: Pod
    node_names: frozenset[str]
    now: datetime


Check = Callable[[Seen], Ending | None]


def pod_over(seen: Seen) -> Ending | None:
    """Preempted, evicted by the kubelet, or finished otherwise: such a pod never runs again."""
    status = seen.pod.get("status") or {}
    if status.get("phase") not in FINISHED:
        return None
    why = status.get("message") or status.get("reason") or "its containers have ended"
    return Ending(reason=EventReason.GROUP_FAILED, message=f"the pod is over: {why}")


def node_gone(seen: Seen) -> Ending | None:
    """The node was taken away; nobody will confirm the end of its pods."""
    node = seen.pod["spec"].get("nodeName")
    if not node or node in seen.node_names:
        return None
    return Ending(reason=EventReason.GROUP_LOST, message=f"node {node} no longer exists", by_force=True)


def not_bound_in_time(seen: Seen) -> Ending | None:
    """Somebody else took the room; a pin cannot be moved, so the pod makes way for a new one elsewhere."""
    pin = pinned_node(seen.pod["spec"])
    if seen.pod["spec"].get("nodeName") or pin is None:
        return None
    if seen.now - created_at(seen.pod) < BIND_TIMEOUT:
        return None
    why = _scheduler_message(seen.pod) or "the scheduler said nothing"
    return Ending(
        reason=EventReason.GROUP_RELEASED,
        message=f"not bound to {pin} within {BIND_TIMEOUT.seconds} s: {why}",
    )


ENDS_WHEN: tuple[Check, ...] = (pod_over, node_gone, not_bound_in_time)


def group_of(
    pod: Pod, *, node_names: frozenset[str], now: datetime, in_flight: int | None = None
) -> ReplicaGroup:
    """The group that a leader pod stands for."""
    seen = Seen(pod=pod, node_names=node_names, now=now)
    metadata = pod["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return ReplicaGroup(
        name=labels.get(contract.LABEL_GROUP, metadata["name"]),
        pod_name=metadata["name"],
        uid=metadata["uid"],
        phase=phase_of(pod),
        pinned=pinned_node(pod["spec"]) is not None,
        revision=labels.get(contract.LABEL_REVISION, ""),
        server_id=int(annotations.get(contract.ANNOTATION_SERVER_ID, "0")),
        node=pod["spec"].get("nodeName") or pinned_node(pod["spec"]),
        created_at=created_at(pod),
        trouble=trouble_of(pod),
        ending=next((ending for check in ENDS_WHEN if (ending := check(seen))), None),
        in_flight=in_flight,
        ready=is_true(dict(pod), "Ready"),
        started=engine_started(pod),
        going="deletionTimestamp" in metadata,
        drain_epoch=drain_epoch_of(pod),
    )


def drain_epoch_of(pod: Pod) -> int | None:
    """The epoch of the drain that this pod is in; 0 where the annotation is not one of ours."""
    text = (pod["metadata"].get("annotations") or {}).get(contract.ANNOTATION_DRAIN_EPOCH)
    return None if text is None else int(text) if text.isdecimal() else 0


def engine_started(pod: Pod) -> bool:
    """Whether the engine has given a first answer since it was last started, ready or not."""
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(container.get("started") for container in containers)


def pod_is_over(pod: Pod) -> bool:
    """Whether a pod gives back what it held, or is about to."""
    return "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") in FINISHED


def phase_of(pod: Pod) -> Phase:
    """The phase, from what the API server holds."""
    if "deletionTimestamp" in pod["metadata"] or drain_epoch_of(pod) is not None:
        return Phase.DRAINING
    if pod["spec"].get("schedulingGates"):
        return Phase.GATED
    if not pod["spec"].get("nodeName"):
        return Phase.BINDING
    return Phase.READY if is_true(dict(pod), "Ready") else Phase.LOADING


def trouble_of(pod: Pod) -> Trouble | None:
    """The first thing that keeps the pod's containers from getting on, init containers first."""
    status = pod.get("status") or {}
    if not pod["spec"].get("nodeName"):
        message = _scheduler_message(pod)
        return Trouble(reason=Reason.UNSCHEDULABLE, message=message) if message else None
    for container in status.get("initContainerStatuses") or ():
        if found := _container_trouble(container, Reason.MODEL_FETCH_FAILED):
            return found
    for container in status.get("containerStatuses") or ():
        if not container.get("ready") and (found := _container_trouble(container, Reason.ENGINE_CRASHING)):
            return found
    return None


def created_at(pod: Pod) -> datetime:
    """When the pod was created."""
    return parsed_timestamp(pod["metadata"]["creationTimestamp"])


def _container_trouble(container: Mapping[str, Any], crashing: Reason) -> Trouble | None:
    name, state = container["name"], container.get("state") or {}
    waiting = state.get("waiting") or {}
    said = waiting.get("message") or waiting.get("reason") or ""
    if waiting.get("reason") in IMAGE_REASONS:
        return Trouble(reason=Reason.IMAGE_PULL_FAILED, message=f"container {name}: {said}")
    if waiting.get("reason") in CONFIG_REASONS:
        return Trouble(reason=Reason.CONTAINER_CONFIG_ERROR, message=f"container {name}: {said}")
    ended = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if ended is None or ended.get("exitCode") == 0:
        return None
    return Trouble(
        reason=crashing,
        message=f"container {name} ended with code {ended.get('exitCode')}: {last_words(ended)}",
    )


def last_words(ended: Mapping[str, Any]) -> str:
    """The last line that a container left, for that is where programs say why they end."""
    lines: Sequence[str] = [
        line.strip() for line in (ended.get("message") or "").splitlines() if line.strip()
    ]
    words = lines[-1] if lines else (ended.get("reason") or "it left no message")
    return words[:LAST_WORDS_LIMIT]


def _scheduler_message(pod: Pod) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "")
    return ""
