"""What holds of any cluster and any queue.

No GPU twice, a group whole or not at all, input order changes nothing, and the first group in turn is refused
only when it truly fits nowhere.
"""

import random

from hypothesis import example, given
from hypothesis import strategies as st

from flotilla_operator.placement import Group, Snapshot, place
from tests.builders.placement import GPU, POLICY, cluster, group, node, used

NAMES = [f"n{i}" for i in range(6)]

nodes = st.lists(
    st.builds(
        node,
        st.sampled_from(NAMES),
        gpus=st.sampled_from([0, 1, 4, 8]),
        product=st.sampled_from([None, "H100", "A100"]),
        cordoned=st.booleans(),
        ready=st.booleans(),
        cores=st.integers(0, 8),
    ),
    max_size=6,
    unique_by=lambda n: n.name,
)
claims = st.lists(st.builds(used, st.sampled_from(NAMES), st.integers(0, 8)), max_size=6).map(tuple)
groups = st.lists(
    st.builds(
        group,
        st.sampled_from([f"g{i}" for i in range(8)]),
        gpus=st.sampled_from([1, 2, 4, 8]),
        since=st.integers(0, 1000),
        priority=st.sampled_from([-5, 0, 0, 100]),
        products=st.sampled_from([frozenset(), frozenset({"H100"})]),
        left_out=st.sampled_from([frozenset(), frozenset({"n0"})]),
    ),
    max_size=8,
    unique_by=lambda g: g.name,
)
snapshots = st.builds(lambda ns, cs: cluster(*ns, claims=cs), nodes, claims)
times = st.integers(0, 2000)


@given(snapshots, groups, times)
@example(cluster(node("n0", gpus=8), claims=(used("n0", 9),)), [group("g0")], 0)
def test_no_gpu_is_given_twice_and_no_group_is_lost(
    snapshot: Snapshot, waiting: list[Group], now: int
) -> None:
    snapshot.topology.check()
    place(snapshot, waiting, POLICY, now).check(snapshot, waiting, POLICY)


@given(snapshots, groups, times, st.randoms(use_true_random=False))
def test_input_order_changes_nothing(
    snapshot: Snapshot, waiting: list[Group], now: int, shuffler: random.Random
) -> None:
    before = place(snapshot, waiting, POLICY, now)
    shuffled_nodes, shuffled_claims, shuffled_groups = (
        list(snapshot.topology.nodes),
        list(snapshot.claims),
        list(waiting),
    )
    for sequence in (shuffled_nodes, shuffled_claims, shuffled_groups):
        shuffler.shuffle(sequence)
    again = cluster(*shuffled_nodes, claims=tuple(shuffled_claims))
    assert place(again, shuffled_groups, POLICY, now) == before


@given(snapshots, groups, times)
def test_the_first_in_turn_is_refused_only_when_no_node_could_take_it(
    snapshot: Snapshot, waiting: list[Group], now: int
) -> None:
    if not waiting:
        return
    first = min(waiting, key=lambda g: (-g.priority, g.waiting_since_seconds, g.owner, g.name))
    free = {n.name: n.allocatable[GPU] for n in snapshot.topology.nodes}
    cores = {n.name: n.allocatable["cpu"] for n in snapshot.topology.nodes}
    for claim in snapshot.claims:
        if claim.node in free:
            free[claim.node] -= claim.requests[GPU]
    could = {
        n.name
        for n in snapshot.topology.nodes
        if n.ready
        and not n.cordoned
        and n.name not in first.left_out
        and free[n.name] >= first.wanted
        and cores[n.name] >= first.requests["cpu"]
        and (not first.products or n.labels.get("nvidia.com/gpu.product") in first.products)
    }
    binding = place(snapshot, waiting, POLICY, now).binding_of(first.owner, first.name)
    assert (binding is not None) == bool(could)
    if binding is not None:
        assert binding.nodes[0] in could
        assert free[binding.nodes[0]] == min(free[name] for name in could), "not the least left over"
