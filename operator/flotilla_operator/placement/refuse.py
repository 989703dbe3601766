"""Counts, when the plan is done, why a group does not fit: every node under the first reason against it."""

from collections import Counter
from dataclasses import replace

from flotilla_operator.placement.checks import insufficient, only_taints
from flotilla_operator.placement.choice import spread_allows
from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.kinds import Kind, Reasons, rooms_in
from flotilla_operator.placement.ledger import Ledger
from flotilla_operator.placement.outcome import Refusal, RefusalReason
from flotilla_operator.placement.topology import Taint

Explained = tuple[Kind, frozenset[int] | None]


class Refuser:
    """Builds refusals.

    Groups of one kind that may go to the same nodes share one explanation, whoever owns them, unless nodes
    are reserved for one of them.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._keepers = ledger.keepers()
        self._reasons: dict[Kind, Reasons] = {}
        self._known: dict[Explained, Refusal] = {}

    def refuse(self, group: Group) -> Refusal:
        """The refusal of a group."""
        allowed = spread_allows(self._ledger, group)
        if (group.owner, group.name) in self._keepers:
            return self._counted(group, allowed)
        explained = self._ledger.kind(group), allowed
        if (known := self._known.get(explained)) is None:
            known = self._known[explained] = self._counted(group, allowed)
        return replace(known, group=group)

    def _counted(self, group: Group, allowed: frozenset[int] | None) -> Refusal:
        ledger, kind = self._ledger, self._ledger.kind(group)
        counts: dict[RefusalReason, int] = {}
        rooms: dict[int, int] = {}
        for position, of_node in enumerate(self._of_nodes(group, kind)):
            reason = of_node
            if reason is None and ledger.kept_from(group, position):
                reason = RefusalReason.KEPT_FOR_OLDER_GROUP
            if reason is None and allowed is not None and position not in allowed:
                reason = RefusalReason.SPREAD_EXCEEDED
            if reason is None:
                rooms[position] = ledger.loads.room(position, group.requests)
            else:
                counts[reason] = counts.get(reason, 0) + 1
        with_room = sum(rooms.values())
        if rooms:
            enough = with_room >= group.stages
            whole = RefusalReason.NO_DOMAIN_WITH_ROOM if enough else RefusalReason.TOO_FEW_FOR_ALL_STAGES
            counts[whole] = len(rooms)
        return Refusal(
            group=group,
            nodes_total=len(ledger.topology.nodes),
            counts=counts,
            fits_when_empty=kind.fits_when_empty,
            stages_with_room=with_room,
            stages_in_one_domain=max((rooms_in(m, rooms) for m in kind.domains.values()), default=0),
            taints=self._taints(group, kind) if RefusalReason.TAINT_NOT_TOLERATED in counts else {},
        )

    def _taints(self, group: Group, kind: Kind) -> Counter[Taint]:
        """How many nodes each taint keeps from the group that could take a stage of it otherwise."""
        nodes, policy = self._ledger.topology.nodes, self._ledger.policy
        tainted = (
            node
            for node, reason in zip(nodes, kind.reasons, strict=True)
            if reason is RefusalReason.TAINT_NOT_TOLERATED
        )
        constraints = kind.needs.constraints
        return Counter(
            taint for node in tainted for taint in only_taints(node, constraints, group.requests, policy)
        )

    def _of_nodes(self, group: Group, kind: Kind) -> Reasons:
        """The reason against each node, without regard to reservations."""
        if (known := self._reasons.get(kind)) is None:
            loads = self._ledger.loads
            known = self._reasons[kind] = tuple(
                of_node or insufficient(loads, position, group)
                for position, of_node in enumerate(kind.reasons)
            )
        return known
