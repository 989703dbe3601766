"""Makes the replicas that HAProxy should know from the pods in Kubernetes. Pure.

A ready pod gets requests. A pod that is being deleted, is told to drain, or is no longer ready gets no new
requests and may finish those it has. A pod whose containers have ended, or that has no address yet, is not a
server.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flotilla_runtime import contract
from flotilla_runtime.contract import ServerState

Pod = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A replica, described by its leader pod; `drain_epoch` is set when the operator asks for a drain."""

    name: str
    id: int
    ip: str
    state: ServerState
    drain_epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The replicas sorted by id, and the pods that cannot be servers, each with the problem."""

    usable: tuple[Replica, ...]
    unusable: Mapping[str, str]


def replicas_of(pods: Iterable[Pod]) -> Replicas:
    """The replicas of the pods. When two pods claim the same group or id, one that stays and is ready wins,
    then the older one.
    """
    usable: dict[str, Replica] = {}
    unusable: dict[str, str] = {}
    owner_of_id: dict[int, str] = {}
    for pod in sorted(pods, key=_precedence):
        labels, name = _labels(pod), _name(pod)
        if labels.get(contract.LABEL_STAGE, "0") != "0" or not _may_serve(pod):
            continue
        group = labels.get(contract.LABEL_GROUP, name)
        server_id = _positive_integer(_annotations(pod).get(contract.ANNOTATION_SERVER_ID))
        if server_id is None:
            unusable[name] = f"the annotation {contract.ANNOTATION_SERVER_ID} is not a positive integer"
        elif group in usable:
            unusable[name] = f"another pod serves for the group {group}"
        elif server_id in owner_of_id:
            unusable[name] = f"the server id {server_id} belongs to the group {owner_of_id[server_id]}"
        else:
            owner_of_id[server_id] = group
            usable[group] = Replica(
                name=group,
                id=server_id,
                ip=pod["status"]["podIP"],
                state=_state(pod),
                drain_epoch=drain_epoch(pod),
            )
    return Replicas(usable=tuple(sorted(usable.values(), key=lambda replica: replica.id)), unusable=unusable)


def live_routers(pods: Iterable[Pod], *, own_name: str) -> int:
    """The number of routers that share the limits: this one, and those that are ready and stay."""
    return len({_name(pod) for pod in pods if is_ready(pod) and not is_terminating(pod)} | {own_name})


def is_ready(pod: Pod) -> bool:
    """Whether the pod's condition Ready is True."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(
        condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions
    )


def is_terminating(pod: Pod) -> bool:
    """Whether the pod is being deleted."""
    return pod["metadata"].get("deletionTimestamp") is not None


def drain_epoch(pod: Pod) -> int | None:
    """The epoch of the drain that the operator asks for; 0 when the annotation is not a number."""
    text = _annotations(pod).get(contract.ANNOTATION_DRAIN_EPOCH)
    return None if not text else (_positive_integer(text) or 0)


def _precedence(pod: Pod) -> tuple[bool, bool, str, str]:
    created = str(pod["metadata"].get("creationTimestamp", ""))
    return is_terminating(pod), not is_ready(pod), created, _name(pod)


def _may_serve(pod: Pod) -> bool:
    status = pod.get("status", {})
    return bool(status.get("podIP")) and status.get("phase") not in ("Succeeded", "Failed")


def _state(pod: Pod) -> ServerState:
    takes_requests = is_ready(pod) and not is_terminating(pod) and drain_epoch(pod) is None
    return ServerState.READY if takes_requests else ServerState.DRAINING


def _name(pod: Pod) -> str:
    return str(pod["metadata"]["name"])


def _labels(pod: Pod) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def _annotations(pod: Pod) -> Mapping[str, str]:
    return pod["metadata"].get("annotations") or {}


def _positive_integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and text.isascii() and int(text) > 0 else None
