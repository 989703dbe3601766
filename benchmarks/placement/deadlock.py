"""Places N groups of two nodes each on nodes for N-1 groups, in random order, for several owners.

The groups arrive one at a time or several at once, and each plan's bindings hold their nodes in the next
plan. N-1 groups must be placed whole, no group may hold a part of its nodes, and the last must report why it
waits.
"""

import random

from flotilla_operator.placement import Binding, Group, Snapshot, Topology, place
from placement.clusters import GPUS_PER_NODE, POLICY, claims_of, group, node


def violations(orders: int, seed: int) -> int:
    """The number of orders in which one of these rules is violated."""
    draw = random.Random(seed)
    return sum(not _holds(draw) for _ in range(orders))


def _holds(draw: random.Random) -> bool:
    count = draw.randint(2, 12)
    topology = Topology.of(
        node(index, f"zone-{index % 2}", f"rack-{draw.randrange(3)}") for index in range(2 * (count - 1))
    )
    arriving = [
        group(
            f"group-{index}",
            tensor=GPUS_PER_NODE,
            stages=2,
            since=-draw.uniform(0, 2000),
            owner=f"team-{index % 3}/set-{index % 5}",
        )
        for index in range(count)
    ]
    draw.shuffle(arriving)
    waiting: list[Group] = []
    bound: list[Binding] = []
    messages: list[str] = []
    while arriving:
        batch = draw.randint(1, len(arriving))
        waiting, arriving = [*waiting, *arriving[:batch]], arriving[batch:]
        snapshot = Snapshot(topology=topology, claims=claims_of(bound))
        placement = place(snapshot, waiting, POLICY, 0)
        placement.check(snapshot, waiting, POLICY)
        bound += placement.bindings
        waiting = [refusal.group for refusal in placement.refusals]
        messages = [refusal.message for refusal in placement.refusals]
    held = [name for binding in bound for name in binding.nodes]
    whole = len(bound) == count - 1 and len(set(held)) == len(held) == 2 * len(bound)
    return whole and messages == [
        f"0/{len(topology.nodes)} nodes fit: {len(topology.nodes)} InsufficientGPUs; "
        "there is room for 0 of 2 stages"
    ]
