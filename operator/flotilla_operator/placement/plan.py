"""Which group goes where: a pure function of the cluster, the waiting groups and the policy.

Groups are served by priority, then age. A younger group may pass one that does not fit, until that one has
waited for `aging_seconds`; from then on the node closest to having room is kept for it, so a stream of small
groups cannot starve a large one. A group of higher priority is never held back by an older one of lower
priority. Among the nodes that fit, the one with the least left over is taken: whole nodes stay whole for
larger groups. Nothing is preempted. Every choice has a total order, so the order of the input changes
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flotilla_operator.placement.checks import (
    LASTING_CHECKS,
    NODE_CHECKS,
    Shape,
    could_hold,
    first_reason,
    insufficient,
)
from flotilla_operator.placement.groups import Group, Loads, Policy, Snapshot
from flotilla_operator.placement.outcome import Binding, Placement, Refusal, RefusalReason
from flotilla_operator.placement.topology import Topology

Counts = dict[RefusalReason, int]
Asked = tuple[Shape, str, tuple[tuple[str, int], ...]]


def place(snapshot: Snapshot, waiting: Sequence[Group], policy: Policy, now_seconds: float) -> Placement:
    """Bind every group that fits, whole; say of every other why it does not."""
    ledger = Ledger(snapshot, policy)
    bindings: list[Binding] = []
    refusals: list[Refusal] = []
    for group in sorted(waiting, key=_turn):
        sifted = ledger.sift(group)
        if sifted.candidates:
            bindings.append(ledger.bind(group, sifted.candidates))
            continue
        refusals.append(ledger.refuse(group, sifted.counts))
        if now_seconds - group.waiting_since_seconds >= policy.aging_seconds:
            ledger.keep_a_node(group)
    return Placement(bindings=tuple(bindings), refusals=tuple(refusals))


def _turn(group: Group) -> tuple[int, float, str, str]:
    return (-group.priority, group.waiting_since_seconds, group.owner, group.name)


@dataclass(frozen=True, slots=True)
class Sifted:
    """The positions of the nodes that fit, and the others counted by the first reason against each."""

    candidates: list[int]
    counts: Counts


class Ledger:
    """What one plan has given away and keeps so far, and what it has found out about nodes.

    What was found out is an answer to a question that many groups ask alike: the checks of a shape hold for
    the whole plan, and a refusal until something is given away or kept.
    """

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self._topology: Topology = snapshot.topology
        self._loads = Loads(snapshot)
        self._policy = policy
        self._kept: set[int] = set()
        self._by_shape: dict[Shape, list[RefusalReason | None]] = {}
        self._refused: dict[Asked, Sifted] = {}
        self._ever: dict[Asked, bool] = {}

    def sift(self, group: Group) -> Sifted:
        """Which nodes fit now."""
        asked = _asked(group)
        if (known := self._refused.get(asked)) is not None:
            return known
        candidates: list[int] = []
        counts: Counts = {}
        for position, of_node in enumerate(self._node_reasons(asked[0])):
            reason = of_node or insufficient(self._loads, position, group)
            if reason is None and position in self._kept:
                reason = RefusalReason.KEPT_FOR_OLDER_GROUP
            if reason is None:
                candidates.append(position)
            else:
                counts[reason] = counts.get(reason, 0) + 1
        sifted = Sifted(candidates, counts)
        if not candidates:
            self._refused[asked] = sifted
        return sifted

    def bind(self, group: Group, candidates: Sequence[int]) -> Binding:
        """Take the node with the least left over."""
        position = min(candidates, key=lambda p: (self._loads.free(p, group.accelerator), p))
        self._loads.take(position, group.requests)
        self._refused.clear()
        return Binding(group=group, nodes=(self._topology.nodes[position].name,))

    def refuse(self, group: Group, counts: Counts) -> Refusal:
        """Say why not, and whether it could ever be."""
        return Refusal(
            group=group,
            nodes_total=len(self._topology.nodes),
            counts=counts,
            fits_when_empty=self._fits_when_empty(group),
        )

    def keep_a_node(self, group: Group) -> None:
        """Keep the node that lacks the least, of those that would fit if nothing ran on them."""
        able = [
            position
            for position, reason in enumerate(self._node_reasons(Shape.of(group)))
            if reason is None
            and position not in self._kept
            and could_hold(self._topology.nodes[position], group.requests)
        ]
        if able:
            self._kept.add(min(able, key=lambda p: (-self._loads.free(p, group.accelerator), p)))
            self._refused.clear()

    def _node_reasons(self, shape: Shape) -> list[RefusalReason | None]:
        if (known := self._by_shape.get(shape)) is None:
            known = self._by_shape[shape] = [
                first_reason(NODE_CHECKS, node, shape, self._policy) for node in self._topology.nodes
            ]
        return known

    def _fits_when_empty(self, group: Group) -> bool:
        asked = _asked(group)
        if (known := self._ever.get(asked)) is None:
            known = self._ever[asked] = any(
                could_hold(node, group.requests)
                and first_reason(LASTING_CHECKS, node, asked[0], self._policy) is None
                for node in self._topology.nodes
            )
        return known


def _asked(group: Group) -> Asked:
    return Shape.of(group), group.accelerator, tuple(sorted(group.requests.items()))
