"""How long a placement round of many sets takes, on the pure packages alone."""

import statistics
import time
from datetime import UTC, datetime

from flotilla_operator.placement import Group, Node, Policy, Snapshot, Topology
from flotilla_operator.replicas.rounds import Asked, Asks, round_of
from flotilla_operator.replicas.surroundings import Surroundings

GPU = "nvidia.com/gpu"
GPUS = 8
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPEATED = 7


def seconds_of_round(sets: int, nodes: int) -> float:
    """The processor time of a round in which each set asks for one group of a whole node; the median."""
    there = [Node(name=f"node-{number:03}", allocatable={GPU: GPUS}, labels={}) for number in range(nodes)]
    around = Surroundings(
        snapshot=Snapshot(topology=Topology.of(there), claims=()),
        policy=Policy(product_labels=(), aging_seconds=600),
    )
    asked = {f"waiting/set-{number:04}": _ask(number) for number in range(sets)}
    name, mine = asked.popitem()
    times = []
    for _ in range(REPEATED):
        started = time.process_time()
        made = round_of(name, mine, Asks(others=asked), around, NOW)
        times.append(time.process_time() - started)
        assert len(made.placement.bindings) == min(nodes, sets)
    return statistics.median(times)


def _ask(number: int) -> Asked:
    group = Group(
        owner=f"waiting/set-{number:04}",
        name="a",
        requests={GPU: GPUS},
        accelerator=GPU,
        waiting_since_seconds=NOW.timestamp() - 60,
    )
    return Asked(groups=(group,))
