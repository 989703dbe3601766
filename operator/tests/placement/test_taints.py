"""The taints that a refusal names: those that are all that keeps a group from a node."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.placement import Group, Snapshot, Taint, Toleration, place
from flotilla_operator.placement.outcome import RefusalReason
from tests.builders.placement import POLICY, cluster, group, node, used
from tests.support.generated import seldom_drawn

SKU = Taint(key="sku", value="gpu")
TEAM = Taint(key="team", value="search", effect="NoExecute")
GKE = Taint(key="nvidia.com/gpu", value="present")
CONTROL_PLANE = Taint(key="node-role.kubernetes.io/control-plane")
ADVICE = Taint(key="spot", effect="PreferNoSchedule")
TOLERATES_SKU = Toleration(key="sku", value="gpu")
SEVERAL_OF_EACH = cluster(
    node("a", taints=(SKU, TEAM)), node("b", taints=(SKU,)), node("c", taints=(GKE,)), node("d", gpus=0)
)


@pytest.mark.holds(
    "placement.md",
    "A refusal names the taint that keeps replicas from most of the nodes that could hold one "
    "otherwise, and the fields that tolerate it",
)
@pytest.mark.parametrize(
    ("snapshot", "the_group", "taints", "frequent"),
    [
        pytest.param(cluster(node("a", taints=(SKU,))), group("g"), {SKU: 1}, SKU, id="one"),
        pytest.param(SEVERAL_OF_EACH, group("g"), {SKU: 2, TEAM: 1, GKE: 1}, SKU, id="of two nodes first"),
        pytest.param(
            cluster(node("a", taints=(SKU, TEAM)), node("c", taints=(GKE,))),
            group("g", tolerations=(TOLERATES_SKU,)),
            {TEAM: 1, GKE: 1},
            GKE,
            id="not the one that is tolerated; of equals by name",
        ),
        pytest.param(
            cluster(node("a", taints=(SKU, ADVICE))), group("g"), {SKU: 1}, SKU, id="none that only prefers"
        ),
        pytest.param(
            cluster(node("a", taints=(SKU,)), *(node(n, gpus=0, taints=(CONTROL_PLANE,)) for n in "bcd")),
            group("g"),
            {SKU: 1},
            SKU,
            id="none of nodes without an accelerator",
        ),
        pytest.param(
            cluster(node("a", product="A100", taints=(SKU,)), node("b", gpus=2, taints=(TEAM,))),
            group("g", gpus=4, products=frozenset({"H100"})),
            {},
            None,
            id="none of nodes that could not take it without the taint",
        ),
        pytest.param(
            cluster(node("a", taints=(SKU,)), claims=(used("a", 8),)),
            group("g"),
            {SKU: 1},
            SKU,
            id="also of a node that is in use now",
        ),
        pytest.param(cluster(node("a", gpus=0)), group("g"), {}, None, id="no taint"),
    ],
)
def test_a_refusal_counts_the_taints_in_the_way(
    snapshot: Snapshot, the_group: Group, taints: dict[Taint, int], frequent: Taint | None
) -> None:
    (refusal,) = place(snapshot, [the_group], POLICY, 0).refusals
    assert refusal.taints == taints
    assert refusal.frequent_taint == frequent


@pytest.mark.parametrize(
    ("taint", "text"),
    [
        pytest.param(SKU, "sku=gpu:NoSchedule", id="with a value"),
        pytest.param(CONTROL_PLANE, "node-role.kubernetes.io/control-plane:NoSchedule", id="without one"),
        pytest.param(TEAM, "team=search:NoExecute", id="that evicts"),
    ],
)
def test_a_taint_is_written_as_kubectl_takes_it(taint: Taint, text: str) -> None:
    assert str(taint) == text


taints = st.lists(st.sampled_from([SKU, TEAM, GKE, ADVICE]), max_size=3, unique=True).map(tuple)
tolerations = st.lists(
    st.builds(
        Toleration,
        key=st.sampled_from(["sku", "team", "nvidia.com/gpu", ""]),
        operator=st.sampled_from(["Exists", "Equal", "Equal"]),
        value=st.sampled_from(["gpu", "search", ""]),
        effect=st.sampled_from(["", "NoSchedule", "NoExecute"]),
    ),
    max_size=2,
).map(tuple)
snapshots = st.lists(
    st.builds(node, st.sampled_from("abcdef"), gpus=st.sampled_from([8, 4, 1, 0]), taints=taints),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.name,
).map(lambda nodes: cluster(*nodes))
groups = st.builds(group, st.just("g"), gpus=st.sampled_from([1, 4, 8]), tolerations=tolerations)


def kept_away(one: Group, taint: Taint) -> bool:
    """By the words of core/v1."""
    return taint.effect != "PreferNoSchedule" and not any(
        t.effect in ("", taint.effect)
        and t.key in ("", taint.key)
        and (t.operator == "Exists" or (t.key == taint.key and t.value == taint.value))
        for t in one.tolerations
    )


CASES = ("bound on a tainted node", "one taint", "several taints", "tainted, and of no use anyway")


def cases_of(snapshot: Snapshot, one: Group) -> list[str]:
    plan = place(snapshot, [one], POLICY, 0)
    at = snapshot.topology.positions
    found = [CASES[0] for b in plan.bindings for name in b.nodes if snapshot.topology.nodes[at[name]].taints]
    for refusal in plan.refusals:
        tainted = RefusalReason.TAINT_NOT_TOLERATED in refusal.counts
        found += [CASES[min(len(refusal.taints), 2)]] if refusal.taints else [CASES[3]] if tainted else []
    return found


def test_the_cases_of_these_properties_are_drawn() -> None:
    assert seldom_drawn(CASES, cases_of, snapshots, groups) == {}


@given(snapshots, groups)
def test_no_group_goes_where_a_taint_keeps_it_away(snapshot: Snapshot, one: Group) -> None:
    open_nodes = [
        n.name
        for n in snapshot.topology.nodes
        if n.allocatable["nvidia.com/gpu"] >= one.wanted and not any(kept_away(one, t) for t in n.taints)
    ]
    plan = place(snapshot, [one], POLICY, 0)
    assert bool(plan.bindings) == bool(open_nodes)
    assert {name for binding in plan.bindings for name in binding.nodes} <= set(open_nodes)


@pytest.mark.holds(
    "placement.md",
    "A refusal names the taint that keeps replicas from most of the nodes that could hold one "
    "otherwise, and the fields that tolerate it",
)
@given(snapshots, groups)
def test_a_group_that_tolerates_what_a_refusal_names_has_room(snapshot: Snapshot, one: Group) -> None:
    for refusal in place(snapshot, [one], POLICY, 0).refusals:
        assert all(kept_away(one, taint) for taint in refusal.taints)
        named = tuple(Toleration(key=t.key, value=t.value, effect=t.effect) for t in refusal.taints)
        tolerant = replace(one, tolerations=(*one.tolerations, *named))
        assert bool(place(snapshot, [tolerant], POLICY, 0).bindings) == bool(named)
