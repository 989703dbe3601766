"""Which group goes where: a pure function of the cluster, the waiting groups and the policy.

Groups are served by priority, then age. A younger group may pass one that does not fit, until that one has
waited for `aging_seconds`; from then on the nodes closest to having room for the whole of it are kept for it,
so a stream of small groups cannot starve a large one. A group of higher priority is never held back by an
older one of lower priority. Nothing is preempted, and no group is placed in part. Every choice has a total
order, so the order of the input changes nothing.
"""

from collections.abc import Sequence

from flotilla_operator.placement.choice import choose
from flotilla_operator.placement.groups import Group, Policy, Snapshot
from flotilla_operator.placement.keep import keep_nodes
from flotilla_operator.placement.ledger import Asked, Ledger
from flotilla_operator.placement.outcome import Binding, Placement
from flotilla_operator.placement.refuse import Refuser
from flotilla_operator.placement.score import Scorer


def place(snapshot: Snapshot, waiting: Sequence[Group], policy: Policy, now_seconds: float) -> Placement:
    """Bind every group that fits, whole; say of every other why it does not."""
    ledger = Ledger(snapshot, policy)
    bound: list[tuple[Group, tuple[int, ...]]] = []
    refused: list[Group] = []
    hopeless: set[Asked] = set()
    unkept: set[Asked] = set()
    for group in sorted(waiting, key=_turn):
        asked = Asked.by(group)
        positions = None if asked in hopeless else choose(ledger, group)
        if positions is not None:
            ledger.take(group, positions)
            bound.append((group, positions))
            continue
        refused.append(group)
        hopeless.add(asked)
        aged = now_seconds - group.waiting_since_seconds >= policy.aging_seconds
        if aged and asked not in unkept and not keep_nodes(ledger, group):
            unkept.add(asked)
    refuser = Refuser(ledger)
    return Placement(
        bindings=tuple(_binding(ledger, group, positions) for group, positions in bound),
        refusals=tuple(refuser.refuse(group) for group in refused),
    )


def _turn(group: Group) -> tuple[int, float, str, str]:
    return (-group.priority, group.waiting_since_seconds, group.owner, group.name)


def _binding(ledger: Ledger, group: Group, positions: tuple[int, ...]) -> Binding:
    scorer = Scorer(ledger.topology, ledger.loads, ledger.policy)
    return Binding(
        group=group,
        nodes=tuple(ledger.topology.nodes[position].name for position in positions),
        domain=scorer.domain(positions),
        score=scorer.of([positions], group.accelerator),
    )
