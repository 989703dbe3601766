"""Why a group does not fit, counted when the plan is done: every node under the first reason against it."""

from flotilla_operator.placement.checks import Shape, insufficient
from flotilla_operator.placement.choice import spread_allows
from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.ledger import Asked, Ledger
from flotilla_operator.placement.outcome import Refusal, RefusalReason
from flotilla_operator.placement.scopes import bounds


class Refuser:
    """Says why not; groups that ask alike get the same answer, unless nodes are kept for them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._keepers = {(group.owner, group.name) for group in ledger.kept_for.values()}
        self._known: dict[Asked, Refusal] = {}

    def refuse(self, group: Group) -> Refusal:
        """The refusal of a group."""
        if (group.owner, group.name) in self._keepers:
            return self._counted(group)
        asked = Asked.by(group)
        if (known := self._known.get(asked)) is None:
            known = self._known[asked] = self._counted(group)
        return Refusal(
            group=group,
            nodes_total=known.nodes_total,
            counts=known.counts,
            fits_when_empty=known.fits_when_empty,
            stages_with_room=known.stages_with_room,
            stages_in_one_domain=known.stages_in_one_domain,
        )

    def _counted(self, group: Group) -> Refusal:
        ledger = self._ledger
        allowed = spread_allows(ledger, group)
        counts: dict[RefusalReason, int] = {}
        rooms: dict[int, int] = {}
        for position, of_node in enumerate(ledger.reasons(Shape.of(group))):
            reason = of_node or insufficient(ledger.loads, position, group)
            if reason is None and ledger.kept_for.get(position, group) is not group:
                reason = RefusalReason.KEPT_FOR_OLDER_GROUP
            if reason is None and allowed is not None and position not in allowed:
                reason = RefusalReason.SPREAD_EXCEEDED
            if reason is None:
                rooms[position] = ledger.loads.room(position, group.requests)
            else:
                counts[reason] = counts.get(reason, 0) + 1
        with_room = sum(rooms.values())
        if rooms:
            whole = RefusalReason.NO_DOMAIN_WITH_ROOM
            short = RefusalReason.TOO_FEW_FOR_ALL_STAGES
            counts[whole if with_room >= group.stages else short] = len(rooms)
        domains = ledger.topology.partition(*bounds(group, ledger.policy)).members.values()
        return Refusal(
            group=group,
            nodes_total=len(ledger.topology.nodes),
            counts=counts,
            fits_when_empty=ledger.fits_when_empty(group),
            stages_with_room=with_room,
            stages_in_one_domain=max((ledger.rooms_in(m, rooms) for m in domains), default=0),
        )
