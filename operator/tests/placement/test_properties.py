"""Properties of placement for any cluster and any queue.

No GPU twice, a group whole or not at all, what must be packed or spread is, input order changes nothing, and
when the plan ends no group fits that was refused, unless room is kept for an older one. Groups of several
nodes never lock each other out. That these cases are drawn at all is tested too.
"""

import random
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from flotilla_operator.placement import Claim, Group, Snapshot, Standing, place
from flotilla_operator.placement.groups import RACK, ZONE
from flotilla_operator.placement.plan import turn
from tests.builders.placement import GPU, POLICY, cluster, group, node, used
from tests.support.generated import seldom_drawn

NAMES = [f"n{i}" for i in range(6)]
SELDOM = st.sampled_from([False] * 9 + [True])

nodes = st.lists(
    st.builds(
        node,
        st.sampled_from(NAMES),
        gpus=st.sampled_from([8, 8, 8, 4, 1, 0]),
        product=st.sampled_from(["H100", "H100", "H100", "A100", None]),
        cordoned=SELDOM,
        ready=SELDOM.map(lambda seldom: not seldom),
        cores=st.sampled_from([64, 64, 64, 2]),
        labels=st.builds(
            lambda zone, rack: {k: v for k, v in ((ZONE, zone), (RACK, rack)) if v},
            st.sampled_from(["x", "x", "y", None]),
            st.sampled_from(["r0", "r0", "r1", None]),
        ),
    ),
    min_size=3,
    max_size=6,
    unique_by=lambda n: n.name,
)
claims = st.lists(st.builds(used, st.sampled_from(NAMES), st.integers(0, 8)), max_size=3).map(tuple)
groups = st.lists(
    st.builds(
        group,
        st.sampled_from([f"g{i}" for i in range(8)]),
        gpus=st.sampled_from([4, 2, 1, 8]),
        since=st.integers(0, 1000),
        priority=st.sampled_from([0, 0, -5, 100]),
        products=st.sampled_from([frozenset(), frozenset(), frozenset({"H100"})]),
        left_out=st.sampled_from([frozenset(), frozenset(), frozenset({"n0"})]),
        stages=st.sampled_from([1, 2, 2, 3]),
        pack_within=st.sampled_from([ZONE, ZONE, RACK, None, "row"]),
        spread_across=st.sampled_from([None, ZONE]),
        required=st.booleans(),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda g: g.name,
)
standing = st.lists(
    st.builds(
        lambda names: Standing(owner="default/llama", nodes=tuple(names)),
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=2),
    ),
    max_size=3,
).map(tuple)
snapshots = st.builds(lambda ns, cs, sd: cluster(*ns, claims=cs, standing=sd), nodes, claims, standing)
times = st.integers(0, 2000)
YOUNG = 0  # a time at which no group of the queue has aged


CASES = (
    "bound on several nodes",
    "bound in one domain",
    "bound where the fewest are",
    "refused with room for some of it",
    "refused in every domain",
    "some bound and some refused",
    "passed by a younger one",
)


def cases_of(snapshot: Snapshot, waiting: list[Group], now: int) -> Iterator[str]:
    placement = place(snapshot, waiting, POLICY, now)
    for binding in placement.bindings:
        if len(set(binding.nodes)) > 1:
            yield "bound on several nodes"
        if binding.group.must_pack:
            yield "bound in one domain"
        if binding.group.must_spread:
            yield "bound where the fewest are"
    for refusal in placement.refusals:
        if refusal.stages_with_room:
            yield "refused with room for some of it"
        if refusal.group.must_pack:
            yield "refused in every domain"
        if placement.bindings:
            yield "some bound and some refused"
        if any(turn(binding.group) > turn(refusal.group) for binding in placement.bindings):
            yield "passed by a younger one"


def test_the_cases_of_these_properties_are_drawn() -> None:
    assert seldom_drawn(CASES, cases_of, snapshots, groups, times) == {}


@pytest.mark.holds("groups.md", "All stages are placed together or none")
@pytest.mark.holds("placement.md", "A group is placed whole or not at all, and no GPU is given twice")
@given(snapshots, groups, times)
@example(cluster(node("n0", gpus=8), claims=(used("n0", 9),)), [group("g0")], 0)
@example(cluster(), [group("g0")], 0)
@example(cluster(node("n0")), [], 0)
def test_no_gpu_is_given_twice_and_no_group_is_lost(
    snapshot: Snapshot, waiting: list[Group], now: int
) -> None:
    snapshot.topology.check()
    place(snapshot, waiting, POLICY, now).check(snapshot, waiting, POLICY)


