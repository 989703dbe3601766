"""The next step of every group that leaves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.leaving.draining import Drained, DrainStep, RouterSeen, next_step
from flotilla_operator.replicas.leaving.turnover import Removal, Turnover

LOOK_AGAIN_DRAINING_SECONDS = 1.0  # as often as the routers are asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A group that leaves, and its next step."""

    removal: Removal
    drained: Drained

    @property
    def group(self) -> ReplicaGroup:
        return self.removal.group


def departures(
    turnover: Turnover, routers: Sequence[RouterSeen], deadline: timedelta, now: datetime
) -> tuple[Departure, ...]:
    """The next step of every group that leaves."""
    return tuple(
        Departure(
            removal=removal,
            drained=next_step(removal.group, routers, deadline=deadline, now=now),
        )
        for removal in turnover.removals
    )


def look_again_leaving(departures: Sequence[Departure]) -> float:
    """When to look again; never while nothing drains."""
    waits = any(one.drained.step is not DrainStep.DELETE for one in departures)
    return LOOK_AGAIN_DRAINING_SECONDS if waits else math.inf
