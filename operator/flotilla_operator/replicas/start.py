"""Decides which of the waiting groups get their pods now."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.replicas.outlook import Outlook


class StartReason(StrEnum):
    """Why groups start or do not."""

    NONE_WAITS = "NoneWaits"
    SOMETHING_IS_MISSING = "SomethingIsMissing"
    BACKS_OFF = "BacksOff"
    NO_ROOM = "NoRoom"
    ROOM_FOR_SOME = "RoomForSome"
    ALL_START = "AllStart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The groups that start now, and why not more do."""

    reason: StartReason
    groups: tuple[GroupIdentity, ...] = ()


def start(outlook: Outlook, now: datetime) -> Start:
    """The groups that have room, unless something holds all of them back."""
    demand = outlook.demand
    if not demand.waiting:
        return Start(reason=StartReason.NONE_WAITS)
    if outlook.lacks:
        return Start(reason=StartReason.SOMETHING_IS_MISSING)
    if demand.backoff is not None and demand.backoff.holds(now):
        return Start(reason=StartReason.BACKS_OFF)
    groups = _with_room(outlook)
    if not groups:
        return Start(reason=StartReason.NO_ROOM)
    all_start = len(groups) == len(demand.waiting)
    return Start(reason=StartReason.ALL_START if all_start else StartReason.ROOM_FOR_SOME, groups=groups)


def _with_room(outlook: Outlook) -> tuple[GroupIdentity, ...]:
    """The waiting groups that were bound; without an accelerator the scheduler binds all of them."""
    me, demand, placement = outlook.me, outlook.demand, outlook.placement
    used_ids = {group.server_id for group in demand.groups}
    started: list[GroupIdentity] = []
    for waiting in demand.waiting:
        nodes: tuple[str, ...] = ()
        if me.asks is not None:
            binding = placement.binding_of(me.full_name, waiting.name) if placement else None
            if binding is None:
                continue
            nodes = binding.nodes
        server_id = _smallest_free(used_ids)
        used_ids.add(server_id)
        started.append(
            GroupIdentity(
                name=waiting.name,
                server_id=server_id,
                revision=demand.revision,
                nodes=nodes,
                waiting_since=waiting.since,
            )
        )
    return tuple(started)


def _smallest_free(used: set[int]) -> int:
    """The smallest free server id. Routers hash on ids, so a replacement gets the keys of the lost group."""
    return next(candidate for candidate in range(1, len(used) + 2) if candidate not in used)
