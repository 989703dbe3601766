"""Which group goes where: a pure function of the cluster, the waiting groups and the policy.

Groups are served by priority, then age, those of one minute the largest first, since the small ones find
room beside it and not the other way round. A younger group may pass one that does not fit, until that one has
waited for `aging_seconds`; from then on the nodes closest to having room for the whole of it are kept for it,
so a stream of small groups cannot starve a large one. A group of higher priority is never held back by an
older one of lower priority. Nothing is preempted, and no group is placed in part. Every choice has a total
order, so the order of the input changes nothing.
"""

from collections.abc import Sequence

from flotilla_operator.placement.choice import choose
from flotilla_operator.placement.groups import Group, Policy, Snapshot
from flotilla_operator.placement.keep import keep_nodes
from flotilla_operator.placement.ledger import Kind, Ledger
from flotilla_operator.placement.outcome import Binding, Placement
from flotilla_operator.placement.refuse import Refuser
from flotilla_operator.placement.repair import Repair
from flotilla_operator.placement.score import Scorer

SAME_AGE_SECONDS = 60  # what came so close together is taken as one arrival


def place(snapshot: Snapshot, waiting: Sequence[Group], policy: Policy, now_seconds: float) -> Placement:
    """Bind every group that fits, whole; say of every other why it does not."""
    ledger = Ledger(snapshot, policy)
    repair = Repair(ledger)
    refused: list[Group] = []
    hopeless: set[Kind] = set()
    unkept: set[Kind] = set()
    for group in sorted(waiting, key=turn):
        kind = ledger.kind(group)
        if kind not in hopeless:
            if (positions := choose(ledger, group)) is not None:
                ledger.take(group, positions)
                continue
            if repair.make_room(group) is not None:
                continue
        refused.append(group)
        hopeless.add(kind)
        aged = now_seconds - group.waiting_since_seconds >= policy.aging_seconds
        if aged and kind not in unkept and not keep_nodes(ledger, group):
            unkept.add(kind)
    refused = _served_again(ledger, refused)
    refuser = Refuser(ledger)
    bound = sorted(ledger.bound.values(), key=lambda entry: turn(entry[0]))
    return Placement(
        bindings=tuple(_binding(ledger, group, positions) for group, positions in bound),
        refusals=tuple(refuser.refuse(group) for group in refused),
    )


def _served_again(ledger: Ledger, refused: list[Group]) -> list[Group]:
    """What is still refused, now that others have moved, or have gone where a group must be spread to."""
    while True:
        hopeless: set[Kind] = set()
        still: list[Group] = []
        for group in refused:
            kind = ledger.kind(group)
            if kind not in hopeless and (positions := choose(ledger, group)) is not None:
                ledger.take(group, positions)
                continue
            hopeless.add(kind)
            still.append(group)
        if len(still) == len(refused):
            return still
        refused = still


def turn(group: Group) -> tuple[int, int, int, float, str, str]:
    """The place in the queue: priority, the minute it came, size, the moment it came, its name."""
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
