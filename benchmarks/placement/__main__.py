"""`make bench-placement`: how long placement takes, and how many groups it places.

It measures one plan of 15,000 groups on 640 nodes of eight accelerators in four zones, and the plan of one
more group on that cluster. It measures how the time of a plan grows with the groups that wait, compares
placement with an exact solver on small clusters, and places groups that could deadlock. All random values
come from fixed seeds. The last line of the output is one JSON object; the exit status is 1 when a figure
misses its limit.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable

from flotilla_operator.placement import PlacementPlan, Snapshot, place
from flotilla_operator.placement.groups import RACK
from placement.clusters import (
    GPUS_PER_NODE,
    POLICY,
    busy,
    claims_of,
    free_accelerators,
    group,
    large_nodes,
    queue,
)
from placement.deadlock import violations
from placement.exact import shares
from placement.growth import growth
from wanted import add_only_print, at_least, at_most, conclude, exactly, under

SEED = 7
GROUPS, NODES, ZONES, NODES_PER_RACK, BUSY = 15_000, 640, 4, 20, 0.30
SHORT_WAIT_SECONDS, LONG_WAIT_SECONDS = 500, 5000  # none has aged; most have
SMALL_CLUSTERS, DEADLOCK_ORDERS, REPEATS = 500, 100, 21
ONE_ARRIVAL_SECONDS = 0.0
MORE_GROUPS = ((1, 1), (8, 1), (4, 2), (8, 2))  # tensor and stages

WANTED = (
    under(10, "plan_seconds"),
    under(20, "one_group_milliseconds"),
    at_most(15, "growth_with_ten_times_the_groups"),
    at_most(15, "growth_with_ten_times_the_groups_to_spread"),
    at_least(0.99, "share_of_exact"),
    exactly(0, "deadlock_violations"),
)


def plan(snapshot: Snapshot, longest_wait_seconds: float) -> tuple[PlacementPlan, float]:
    """One plan of the large queue, whose invariants are checked, and the seconds it took."""
    waiting = queue(GROUPS, longest_wait_seconds, random.Random(SEED))
    began = time.perf_counter()
    placement = place(snapshot, waiting, POLICY, 0)
    took = time.perf_counter() - began
    placement.check(snapshot, waiting, POLICY)
    return placement, took


def fits_still(snapshot: Snapshot, placement: PlacementPlan) -> int:
    """How many refused groups would fit after the plan is carried out; none has a required topology."""
    after = Snapshot(topology=snapshot.topology, claims=(*snapshot.claims, *claims_of(placement.bindings)))
    free = free_accelerators(after).values()
    return sum(
        sum(left // refusal.group.wanted for left in free) >= refusal.group.stages
        for refusal in placement.refusals
    )


def one_more_milliseconds(
    snapshot: Snapshot, placement: PlacementPlan, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The time to place one group while half of the plan is carried out: the slowest size's median."""
    half = placement.bindings[: len(placement.bindings) // 2]
    fuller = Snapshot(topology=snapshot.topology, claims=(*snapshot.claims, *claims_of(half)))
    medians = []
    for tensor, stages in MORE_GROUPS:
        one = group("one", tensor=tensor, stages=stages, since=0, pack_within=RACK)
        took = []
        for _ in range(REPEATS):
            began = clock()
            place(fuller, [one], POLICY, 0)
            took.append(1000 * (clock() - began))
        medians.append(statistics.median(took))
    return max(medians)


def main() -> int:
    """Measure everything, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m placement", description=__doc__)
    add_only_print(parser)
    options = parser.parse_args()
    topology = large_nodes(NODES, ZONES, NODES_PER_RACK)
    snapshot = Snapshot(topology=topology, claims=busy(topology, BUSY, random.Random(SEED)))
    placement, took = plan(snapshot, SHORT_WAIT_SECONDS)
    _, took_aged = plan(snapshot, LONG_WAIT_SECONDS)
    assert not fits_still(snapshot, placement), "a waiting group fits"
    together = shares(SMALL_CLUSTERS, SEED, ONE_ARRIVAL_SECONDS)
    apart = shares(SMALL_CLUSTERS, SEED, SHORT_WAIT_SECONDS)
    result = {
        "groups": GROUPS,
        "nodes": NODES,
        "plan_seconds": round(took, 2),
        "plan_seconds_most_aged": round(took_aged, 2),
        "admitted_groups": len(placement.bindings),
        "admitted_gpus": sum(binding.group.accelerators for binding in placement.bindings),
        "free_gpus": NODES * GPUS_PER_NODE - round(BUSY * NODES * GPUS_PER_NODE),
        "share_of_exact": round(together.exact, 4),
        "share_of_exact_random_ages": round(apart.exact, 4),
        "share_of_exact_in_turn": round(apart.in_turn, 4),
        "one_group_milliseconds": round(one_more_milliseconds(snapshot, placement), 1),
        "one_group_processor_milliseconds": round(
            one_more_milliseconds(snapshot, placement, time.process_time), 1
        ),
        "growth_with_ten_times_the_groups": round(growth(required=False), 1),
        "growth_with_ten_times_the_groups_to_spread": round(growth(required=True), 1),
        "deadlock_orders": DEADLOCK_ORDERS,
        "deadlock_violations": violations(DEADLOCK_ORDERS, SEED),
    }
    print(f"{result['admitted_groups']} of {GROUPS} groups bound in {result['plan_seconds']} s")
    return conclude(result, WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
