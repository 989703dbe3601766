"""Decides which group goes where: a pure function of the cluster, the waiting groups and the policy.

Groups are served by priority, then by age. Groups that arrive within one minute are served largest first,
because small groups find room beside a large one, but a large one not beside small ones. A younger group may
pass one that does not fit, until the older one has waited `aging_seconds`. From then on nodes are reserved
for all stages of the older group, so that a stream of small groups cannot starve it. A group is never held
back by an older one of lower priority. Nothing that runs is preempted, and no group is placed in part. Every
choice follows a total order, so the order of the input does not matter.
"""

from collections.abc import Sequence

from flotilla_operator.placement.choice import choose
from flotilla_operator.placement.groups import Group, Policy, Snapshot
from flotilla_operator.placement.keep import keep_nodes
from flotilla_operator.placement.kinds import Kind
from flotilla_operator.placement.ledger import Ledger
from flotilla_operator.placement.outcome import Binding, PlacementPlan
from flotilla_operator.placement.refuse import Refuser
from flotilla_operator.placement.repair import Repair
from flotilla_operator.placement.score import Scorer

SAME_AGE_SECONDS = 60  # groups that arrive within one minute count as one arrival

Alike = tuple[Kind, str | None]


def place(snapshot: Snapshot, waiting: Sequence[Group], policy: Policy, now_seconds: float) -> PlacementPlan:
    """Bind every group that fits as a whole, and say for every other one why it does not fit."""
    ledger = Ledger(snapshot, policy)
    repair = Repair(ledger)
    refused: list[Group] = []
    hopeless: set[Alike] = set()
    unkept: set[Kind] = set()
    for group in sorted(waiting, key=turn):
        alike = _alike(ledger, group)
        if alike not in hopeless:
            if (positions := choose(ledger, group)) is not None:
                ledger.take(group, positions)
                continue
            if repair.make_room(group) is not None:
                continue
        refused.append(group)
        hopeless.add(alike)
        aged = now_seconds - group.waiting_since_seconds >= policy.aging_seconds
        if aged and ledger.kind(group) not in unkept and not keep_nodes(ledger, group):
            unkept.add(ledger.kind(group))
    refused = _served_again(ledger, refused)
    refuser = Refuser(ledger)
    bound = sorted(ledger.bound(), key=lambda entry: turn(entry[0]))
    return PlacementPlan(
        bindings=tuple(_binding(ledger, group, positions) for group, positions in bound),
        refusals=tuple(refuser.refuse(group) for group in refused),
    )


def _served_again(ledger: Ledger, refused: list[Group]) -> list[Group]:
    """Try the refused groups again until none fits.

    Groups that were moved, or that went where another must be spread to, may have made room.
    """
    while True:
        hopeless: set[Alike] = set()
        still: list[Group] = []
        for group in refused:
            alike = _alike(ledger, group)
            if alike not in hopeless and (positions := choose(ledger, group)) is not None:
                ledger.take(group, positions)
                continue
            hopeless.add(alike)
            still.append(group)
        if len(still) == len(refused):
            return still
        refused = still


def _alike(ledger: Ledger, group: Group) -> Alike:
    """When one group does not fit, neither do those that are alike.

    They are of one kind and, where replicas must be spread, of one owner.
    """
    return ledger.kind(group), group.owner if group.must_spread else None


def turn(group: Group) -> tuple[int, int, int, float, str, str]:
    """The sort key of the queue: priority, minute of arrival, size, time of arrival, name."""
    minute = int(group.waiting_since_seconds // SAME_AGE_SECONDS)
    since = group.waiting_since_seconds
    return (-group.priority, minute, -group.accelerators, since, group.owner, group.name)


def _binding(ledger: Ledger, group: Group, positions: tuple[int, ...]) -> Binding:
    scorer = Scorer(ledger.topology, ledger.loads, ledger.policy)
    return Binding(
        group=group,
        nodes=tuple(ledger.topology.nodes[position].name for position in positions),
        domain=scorer.domain(positions),
        score=scorer.of([positions], group.accelerator),
    )
