"""The result of placement: bindings, and refusals counted by reason. Both explain themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from flotilla_operator.placement.groups import Group, Policy, Snapshot
from flotilla_operator.placement.loads import Loads
from flotilla_operator.placement.score import Domain, Score
from flotilla_operator.placement.topology import Taint


class RefusalReason(StrEnum):
    """Why a node cannot take a group; each node counts under the first that applies, in this order.

    The last three mean that the node has room for a stage, but the group as a whole does not fit.
    """

    NODE_NOT_READY = "NodeNotReady"
    CORDONED = "Cordoned"
    SELECTOR_MISMATCH = "SelectorMismatch"
    TAINT_NOT_TOLERATED = "TaintNotTolerated"
    PRODUCT_MISMATCH = "ProductMismatch"
    TOPOLOGY_LABEL_MISSING = "TopologyLabelMissing"
    BIND_TIMED_OUT = "BindTimedOut"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    KEPT_FOR_OLDER_GROUP = "KeptForOlderGroup"
    SPREAD_EXCEEDED = "SpreadExceeded"
    NO_DOMAIN_WITH_ROOM = "NoDomainWithRoom"
    TOO_FEW_FOR_ALL_STAGES = "TooFewForAllStages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A group, the node of each stage in order, the narrowest domain that holds them all, and the score."""

    group: Group
    nodes: tuple[str, ...]
    domain: Domain | None
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A group that does not fit now: the nodes counted by reason, and whether it would fit if nothing ran.

    `stages_with_room` counts the stages that would find room one by one; it may be more than the group has.
    `stages_in_one_domain` counts those that would find it in the best domain, if the group must stay in one.
    `taints` counts, of the nodes with the reason TaintNotTolerated that could take a stage otherwise, those
    with each taint that keeps the group away.
    """

    group: Group
    nodes_total: int
    counts: Mapping[RefusalReason, int]
    fits_when_empty: bool
    stages_with_room: int = 0
    stages_in_one_domain: int = 0
    taints: Mapping[Taint, int] = field(default_factory=dict)

    @property
    def frequent_taint(self) -> Taint | None:
        """The taint that keeps the group from most nodes."""
        return min(self.taints, key=lambda taint: (-self.taints[taint], str(taint)), default=None)

    @property
    def message(self) -> str:
        """One sentence, the most frequent reason first."""
        if not self.nodes_total:
            return "0/0 nodes fit: the cluster has no nodes"
        counted = ", ".join(f"{nodes} {reason}" for reason, nodes in self.by_count)
        return f"0/{self.nodes_total} nodes fit: {counted}{self._of_stages}"

    @property
    def by_count(self) -> list[tuple[RefusalReason, int]]:
        """The counts, largest first, equal ones by name."""
        return sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))

    @property
    def _of_stages(self) -> str:
        if self.group.stages == 1:
            return ""
        with_room = min(self.stages_with_room, self.group.stages)
        room = f"; there is room for {with_room} of {self.group.stages} stages"
        if RefusalReason.NO_DOMAIN_WITH_ROOM not in self.counts:
            return room
        return f"{room}, but only for {self.stages_in_one_domain} within one {self.group.pack_within}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPlan:
    """The outcome for every waiting group: either all of its stages are bound, or it is refused."""

    bindings: tuple[Binding, ...]
    refusals: tuple[Refusal, ...]

    def binding_of(self, owner: str, name: str) -> Binding | None:
        """Where a group goes."""
        return next((b for b in self.bindings if (b.group.owner, b.group.name) == (owner, name)), None)

    def refusal_of(self, owner: str, name: str) -> Refusal | None:
        """Why a group does not fit."""
        return next((r for r in self.refusals if (r.group.owner, r.group.name) == (owner, name)), None)

    def check(self, snapshot: Snapshot, waiting: Sequence[Group], policy: Policy) -> None:
        """Assert what must hold of every plan."""
        outcomes: list[Binding | Refusal] = [*self.bindings, *self.refusals]
        decided = sorted((outcome.group.owner, outcome.group.name) for outcome in outcomes)
        assert decided == sorted((group.owner, group.name) for group in waiting), "a group is lost or doubled"
        loads = Loads(snapshot)
        for binding in self.bindings:
            _check_whole(binding, snapshot, policy)
            for node in binding.nodes:
                position = snapshot.topology.positions[node]
                assert loads.holds(position, binding.group.requests), f"{node} is given away twice"
                loads.take(position, binding.group.requests)
        for refusal in self.refusals:
            assert sum(refusal.counts.values()) == refusal.nodes_total, (
                "a node is counted twice or not at all"
            )


def _check_whole(binding: Binding, snapshot: Snapshot, policy: Policy) -> None:
    group, topology = binding.group, snapshot.topology
    assert len(binding.nodes) == group.stages, f"{group.name} is placed in part"
    if group.must_pack and group.pack_within is not None:
        path = policy.path(group.pack_within)
        domains = {topology.nodes[topology.positions[node]].domain(path) for node in binding.nodes}
        assert len(domains) == 1, f"{group.name} lies in several domains of {group.pack_within}"
        assert None not in domains, f"{group.name} lies outside all domains of {group.pack_within}"
