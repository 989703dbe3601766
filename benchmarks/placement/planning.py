"""The time of one plan of placement, for waiting groups and nodes of several products with pods on each.

    PYTHONPATH=operator:runtime python benchmarks/placement/planning.py --groups 400 --nodes 1000

The cluster comes from a fixed seed, so every run plans the same. The time to read pods into claims is
measured separately, because the operator keeps a claim until its pod changes. The last line of the output is
one JSON object.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from flotilla_operator.placement import Claim, Group, Node, Policy, Snapshot, Topology, place
from flotilla_operator.placement.manifests import claim_of

GPU = "nvidia.com/gpu"
PRODUCT_LABEL = "nvidia.com/gpu.product"
PRODUCTS = ("H100", "A100", "L40S")
GPUS_PER_NODE = 8
SIZES = (1, 2, 4, 8)
GIB = 2**30
SETS = 40
NOW = 10_000.0
POLICY = Policy(product_labels=(PRODUCT_LABEL,))


def nodes(count: int, draw: random.Random) -> list[Node]:
    """Nodes of eight accelerators each, in racks of a product."""
    return [
        Node(
            name=f"node-{index:05}",
            allocatable={GPU: GPUS_PER_NODE, "cpu": 96_000, "memory": 1024 * GIB, "pods": 110},
            labels={PRODUCT_LABEL: draw.choice(PRODUCTS)},
            taints=(),
            cordoned=draw.random() < 0.01,
            ready=draw.random() > 0.01,
        )
        for index in range(count)
    ]


def pods(count: int, of: list[Node], draw: random.Random) -> list[dict[str, Any]]:
    """Pods as the API server returns them; one in five holds an accelerator."""
    made = []
    for index in range(count):
        limits = {"cpu": "500m", "memory": "1Gi"}
        if draw.random() < 0.2:
            limits[GPU] = str(draw.choice(SIZES[:3]))
        made.append(
            {
                "metadata": {"name": f"pod-{index}"},
                "spec": {
                    "nodeName": draw.choice(of).name,
                    "containers": [{"name": "c", "resources": {"limits": limits}}],
                },
                "status": {"phase": "Running"},
            }
        )
    return made


def groups(count: int, draw: random.Random) -> list[Group]:
    """Groups of forty sets, each with a size and a product of its own."""
    shapes = [(draw.choice(SIZES), draw.choice((*PRODUCTS, None))) for _ in range(SETS)]
    made = []
    for index in range(count):
        number = index % SETS
        size, product = shapes[number]
        made.append(
            Group(
                owner=f"default/set-{number}",
                name=f"set-{number}-{index}",
                accelerator=GPU,
                requests={GPU: size, "cpu": 4000, "memory": 32 * GIB, "pods": 1},
                waiting_since_seconds=draw.uniform(0, NOW),
                products=frozenset({product} if product else ()),
            )
        )
    return made


def seconds(of: Callable[[], Any], times: int) -> float:
    """The median seconds of this many calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        of()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def main() -> int:
    """Measure the reading of the pods and one plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=400)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    of = nodes(options.nodes, draw)
    running = pods(options.pods, of, draw)
    waiting = groups(options.groups, draw)

    def claims() -> list[Claim]:
        return [claim for pod in running if (claim := claim_of(pod)) is not None]

    snapshot = Snapshot(topology=Topology.of(of), claims=tuple(claims()))
    placed = place(snapshot, waiting, POLICY, NOW)
    placed.check(snapshot, waiting, POLICY)
    result = {
        **vars(options),
        "bound": len(placed.bindings),
        "refused": len(placed.refusals),
        "planSeconds": round(seconds(lambda: place(snapshot, waiting, POLICY, NOW), options.times), 3),
        "claimsSeconds": round(seconds(claims, options.times), 3),
    }
    print(f"{result['bound']} of {options.groups} groups bound in {result['planSeconds']} s")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
