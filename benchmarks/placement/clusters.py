"""Random clusters and queues to measure placement on; the same seed gives the same ones."""

import random
from collections.abc import Mapping, Sequence

from flotilla_operator.placement import Binding, Claim, Group, Node, Policy, Snapshot, Topology
from flotilla_operator.placement.groups import RACK, ZONE

GPU = "nvidia.com/gpu"
GPUS_PER_NODE = 8
TENSOR_SIZES, TENSOR_WEIGHTS = (1, 2, 4, 8), (55, 20, 15, 10)
PIPELINE_SHARE = 0.10
POLICY = Policy(product_labels=("nvidia.com/gpu.product",))
GIB = 2**30


def node(index: int, zone: str, rack: str) -> Node:
    """A node of eight accelerators."""
    return Node(
        name=f"node-{index:04}",
        allocatable={GPU: GPUS_PER_NODE, "cpu": 192_000, "memory": 2048 * GIB, "pods": 110},
        labels={ZONE: zone, RACK: rack},
    )


def group(
    name: str,
    *,
    tensor: int,
    stages: int,
    since: float,
    owner: str = "default/set",
    pack_within: str | None = None,
    spread_across: str | None = None,
    required: bool = False,
) -> Group:
    """A group of pipeline stages, each with this many accelerators."""
    return Group(
        owner=owner,
        name=name,
        accelerator=GPU,
        requests={GPU: tensor, "cpu": 4000 * tensor, "memory": 64 * GIB * tensor, "pods": 1},
        stages=stages,
        waiting_since_seconds=since,
        pack_within=pack_within,
        spread_across=spread_across,
        required=required,
    )


def large_nodes(count: int, zones: int, nodes_per_rack: int) -> Topology:
    """Nodes in racks, and racks in zones; every zone has the same rack names."""
    per_zone = count // zones
    return Topology.of(
        node(index, f"zone-{index // per_zone}", f"rack-{index % per_zone // nodes_per_rack}")
        for index in range(count)
    )


def busy(topology: Topology, share: float, draw: random.Random) -> tuple[Claim, ...]:
    """Pods that hold this share of the accelerators, on random nodes."""
    free = {node.name: GPUS_PER_NODE for node in topology.nodes}
    left = round(share * GPUS_PER_NODE * len(free))
    names, claims = list(free), []
    while left > 0:
        size = min(draw.choices(TENSOR_SIZES, TENSOR_WEIGHTS)[0], left)
        name = draw.choice(names)
        if free[name] >= size:
            free[name] -= size
            left -= size
            claims.append(Claim(node=name, requests={GPU: size, "cpu": 4000 * size, "pods": 1}))
    return tuple(claims)


def queue(count: int, longest_wait_seconds: float, draw: random.Random) -> list[Group]:
    """Groups that have waited for up to this long; pipelines prefer one rack, some groups prefer spread."""
    made = []
    for index in range(count):
        tensor = draw.choices(TENSOR_SIZES, TENSOR_WEIGHTS)[0]
        stages = 2 if draw.random() < PIPELINE_SHARE else 1
        number = draw.randrange(50)
        made.append(
            group(
                f"group-{index:05}",
                tensor=tensor,
                stages=stages,
                since=-draw.uniform(0, longest_wait_seconds),
                owner=f"team-{number % 5}/set-{tensor}-{stages}-{number}",
                pack_within=RACK if stages > 1 else None,
                spread_across=ZONE if number % 4 == 0 else None,
            )
        )
    return made


def claims_of(bindings: Sequence[Binding]) -> tuple[Claim, ...]:
    """The claims of bound groups."""
    return tuple(
        Claim(node=name, requests=binding.group.requests) for binding in bindings for name in binding.nodes
    )


def free_accelerators(snapshot: Snapshot) -> Mapping[str, int]:
    """Each node's free accelerators, counted without placement's own code."""
    free = {node.name: node.allocatable[GPU] for node in snapshot.topology.nodes}
    for claim in snapshot.claims:
        free[claim.node] -= claim.requests.get(GPU, 0)
    return free
