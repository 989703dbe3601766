"""How a group leaves: it drains, and is deleted when it is proved idle or its deadline has passed.

A drain begins with an epoch in an annotation on the pod of the group's leader. The epoch is the time in
milliseconds: it tells when the deadline is, and no two drains of a group have the same. Every router takes
the group's server out of rotation and acknowledges the epoch. The proof that a group is idle has three parts:
every existing router has acknowledged this epoch (one that does not answer has not), no router has a request
in flight or queued for the group, and at least one router has found the engine idle in two looks. An
acknowledgement stays true, since a router sends nothing new after it, so answers from different moments can
be combined. Until a pod is deleted, the annotation can be removed, and the group serves again.

A group that never served is deleted at once, unless a router already sends it requests, as its pod may have
become ready a moment ago.

All of this is read from pods and routers each time, so a restarted operator goes on with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_runtime.contract import RouterServer, RouterStatus

LOOKS_FOR_PROOF = 2


class DrainStep(StrEnum):
    """Next step of a group that leaves."""

    BEGIN = "Begin"
    WAIT = "Wait"
    DELETE = "Delete"


class Because(StrEnum):
    """Reason for the step."""

    IN_DOUBT = "InDoubt"
    NEVER_SERVED = "NeverServed"
    NOT_DRAINING_YET = "NotDrainingYet"
    NOT_ACKNOWLEDGED = "NotAcknowledged"
    IN_FLIGHT = "InFlight"
    ENGINE_NOT_IDLE = "EngineNotIdle"
    IDLE = "Idle"
    DEADLINE_PASSED = "DeadlinePassed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """The next step for one group, with the figures that decided; `seconds_left` until the deadline."""

    step: DrainStep
    because: Because
    routers: int = 0
    acknowledged: int = 0
    in_flight: int = 0
    seconds_left: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSeen:
    """A router pod that can have requests in flight; `status` is None while it does not answer."""

    name: str
    status: RouterStatus | None = None

    def server(self, group: str) -> RouterServer | None:
        """Return the router's figures of a group; None when it does not list the group."""
        servers = () if self.status is None else self.status.servers
        return next((server for server in servers if server.name == group), None)


def epoch_of(now: datetime) -> int:
    """The epoch of a drain that begins now."""
    return int(now.timestamp() * 1000)


def began_at(epoch: int) -> datetime:
    """When the drain of this epoch began."""
    return datetime.fromtimestamp(epoch / 1000, UTC)


def next_step(
    group: ReplicaGroup, routers: Sequence[RouterSeen], *, deadline: timedelta, now: datetime
) -> Drained:
    """Decide the next step of a group that leaves."""
    if group.in_doubt:
        return Drained(step=DrainStep.WAIT, because=Because.IN_DOUBT)
    if group.goes_at_once:
        return Drained(step=DrainStep.DELETE, because=Because.NEVER_SERVED)
    if not group.drain_epoch:
        return Drained(step=DrainStep.BEGIN, because=Because.NOT_DRAINING_YET)
    servers = [router.server(group.name) for router in routers]
    told = [server for server in servers if server and server.acknowledged_drain_epoch == group.drain_epoch]
    in_flight = sum(server.in_flight + server.queued for server in told)
    lasted = now - began_at(group.drain_epoch) if group.drained_for is None else group.drained_for
    left = deadline - lasted
    idle_looks = max((server.idle_looks for server in told), default=0)
    if left <= timedelta(0):
        step, because = DrainStep.DELETE, Because.DEADLINE_PASSED
    elif len(told) < len(routers):
        step, because = DrainStep.WAIT, Because.NOT_ACKNOWLEDGED
    elif in_flight:
        step, because = DrainStep.WAIT, Because.IN_FLIGHT
    elif idle_looks < LOOKS_FOR_PROOF:
        step, because = DrainStep.WAIT, Because.ENGINE_NOT_IDLE
    else:
        step, because = DrainStep.DELETE, Because.IDLE
    return Drained(
        step=step,
        because=because,
        routers=len(routers),
        acknowledged=len(told),
        in_flight=in_flight,
        seconds_left=max(0.0, left.total_seconds()),
    )
