"""The life of a group, which is one replica with a pod for each stage.

    Waiting (no pods) → Gated (groups of several pods) → Binding → Loading → Ready ⇄ Draining → gone

A phase is never stored but read from the pods each time, so it cannot disagree with the cluster. A group is
in the phase of its least advanced member, and it leaves with the first member that leaves. `endings` says
what ends a group. Lesser trouble, such as an image that cannot be pulled or a crash loop of a single pod, is
left to the kubelet's retries and reported in a condition with the container's last words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from flotilla_operator.objects.quantities import Amounts
from flotilla_operator.placement import Claim, Toleration
from flotilla_operator.replicas.trouble import Trouble

STOP_SECONDS = 30  # how long an engine may take to end after its drain
RELEASE_SECONDS = 3  # the same for an engine that never served: it has no requests and holds accelerators


class Phase(StrEnum):
    """How far a group is in its life, least advanced first. Draining stands apart from this order."""

    WAITING = "Waiting"
    GATED = "Gated"
    BINDING = "Binding"
    LOADING = "Loading"
    READY = "Ready"
    DRAINING = "Draining"


class EndingReason(StrEnum):
    """Why a group ends. The events about it have these reasons."""

    RELEASED = "GroupReleased"
    LOST = "GroupLost"
    EVICTED = "GroupEvicted"
    FAILED = "GroupFailed"
    INCOMPLETE = "GroupIncomplete"


NEVER_RAN = frozenset({EndingReason.RELEASED, EndingReason.INCOMPLETE})
FURTHEST_BEHIND_FIRST = (Phase.GATED, Phase.BINDING, Phase.LOADING, Phase.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a group must end, and how.

    With `by_force` its pods are deleted at once, because nobody is left to stop them. With `drains` it gets
    the drain's deadline, because the engine still works. `failed_nodes` are the nodes to which its pods were
    pinned in vain.
    """

    reason: EndingReason
    message: str
    by_force: bool = False
    drains: bool = False
    failed_nodes: frozenset[str] = frozenset()

    @property
    def never_ran(self) -> bool:
        """Whether the group is given up before all of its pods were bound or could serve."""
        return self.reason in NEVER_RAN


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeen:
    """The engine's container: whether it has given a first answer since its last start, and how it ended.

    `runs_since` is None unless it runs. `end` says how it ended, and `ended_at` sorts the ends by time.
    """

    started: bool = False
    runs_since: datetime | None = None
    end: str | None = None
    ended_at: str = ""

    @property
    def loads_since(self) -> datetime | None:
        """Since when it has run without a first answer."""
        return None if self.started else self.runs_since


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """The pod of one stage, as far as decisions need it (workloads/group_pods.py reads it).

    `stages` is how many pods its group should have. `bound_to` is the node that the scheduler chose, and
    `pin` the one that the operator chose before. `asks` is what it asks of its node, devices included.
    `finished` says how the pod has ended. `setup_waits_since` is set while volumes or network are not ready.
    `may_bind_since` is None while the scheduler may not bind it. `lacks_resources` says that the scheduler
    found too little of something that becomes free again. `version` is the pod's resource version.
    `unseen` says that nobody knows whether the pod exists, because its creation was not answered.
    """

    name: str
    uid: str
    group: str
    revision: str
    phase: Phase
    created_at: datetime
    stage: int = 0
    stages: int = 1
    server_id: int = 0
    waiting_since: datetime | None = None
    drain_epoch: int | None = None
    ready: bool = False
    ready_since: datetime | None = None
    leaves: bool = False
    evicted: bool = False
    gated: bool = False
    bound_to: str | None = None
    pin: str | None = None
    may_bind_since: datetime | None = None
    scheduler_says: str = ""
    lacks_resources: bool = False
    finished: str | None = None
    restarted: bool = False
    setup_waits_since: datetime | None = None
    engine: EngineSeen = EngineSeen()
    asks: Amounts = field(default_factory=dict)
    devices: Amounts = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    trouble: Trouble | None = None
    version: str | None = None
    unseen: bool = False

    @property
    def node(self) -> str | None:
        """The node that it is bound or pinned to."""
        return self.bound_to or self.pin

    @property
    def claim(self) -> Claim | None:
        """Claim on its node, without devices; None when it has no node or has ended."""
        if self.node is None or self.finished is not None:
            return None
        held = {name: amount for name, amount in self.asks.items() if name not in self.devices}
        return Claim(node=self.node, requests=held)

    @property
    def not_bound_because(self) -> str:
        """Message of the scheduler while the pod has no node."""
        return self.scheduler_says if self.phase is Phase.BINDING else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupIdentity:
    """Identity of a group that starts.

    `nodes` has one node for each stage; it is empty where the scheduler chooses. `waiting_since` keeps the
    group's age in the queue, in case it is released and must wait again.
    """

    name: str
    server_id: int
    revision: str
    nodes: tuple[str, ...] = ()
    waiting_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """One replica as its pods show it.

    `members` are in the order of their stages; `stages` is how many there should be. `shares_id` says that
    routers give its server id to another group. `used` says that a router sends it requests, or has requests
    of it. `drained_for` is how long it has drained by a clock that does
    not jump; None where only the wall clock tells.
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
    drained_for: timedelta | None = None
    node_leaves: bool = False
    moved: bool = False
    shares_id: bool = False
    used: bool = False
    others_on_nodes: int = 0

    @property
    def in_doubt(self) -> bool:
        """Whether the creation of one of its pods was not answered, and the pod has not been seen since."""
        return any(member.unseen for member in self.members)

    @property
    def lives(self) -> bool:
        """Whether it counts as a replica: it neither drains nor has an ending."""
        return self.phase is not Phase.DRAINING and self.ending is None

    @property
    def may_return(self) -> bool:
        """Whether it drains and could still go back to serving: none of its pods is deleted yet."""
        return self.drain_epoch is not None and not self.going and self.ending is None

    @property
    def may_have_requests(self) -> bool:
        """Whether routers may have sent it requests, so that it must drain before it is deleted."""
        return self.ready or self.started

    @property
    def goes_at_once(self) -> bool:
        """Whether it may be deleted without a drain: it exists, and nobody knows of a request."""
        return not (self.may_have_requests or self.used or self.in_doubt)

    @property
    def stop_seconds(self) -> int:
        """The grace period of its pods. One that never served ends quickly, to free its accelerators."""
        return STOP_SECONDS if self.may_have_requests else RELEASE_SECONDS

    @property
    def must_move(self) -> bool:
        """Whether another group must replace it."""
        return self.node_leaves or self.moved or self.shares_id

    @property
    def whole(self) -> bool:
        """Whether every stage has its pod."""
        return len(self.members) >= self.stages

    @property
    def bound(self) -> bool:
        """Whether every stage has its node."""
        return self.whole and all(member.bound_to is not None for member in self.members)

    @property
    def pinned(self) -> bool:
        """Whether the operator chose its nodes."""
        return any(member.pin is not None for member in self.members)

    @property
    def leader(self) -> Member:
        """The pod that answers for the group: stage 0, or the first one left of an incomplete group."""
        return self.members[0]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The known nodes of its stages, in order."""
        return tuple(member.node for member in self.members if member.node is not None)

    @property
    def staying(self) -> tuple[Member, ...]:
        """The members that nobody has deleted yet."""
        return tuple(member for member in self.members if not member.leaves)

    @property
    def may_bind_since(self) -> datetime | None:
        """When the scheduler was allowed to bind the last of its pods; None while it may bind none."""
        times = [since for member in self.members if (since := member.may_bind_since) is not None]
        return max(times, default=None)


