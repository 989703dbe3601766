"""Groups of several stages, and replicas that keep apart: which nodes they get, and which are kept for them.

Refusals of such groups: test_place.py; what holds of any queue: test_properties.py.
"""

import pytest

from flotilla_operator.placement import (
    Domain,
    Group,
    Policy,
    RefusalReason,
    Snapshot,
    Standing,
    place,
)
from flotilla_operator.placement.groups import RACK, ZONE
from flotilla_operator.placement.topology import HOSTNAME
from tests.builders.placement import GPU, POLICY, cluster, group, node, used

CLIQUE = "nvidia.com/gpu.clique"
FAST = Policy(product_labels=POLICY.product_labels, interconnect_label=CLIQUE)


def at(zone: str, rack: str, clique: str | None = None) -> dict[str, str]:
    return {ZONE: zone, RACK: rack, **({CLIQUE: clique} if clique else {})}


@pytest.mark.holds("groups.md", "Stages share the narrowest domain that has room")
@pytest.mark.holds(
    "placement.md", "One node, then one interconnect, then the narrowest level; the user's label before all"
)
@pytest.mark.holds(
    "placement.md",
    "With `required` nodes without the label are left out, and racks of two zones with one name are two",
)
@pytest.mark.parametrize(
    ("snapshot", "waiting", "nodes", "domain"),
    [
        pytest.param(
            cluster(node("a"), node("b"), claims=(used("a", 4),)),
            group("g", gpus=4, stages=2),
            ("b", "b"),
            Domain(HOSTNAME, "b"),
            id="both stages on one node that has room",
        ),
        pytest.param(
            cluster(
                node("a", labels=at("x", "r0")),
                node("b", labels=at("x", "r1")),
                node("c", labels=at("x", "r1")),
            ),
            group("g", gpus=8, stages=2),
            ("b", "c"),
            Domain(RACK, "x/r1"),
            id="the narrowest level that has room",
        ),
        pytest.param(
            cluster(
                node("a", labels=at("x", "r0")),
                node("b", labels=at("y", "r0")),
                node("c", labels={ZONE: "y"}),
            ),
            group("g", gpus=8, stages=2),
            ("b", "c"),
            Domain(ZONE, "y"),
            id="racks of two zones may have one name and are not the same",
        ),
        pytest.param(
            cluster(
                node("a", labels=at("x", "r0", "1")),
                node("b", labels=at("x", "r0", "2")),
                node("c", labels=at("x", "r1", "1")),
            ),
            group("g", gpus=8, stages=2),
            ("a", "c"),
            Domain(CLIQUE, "1"),
            id="a fast interconnect comes before the common rack",
        ),
        pytest.param(
            cluster(
                node("a", labels={**at("x", "r0", "1"), "row": "1"}),
                node("b", labels={**at("x", "r0", "1"), "row": "2"}),
                node("c", labels={**at("y", "r0", "2"), "row": "2"}),
            ),
            group("g", gpus=8, stages=2, pack_within="row"),
            ("b", "c"),
            None,
            id="what the user names comes before the interconnect",
        ),
        pytest.param(
            cluster(node("a", labels=at("x", "r0")), node("b", labels=at("x", "r1"))),
            group("g", gpus=8, stages=2, pack_within=RACK),
            ("a", "b"),
            Domain(ZONE, "x"),
            id="a wish gives way",
        ),
        pytest.param(
            cluster(
                *(node(name, labels=at("x", "r0")) for name in "abc"), claims=(used("b", 6), used("c", 6))
            ),
            group("g", gpus=2, stages=2, pack_within=RACK),
            ("a", "a"),
            Domain(HOSTNAME, "a"),
            id="the common node comes before whole nodes",
        ),
        pytest.param(
            cluster(node("a"), node("b")),
            group("g", gpus=8, stages=2),
            ("a", "b"),
            None,
            id="nodes that say nothing have nothing in common",
        ),
    ],
)
def test_stages_lie_close_together(
    snapshot: Snapshot, waiting: Group, nodes: tuple[str, ...], domain: Domain | None
) -> None:
    (binding,) = place(snapshot, [waiting], FAST, 0).bindings
    assert (binding.nodes, binding.domain) == (nodes, domain)


def zones(*names: str, **taken: int) -> Snapshot:
    """Two nodes in each zone, some of whose GPUs are taken."""
    nodes = [node(f"{zone}{i}", labels={ZONE: zone}) for zone in names for i in range(2)]
    return cluster(*nodes, claims=tuple(used(name, gpus) for name, gpus in taken.items()))


def where(snapshot: Snapshot, *waiting: Group, now: float = 0) -> dict[str, str]:
    placement = place(snapshot, waiting, POLICY, now)
    placement.check(snapshot, waiting, POLICY)
    return {binding.group.name: "".join(binding.nodes) for binding in placement.bindings}


