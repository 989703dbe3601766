"""How the processor time of a plan grows with the groups that wait.

Each group asks for a whole node and belongs to a set of its own. There are 20 nodes, some of which are full,
so most groups are refused.
"""

import time

from flotilla_operator.placement import Claim, Group, Snapshot, Standing, place
from flotilla_operator.placement.groups import ZONE
from placement.clusters import GPU, GPUS_PER_NODE, POLICY, group, large_nodes

FEW, MANY = 100, 1000
NODES, ZONES, NODES_PER_RACK, STANDING = 20, 4, 5, 8
REPEATS = 7


def growth(*, required: bool) -> float:
    """The processor time with many groups, divided by that with few; `required`: replicas must be spread."""
    return seconds(MANY, required=required) / seconds(FEW, required=required)


def seconds(groups: int, *, required: bool) -> float:
    """The least processor time of several plans."""
    snapshot, waiting = standing(), sets(groups, required=required)
    took = []
    for _ in range(REPEATS):
        began = time.process_time()
        placement = place(snapshot, waiting, POLICY, 0)
        took.append(time.process_time() - began)
        assert len(placement.bindings) == NODES - STANDING
    return min(took)


def standing() -> Snapshot:
    """The nodes, some of them full."""
    topology = large_nodes(NODES, ZONES, NODES_PER_RACK)
    full = [node.name for node in topology.nodes[:STANDING]]
    return Snapshot(
        topology=topology,
        claims=tuple(Claim(node=name, requests={GPU: GPUS_PER_NODE, "pods": 1}) for name in full),
        standing=tuple(Standing(owner=f"team/stands-{name}", nodes=(name,)) for name in full),
    )


def sets(count: int, *, required: bool) -> list[Group]:
    """One waiting group of each set."""
    spread = ZONE if required else None
    return [
        group(
            "group-0",
            tensor=GPUS_PER_NODE,
            stages=1,
            since=-index,
            owner=f"team/set-{index:04}",
            spread_across=spread,
            required=required,
        )
        for index in range(count)
    ]