@pytest.mark.holds("placement.md", "The order of nodes and groups in the input changes nothing")
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
    again = cluster(*shuffled_nodes, claims=tuple(shuffled_claims), standing=tuple(snapshot.standing[::-1]))
    assert place(again, shuffled_groups, POLICY, now) == before


@pytest.mark.holds(
    "decisions/0010-placement-order.md", "No group loses its place to a younger one of another minute"
)
@given(snapshots, groups)
def test_no_waiting_group_fits_when_the_plan_ends(snapshot: Snapshot, waiting: list[Group]) -> None:
    placement = place(snapshot, waiting, POLICY, YOUNG)
    free = {n.name: dict(n.allocatable) for n in snapshot.topology.nodes}
    held = [(claim.node, claim.requests) for claim in snapshot.claims]
    held += [(name, b.group.requests) for b in placement.bindings for name in b.nodes]
    for name, requests in held:
        for resource in requests if name in free else ():
            free[name][resource] -= requests[resource]
    for refused in (refusal.group for refusal in placement.refusals if not refusal.group.must_spread):
        rooms = {
            n.name: stages_that_fit(free[n.name], refused)
            for n in snapshot.topology.nodes
            if n.ready
            and not n.cordoned
            and n.name not in refused.left_out
            and (not refused.products or n.labels.get("nvidia.com/gpu.product") in refused.products)
        }
        domains: dict[object, int] = {}
        for name, room in rooms.items():
            labels = snapshot.topology.nodes[snapshot.topology.positions[name]].labels
            if not refused.must_pack:
                domains["anywhere"] = domains.get("anywhere", 0) + room
            elif refused.pack_within is not None and refused.pack_within in labels:
                above = labels.get(ZONE) if refused.pack_within == RACK else None
                domain = (above, labels[refused.pack_within])
                domains[domain] = domains.get(domain, 0) + room
        assert max(domains.values(), default=0) < refused.stages, f"{refused.name} fits {rooms}"


def stages_that_fit(free: Mapping[str, int], group: Group) -> int:
    return min(max(free.get(resource, 0), 0) // value for resource, value in group.requests.items())


single = st.builds(
    group,
    st.just("g0"),
    gpus=st.sampled_from([1, 2, 4]),
    products=st.sampled_from([frozenset(), frozenset({"H100"})]),
    left_out=st.sampled_from([frozenset(), frozenset({"n0"})]),
)


@pytest.mark.holds("placement.md", "Whole nodes stay whole, and the node with the least left over is taken")
@given(snapshots, single)
def test_a_group_alone_takes_the_node_with_the_least_left_over(snapshot: Snapshot, alone: Group) -> None:
    free = {n.name: n.allocatable[GPU] for n in snapshot.topology.nodes}
    for claim in snapshot.claims:
        if claim.node in free:
            free[claim.node] -= claim.requests[GPU]
    able = [
        n.name
        for n in snapshot.topology.nodes
        if place(cluster(n, claims=tuple(snapshot.claims)), [alone], POLICY, YOUNG).bindings
    ]
    assume(able)
    (binding,) = place(snapshot, [alone], POLICY, YOUNG).bindings
    assert free[binding.nodes[0]] == min(free[name] for name in able)


@pytest.mark.holds("groups.md", "Several sets of groups never lock each other out")
@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_groups_of_two_nodes_never_lock_each_other_out(count: int, shuffler: random.Random) -> None:
    topology = cluster(*(node(f"n{i}", labels={RACK: f"r{i % 3}"}) for i in range(2 * (count - 1)))).topology
    arriving = [
        group(f"g{i}", owner=f"team-{i % 3}/s", gpus=8, stages=2, since=shuffler.uniform(0, 2000))
        for i in range(count)
    ]
    shuffler.shuffle(arriving)
    waiting: list[Group] = []
    claims: tuple[Claim, ...] = ()
    for arrived in arriving:
        waiting.append(arrived)
        placement = place(Snapshot(topology=topology, claims=claims), waiting, POLICY, 2000)
        claims += tuple(used(name, 8) for binding in placement.bindings for name in binding.nodes)
        waiting = [refusal.group for refusal in placement.refusals]
    assert len({claim.node for claim in claims}) == len(claims) == 2 * (count - 1)
    assert len(waiting) == 1
