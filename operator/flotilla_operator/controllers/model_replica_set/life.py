"""The life of a group, read from the pods of all its stages: one file decides the phase.

    Waiting (no pods) → Gated (groups of several pods) → Binding → Loading → Ready ⇄ Draining → gone

A phase is never kept anywhere, it is read anew each time; so nothing can disagree with the cluster. A group
is as far as the member that is furthest behind, and it leaves with the first member that leaves. What ends a
group stands in `endings`; what only troubles one (an image that cannot be pulled, a crash loop of a single
pod) is left to the kubelet's own retries and said in a condition with the container's last words (`trouble`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from flotilla_operator.controllers.conditions import is_true, parsed_timestamp
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.trouble import Trouble, scheduler_message, trouble_of
from flotilla_operator.placement.manifests import FINISHED, pinned_node
from flotilla_operator.workloads.engine_pod import CONTAINER, RELEASE_SECONDS, STOP_SECONDS
from flotilla_operator.workloads.gate import is_gated
from flotilla_runtime import contract

Pod = Mapping[str, Any]


class Phase(StrEnum):
    """Where a group stands in its life, furthest behind first; Draining is beside the others."""

    WAITING = "Waiting"
    GATED = "Gated"
    BINDING = "Binding"
    LOADING = "Loading"
    READY = "Ready"
    DRAINING = "Draining"


NEVER_RAN = frozenset({EventReason.GROUP_RELEASED, EventReason.GROUP_INCOMPLETE})
FURTHEST_BEHIND_FIRST = (Phase.GATED, Phase.BINDING, Phase.LOADING, Phase.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a group must go, and how: by force where nobody is left to stop, and with the drain's deadline
    where the engine still works. `failed_nodes` are those on which its pods were pinned in vain.
    """

    reason: EventReason
    message: str
    by_force: bool = False
    drains: bool = False
    failed_nodes: frozenset[str] = frozenset()

    @property
    def never_ran(self) -> bool:
        """Whether the group is given up before all of its pods were bound, or could ever serve."""
        return self.reason in NEVER_RAN


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """The pod of one stage."""

    stage: int
    pod: Pod

    @property
    def pod_name(self) -> str:
        """Its name."""
        return str(self.pod["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Its UID."""
        return str(self.pod["metadata"]["uid"])

    @property
    def leaves(self) -> bool:
        """Whether it is being deleted already."""
        return "deletionTimestamp" in self.pod["metadata"]

    @property
    def phase(self) -> Phase:
        """How far this pod is."""
        return phase_of(self.pod)

    @property
    def bound_to(self) -> str | None:
        """The node that the scheduler has given it to."""
        return self.pod["spec"].get("nodeName") or None

    @property
    def pin(self) -> str | None:
        """The node that it is pinned to."""
        return pinned_node(self.pod["spec"])

    @property
    def node(self) -> str | None:
        """Where it stands, or is to stand."""
        return self.bound_to or self.pin

    @property
    def not_bound_because(self) -> str:
        """What the scheduler says of it while it has no node."""
        return scheduler_message(self.pod) if self.phase is Phase.BINDING else ""

    @property
    def may_bind_since(self) -> datetime | None:
        """Since when the scheduler may bind it: since its gate was lifted, or it was created without one."""
        lifted = (self.pod["metadata"].get("annotations") or {}).get(contract.ANNOTATION_GATE_LIFTED)
        if lifted:
            return parsed_timestamp(lifted)
        return None if is_gated(self.pod["spec"]) else created_at(self.pod)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """One replica as its pods show it; `members` in the order of their stages, of which there should be
    `stages`.
    """

    name: str
    members: tuple[Member, ...]
    phase: Phase
    revision: str
    server_id: int
    created_at: datetime
    stages: int = 1
    waiting_since: datetime | None = None
    trouble: Trouble | None = None
    ending: Ending | None = None
    in_flight: int | None = None
    sessions: int | None = None
    ready: bool = False
    started: bool = False
    going: bool = False
    drain_epoch: int | None = None
    node_leaves: bool = False
    moved: bool = False
    others_on_nodes: int = 0

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

    @property
    def stop_seconds(self) -> int:
        """What its pods get to end; half a group must not hold accelerators longer than its deadline."""
        return STOP_SECONDS if self.may_have_requests else RELEASE_SECONDS

    @property
    def must_move(self) -> bool:
        """Whether another group is to take its place elsewhere."""
        return self.node_leaves or self.moved

    @property
    def whole(self) -> bool:
        """Whether every stage has its pod."""
        return len(self.members) >= self.stages

    @property
    def pinned(self) -> bool:
        """Whether we chose its nodes."""
        return any(member.pin is not None for member in self.members)

    @property
    def leader(self) -> Member:
        """The pod that answers for the group; of a group that is not whole, the first one left."""
        return self.members[0]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of its stages, in order, as far as they are known."""
        return tuple(member.node for member in self.members if member.node is not None)

    @property
    def staying(self) -> tuple[Member, ...]:
        """The members that nobody has deleted yet."""
        return tuple(member for member in self.members if not member.leaves)

    @property
    def may_bind_since(self) -> datetime | None:
        """Since when the scheduler may bind the last of its pods that it may bind."""
        times = [since for member in self.members if (since := member.may_bind_since) is not None]
        return max(times, default=None)


def group_of(pods: Sequence[Pod]) -> ReplicaGroup:
    """The group that these pods are, not yet judged."""
    members = tuple(sorted((_member(pod) for pod in pods), key=lambda member: (member.stage, member.uid)))
    leader = members[0].pod
    first = leader["metadata"]
    labels, annotations = first.get("labels") or {}, first.get("annotations") or {}
    since = annotations.get(contract.ANNOTATION_WAITING_SINCE)
    stages = int(annotations.get(contract.ANNOTATION_STAGES, "1"))
    return ReplicaGroup(
        name=group_name(leader),
        members=members,
        phase=_phase(members),
        revision=labels.get(contract.LABEL_REVISION, ""),
        server_id=int(annotations.get(contract.ANNOTATION_SERVER_ID, "0")),
        created_at=min(created_at(member.pod) for member in members),
        stages=stages,
        waiting_since=parsed_timestamp(since) if since is not None else None,
        trouble=_worst_trouble(members, stages),
        ready=all(is_true(dict(member.pod), "Ready") for member in members),
        started=engine_started(leader),
        going=any(member.leaves for member in members),
        drain_epoch=drain_epoch_of(leader),
    )


def drain_epoch_of(pod: Pod) -> int | None:
    """The epoch of the drain that this pod is in; 0 where the annotation is not one of ours."""
    text = (pod["metadata"].get("annotations") or {}).get(contract.ANNOTATION_DRAIN_EPOCH)
    return None if text is None else int(text) if text.isdecimal() else 0


def engine_started(pod: Pod) -> bool:
    """Whether the engine has given a first answer since it was last started, ready or not. A sidecar that
    somebody has injected starts long before, and says nothing about it.
    """
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(container["name"] == CONTAINER and container.get("started") for container in containers)


def pods_by_group(pods: Iterable[Pod]) -> Mapping[str, list[Pod]]:
    """The pods of each group."""
    found: dict[str, list[Pod]] = {}
    for pod in pods:
        found.setdefault(group_name(pod), []).append(pod)
    return found


def group_name(pod: Pod) -> str:
    """The group that a pod belongs to."""
    metadata = pod["metadata"]
    return str((metadata.get("labels") or {}).get(contract.LABEL_GROUP, metadata["name"]))


def pod_is_over(pod: Pod) -> bool:
    """Whether a pod gives back what it held, or is about to."""
    return "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") in FINISHED


def phase_of(pod: Pod) -> Phase:
    """How far one pod is, from what the API server holds."""
    if "deletionTimestamp" in pod["metadata"] or drain_epoch_of(pod) is not None:
        return Phase.DRAINING
    if pod["spec"].get("schedulingGates"):
        return Phase.GATED
    if not pod["spec"].get("nodeName"):
        return Phase.BINDING
    return Phase.READY if is_true(dict(pod), "Ready") else Phase.LOADING


def created_at(pod: Pod) -> datetime:
    """When the pod was created."""
    return parsed_timestamp(pod["metadata"]["creationTimestamp"])


def _phase(members: Sequence[Member]) -> Phase:
    phases = {member.phase for member in members}
    if Phase.DRAINING in phases:
        return Phase.DRAINING
    return next(phase for phase in FURTHEST_BEHIND_FIRST if phase in phases)


def _worst_trouble(members: Sequence[Member], stages: int) -> Trouble | None:
    """What should be told of all that troubles the members, and of several which stage it is."""
    troubled = ((member, trouble) for member in members if (trouble := trouble_of(member.pod)) is not None)
    worst = min(troubled, key=lambda found: found[1].rank, default=None)
    if worst is None:
        return None
    member, trouble = worst
    return trouble if stages == 1 else replace(trouble, message=f"stage {member.stage}: {trouble.message}")


def _member(pod: Pod) -> Member:
    labels = pod["metadata"].get("labels") or {}
    return Member(stage=int(labels.get(contract.LABEL_STAGE, "0")), pod=pod)