def groups_of(members: Iterable[Member]) -> tuple[ReplicaGroup, ...]:
    """The groups that these pods form, in the order of their first pods, before they are judged."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.group, []).append(member)
    return tuple(group_of(of_group) for of_group in found.values())


def group_of(members: Sequence[Member]) -> ReplicaGroup:
    """The group that these pods form, before it is judged."""
    members = tuple(sorted(members, key=lambda member: (member.stage, member.uid)))
    leader = members[0]
    return ReplicaGroup(
        name=leader.group,
        members=members,
        phase=_phase(members),
        revision=leader.revision,
        server_id=leader.server_id,
        created_at=min(member.created_at for member in members),
        stages=leader.stages,
        waiting_since=leader.waiting_since,
        trouble=_worst_trouble(members, leader.stages),
        ready=all(member.ready for member in members),
        started=leader.engine.started,
        going=any(member.leaves for member in members),
        drain_epoch=leader.drain_epoch,
    )


def _phase(members: Sequence[Member]) -> Phase:
    phases = {member.phase for member in members}
    if Phase.DRAINING in phases:
        return Phase.DRAINING
    return next(phase for phase in FURTHEST_BEHIND_FIRST if phase in phases)


def _worst_trouble(members: Sequence[Member], stages: int) -> Trouble | None:
    """The most important trouble of the members, with the stage's number if there are several stages."""
    troubled = ((member, member.trouble) for member in members if member.trouble is not None)
    worst = min(troubled, key=lambda found: found[1].rank, default=None)
    if worst is None:
        return None
    member, trouble = worst
    return trouble if stages == 1 else replace(trouble, message=f"stage {member.stage}: {trouble.message}")