@pytest.mark.holds("groups.md", "`packPipelineWithin` and `spreadReplicasAcross` with `required` are musts")
@pytest.mark.holds("placement.md", "Replicas spread where fewest of their like are")
@pytest.mark.parametrize(
    ("snapshot", "waiting", "expected"),
    [
        pytest.param(
            zones("x", "y"),
            [group(f"g{i}", gpus=8, spread_across=ZONE) for i in range(3)],
            {"g0": "x0", "g1": "y0", "g2": "x1"},
            id="whole nodes of one zone after the other",
        ),
        pytest.param(
            zones("x", "y", x0=4, y0=2),
            [group(f"g{i}", gpus=2, spread_across=ZONE) for i in range(2)],
            {"g0": "x0", "g1": "y0"},
            id="among broken nodes the zone decides before what is left over",
        ),
        pytest.param(
            zones("x", "y", x0=4),
            [group(f"g{i}", gpus=2, spread_across=ZONE) for i in range(2)],
            {"g0": "x0", "g1": "x0"},
            id="a wish for spread breaks no whole node",
        ),
        pytest.param(
            zones("x", "y", x0=4),
            [group(f"g{i}", gpus=2, spread_across=ZONE, required=True) for i in range(2)],
            {"g0": "x0", "g1": "y0"},
            id="a must does",
        ),
        pytest.param(
            zones("x", "y", y0=8, y1=8),
            [group(f"g{i}", gpus=2, spread_across=ZONE, required=True) for i in range(2)],
            {"g0": "x0"},
            id="a must waits for room in the other zone",
        ),
    ],
)
def test_replicas_keep_apart(snapshot: Snapshot, waiting: list[Group], expected: dict[str, str]) -> None:
    assert where(snapshot, *waiting) == expected


@pytest.mark.holds("placement.md", "Replicas spread where fewest of their like are")
def test_replicas_that_stand_count_for_the_spread() -> None:
    standing = (
        Standing(owner="default/llama", nodes=("x0",)),
        Standing(owner="default/other", nodes=("y0",)),
    )
    base = zones("x", "y")
    snapshot = Snapshot(topology=base.topology, claims=(), standing=standing)
    assert where(snapshot, group("g", gpus=8, spread_across=ZONE)) == {"g": "y0"}


@pytest.mark.holds(
    "placement.md", "From then on nodes are kept for all of its stages, in one domain where it must"
)
def test_nodes_are_kept_for_the_whole_of_an_older_group() -> None:
    snapshot = cluster(*(node(name) for name in "abc"), claims=(used("a", 8), used("b", 4), used("c", 6)))
    old = group("old", gpus=8, stages=2)
    young = group("young", gpus=2, since=900, owner="default/other")
    assert where(snapshot, old, young, now=1000) == {}, "b and c lack the least, and both are kept"
    assert where(snapshot, old, group("young", gpus=2, since=900, priority=1), now=1000) == {"young": "c"}
    kept = place(snapshot, [old, young], POLICY, 1000).refusal_of("default/other", "young")
    assert kept is not None
    assert dict(kept.counts) == {
        RefusalReason.KEPT_FOR_OLDER_GROUP: 2,
        RefusalReason.INSUFFICIENT_GPUS: 1,
    }


@pytest.mark.holds(
    "placement.md", "From then on nodes are kept for all of its stages, in one domain where it must"
)
def test_what_comes_free_goes_to_the_older_group() -> None:
    snapshot = cluster(*(node(name) for name in "abc"), claims=(used("a", 8),))
    old = group("old", gpus=8, stages=2)
    assert where(snapshot, old, group("young", gpus=8, since=900), now=1000) == {"old": "bc"}


@pytest.mark.holds("groups.md", "`packPipelineWithin` and `spreadReplicasAcross` with `required` are musts")
def test_a_group_in_two_domains_is_never_placed_where_it_must_not() -> None:
    snapshot = cluster(node("a", labels=at("x", "r0")), node("b", labels=at("x", "r1")))
    (refusal,) = place(
        snapshot, [group("g", gpus=8, stages=2, pack_within=RACK, required=True)], FAST, 0
    ).refusals
    assert refusal.counts == {RefusalReason.NO_DOMAIN_WITH_ROOM: 2}
    assert not refusal.fits_when_empty


@pytest.mark.holds("placement.md", "Packing, fragmentation and spread are counted as the page says")
def test_a_binding_scores_how_close_it_lies() -> None:
    snapshot = cluster(node("a", labels=at("x", "r0")), node("b", labels=at("x", "r1")), node("c", gpus=0))
    (binding,) = place(
        snapshot,
        [
            group("g", gpus=4, stages=2),
        ],
        POLICY,
        0,
    ).bindings
    assert binding.score.packing == 1.0
    assert binding.score.fragmentation == 1.0
    (apart,) = place(snapshot, [group("g", gpus=8, stages=2)], POLICY, 0).bindings
    assert apart.score.packing == pytest.approx(1 / 3)
    assert apart.group.wanted == apart.group.requests[GPU] == 8
