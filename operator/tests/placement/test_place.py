"""Where groups go, and what is said of those that do not fit.

Properties over any cluster: test_properties.py; reading nodes and pods of the API: test_manifests.py.
"""

import pytest

from flotilla_operator.placement import (
    Group,
    Node,
    RefusalReason,
    Snapshot,
    Standing,
    Taint,
    Toleration,
    place,
    score,
)
from flotilla_operator.placement.groups import ZONE
from flotilla_operator.placement.score import Score
from tests.builders.placement import GPU, POLICY, cluster, group, node, used

AMD = "amd.com/gpu"
GKE = "cloud.google.com/gke-accelerator"


def bindings(snapshot: Snapshot, *groups: Group, now: float = 0) -> dict[str, str]:
    placement = place(snapshot, groups, POLICY, now)
    return {binding.group.name: binding.nodes[0] for binding in placement.bindings}


@pytest.mark.holds("placement.md", "Priority, then age in minutes; within a minute the largest first")
@pytest.mark.holds("placement.md", "A group of higher priority is never held back by one of lower")
@pytest.mark.holds("placement.md", "Groups that are only planned may move to make room")
@pytest.mark.holds("placement.md", "Whole nodes stay whole, and the node with the least left over is taken")
@pytest.mark.holds(
    "decisions/0010-placement-order.md", "No group loses its place to a younger one of another minute"
)
@pytest.mark.parametrize(
    ("snapshot", "groups", "expected"),
    [
        pytest.param(
            cluster(node("a"), node("b"), claims=(used("b", 5),)),
            [group("g", gpus=2)],
            {"g": "b"},
            id="the node with the least left over is taken, so whole nodes stay whole",
        ),
        pytest.param(
            cluster(node("a"), node("b")),
            [group("small", gpus=2), group("large", gpus=8, since=60)],
            {"small": "a", "large": "b"},
            id="equal nodes are taken by name",
        ),
        pytest.param(
            cluster(node("a")),
            [group("small", gpus=2), group("large", gpus=8, since=59)],
            {"large": "a"},
            id="of those that came within a minute the largest is served first",
        ),
        pytest.param(
            cluster(node("a")),
            [group("small", gpus=2), group("large", gpus=8, since=60)],
            {"small": "a"},
            id="a minute earlier is earlier, whatever the size",
        ),
        pytest.param(
            cluster(node("a", gpus=4), node("b", gpus=4, labels={"pool": "fast"})),
            [group("any", gpus=4), group("choosy", gpus=4, since=60, selector={"pool": "fast"})],
            {"any": "a", "choosy": "b"},
            id="both fit, the first by name",
        ),
        pytest.param(
            cluster(node("a", gpus=4, labels={"pool": "fast"}), node("b", gpus=4)),
            [group("any", gpus=4), group("choosy", gpus=4, since=60, selector={"pool": "fast"})],
            {"any": "b", "choosy": "a"},
            id="who is planned moves for one that fits nowhere else",
        ),
        pytest.param(
            cluster(node("a"), claims=(used("a", 4),)),
            [group("old", gpus=8, since=0), group("young", gpus=4, since=5)],
            {"young": "a"},
            id="a younger group passes one that does not fit",
        ),
        pytest.param(
            cluster(node("a", gpus=4)),
            [group("older", gpus=4, since=0), group("urgent", gpus=4, since=9, priority=100)],
            {"urgent": "a"},
            id="priority comes before age",
        ),
        pytest.param(
            cluster(node("a", gpus=4), claims=(used("a", 4), used("gone", 3))),
            [group("g", gpus=1)],
            {},
            id="GPUs of anybody's pods count, those on unknown nodes do not",
        ),
        pytest.param(
            cluster(node("a", taints=(Taint(key="gpu", value="yes"),)), node("b", gpus=1)),
            [group("g", gpus=4, tolerations=(Toleration(key="gpu", operator="Exists"),))],
            {"g": "a"},
            id="a tolerated taint keeps nobody away",
        ),
        pytest.param(
            cluster(node("a", taints=(Taint(key="gpu", effect="PreferNoSchedule"),))),
            [group("g", gpus=4)],
            {"g": "a"},
            id="a taint that only prefers is no refusal",
        ),
        pytest.param(
            cluster(node("a"), node("b", labels={"pool": "fast"})),
            [group("g", gpus=4, selector={"pool": "fast"})],
            {"g": "b"},
            id="the node selector is obeyed",
        ),
        pytest.param(
            cluster(node("a", product="A100"), node("b", product="H100")),
            [group("g", products=frozenset({"H100", "H200"}))],
            {"g": "b"},
            id="any of the products will do",
        ),
        pytest.param(
            cluster(node("a", product=None, labels={"amd.com/gpu.product-name": "MI300X"})),
            [group("g", products=frozenset({"MI300X"}))],
            {"g": "a"},
            id="a product may stand under any of the configured labels",
        ),
        pytest.param(
            cluster(
                node("a", product=None, labels={GKE: "nvidia-l4"}),
                node("b", product=None, labels={GKE: "nvidia-h100-80gb"}),
            ),
            [group("g", products=frozenset({"nvidia-h100-80gb"}))],
            {"g": "b"},
            id="GKE says the product under a label and in words of its own",
        ),
        pytest.param(
            cluster(node("a"), node("b", product=None, resource=AMD)),
            [group("amd", gpus=8, resource=AMD), group("nvidia", gpus=8)],
            {"amd": "b", "nvidia": "a"},
            id="accelerators of another maker are another resource",
        ),
    ],
)
def test_groups_go_where_they_should(
    snapshot: Snapshot, groups: list[Group], expected: dict[str, str]
) -> None:
    assert bindings(snapshot, *groups) == expected


@pytest.mark.holds("placement.md", "Every node is counted under the first reason against it, in one sentence")
def test_the_whole_sentence_of_a_refusal() -> None:
    nodes = [node(f"full-{i}", gpus=8) for i in range(8)] + [
        node(f"old-{i}", product="A100") for i in range(4)
    ]
    snapshot = cluster(*nodes, claims=tuple(used(f"full-{i}", 6) for i in range(8)))
    (refusal,) = place(snapshot, [group("g", gpus=4, products=frozenset({"H100"}))], POLICY, 0).refusals
    assert refusal.message == "0/12 nodes fit: 8 InsufficientGPUs, 4 ProductMismatch"
    assert refusal.fits_when_empty


@pytest.mark.holds("placement.md", "Every node is counted under the first reason against it, in one sentence")
@pytest.mark.holds("placement.md", "A taint that the pods do not tolerate is TaintNotTolerated")
@pytest.mark.parametrize(
    ("reason", "the_node", "the_group"),
    [
        pytest.param(RefusalReason.NODE_NOT_READY, node("a", ready=False), group("g"), id="not ready"),
        pytest.param(RefusalReason.CORDONED, node("a", cordoned=True), group("g"), id="cordoned"),
        pytest.param(
            RefusalReason.SELECTOR_MISMATCH, node("a"), group("g", selector={"x": "y"}), id="other label"
        ),
        pytest.param(
            RefusalReason.TAINT_NOT_TOLERATED,
            node("a", taints=(Taint(key="k", effect="NoExecute"),)),
            group("g", tolerations=(Toleration(key="k", operator="Exists", effect="NoSchedule"),)),
            id="tolerated for another effect only",
        ),
        pytest.param(
            RefusalReason.PRODUCT_MISMATCH,
            node("a", product=None),
            group("g", products=frozenset({"H100"})),
            id="a node that does not say its product",
        ),
        pytest.param(
            RefusalReason.BIND_TIMED_OUT,
            node("a"),
            group("g", left_out=frozenset({"a"})),
            id="just failed there",
        ),
        pytest.param(
            RefusalReason.INSUFFICIENT_GPUS, node("a", gpus=4), group("g", gpus=5), id="too few GPUs"
        ),
        pytest.param(
            RefusalReason.INSUFFICIENT_RESOURCES, node("a", cores=2), group("g", cores=3), id="too few cores"
        ),
    ],
)
def test_each_reason_is_said(reason: RefusalReason, the_node: Node, the_group: Group) -> None:
    (refusal,) = place(cluster(the_node), [the_group], POLICY, 0).refusals
    assert dict(refusal.counts) == {reason: 1}


@pytest.mark.holds(
    "placement.md",
    "With `required` nodes without the label are left out, and racks of two zones with one name are two",
)
@pytest.mark.holds("placement.md", "Every node is counted under the first reason against it, in one sentence")
@pytest.mark.holds("placement.md", "A group that does not fit as a whole says how many stages have room")
@pytest.mark.parametrize(
    ("snapshot", "waiting", "sentence", "reason"),
    [
        pytest.param(
            cluster(node("a"), node("b", labels={ZONE: "x"})),
            [group("g", gpus=4, stages=4, pack_within=ZONE, required=True)],
            "0/2 nodes fit: 1 TooFewForAllStages, 1 TopologyLabelMissing; there is room for 2 of 4 stages",
            RefusalReason.TOPOLOGY_LABEL_MISSING,
            id="a node that does not say its zone cannot be in one",
        ),
        pytest.param(
            cluster(node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "y"}), node("c", gpus=1)),
            [group("g", gpus=8, stages=2, pack_within=ZONE, required=True)],
            "0/3 nodes fit: 2 NoDomainWithRoom, 1 TopologyLabelMissing; there is room for 2 of 2 stages, but "
            "only for 1 within one topology.kubernetes.io/zone",
            RefusalReason.NO_DOMAIN_WITH_ROOM,
            id="enough GPUs, but not in one zone",
        ),
        pytest.param(
            cluster(node("a"), node("b", gpus=4)),
            [group("g", gpus=8, stages=2)],
            "0/2 nodes fit: 1 InsufficientGPUs, 1 TooFewForAllStages; there is room for 1 of 2 stages",
            RefusalReason.TOO_FEW_FOR_ALL_STAGES,
            id="room for one stage of two",
        ),
        pytest.param(
            cluster(
                node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "y"}), node("c", labels={ZONE: "z"})
            ),
            [group("g", gpus=8, stages=2, pack_within=ZONE, required=True)],
            "0/3 nodes fit: 3 NoDomainWithRoom; there is room for 2 of 2 stages, but only for 1 within one "
            "topology.kubernetes.io/zone",
            RefusalReason.NO_DOMAIN_WITH_ROOM,
            id="room for more stages than the group has, in as many zones",
        ),
        pytest.param(
            cluster(
                node("a", labels={ZONE: "x"}),
                node("b", labels={ZONE: "y"}, cordoned=True),
                standing=(Standing(owner="default/llama", nodes=("a",)),),
            ),
            [group("g", spread_across=ZONE, required=True)],
            "0/2 nodes fit: 1 Cordoned, 1 SpreadExceeded",
            RefusalReason.SPREAD_EXCEEDED,
            id="another replica in this zone would be one too many",
        ),
        pytest.param(
            cluster(node("a"), claims=(used("a", 4),)),
            [group("g", gpus=2, since=100), group("large", gpus=8, since=0)],
            "0/1 nodes fit: 1 KeptForOlderGroup",
            RefusalReason.KEPT_FOR_OLDER_GROUP,
            id="one that is larger has waited for ten minutes",
        ),
    ],
)
def test_each_reason_of_a_group_is_said(
    snapshot: Snapshot, waiting: list[Group], sentence: str, reason: RefusalReason
) -> None:
    refusal = place(snapshot, waiting, POLICY, 600).refusal_of("default/llama", "g")
    assert refusal is not None
    assert refusal.message == sentence
    assert reason in refusal.counts


def test_sets_that_are_refused_for_the_same_reasons_share_one_explanation() -> None:
    snapshot = cluster(
        node("a", labels={ZONE: "x"}),
        node("b", labels={ZONE: "y"}),
        claims=(used("a", 4), used("b", 8)),
        standing=tuple(Standing(owner=owner, nodes=("a",)) for owner in ("d/crowded", "d/too")),
    )
    waiting = [
        group("g", owner=owner, gpus=4, stages=2, spread_across=ZONE, required=True)
        for owner in ("d/crowded", "d/new", "d/too")
    ]
    crowded, new, too = place(snapshot, waiting, POLICY, 0).refusals
    assert crowded.counts is too.counts
    assert crowded.counts == {RefusalReason.SPREAD_EXCEEDED: 1, RefusalReason.INSUFFICIENT_GPUS: 1}
    assert new.counts == {RefusalReason.TOO_FEW_FOR_ALL_STAGES: 1, RefusalReason.INSUFFICIENT_GPUS: 1}


@pytest.mark.holds("placement.md", "A younger group passes one that does not fit, for ten minutes")
def test_room_is_kept_for_a_group_that_waited_too_long() -> None:
    snapshot = cluster(node("a"), node("b"), claims=(used("a", 6), used("b", 4)))
    waiting = [group("large", gpus=8, since=0), group("small", gpus=2, since=100, owner="default/other")]
    assert bindings(snapshot, *waiting, now=599) == {"small": "a"}
    assert bindings(snapshot, *waiting, now=600) == {"small": "a"}, "b is kept, for it lacks the least"
    tight = cluster(node("b"), claims=(used("b", 4),))
    assert bindings(tight, *waiting, now=599) == {"small": "b"}
    kept = place(tight, waiting, POLICY, 600)
    refusal = kept.refusal_of("default/other", "small")
    assert refusal is not None
    assert dict(refusal.counts) == {RefusalReason.KEPT_FOR_OLDER_GROUP: 1}


def test_an_impossible_group_keeps_no_node() -> None:
    snapshot = cluster(node("a", gpus=4))
    waiting = [group("impossible", gpus=8), group("small", gpus=2, since=1)]
    placement = place(snapshot, waiting, POLICY, 10_000)
    assert placement.binding_of("default/llama", "small") is not None
    refusal = placement.refusal_of("default/llama", "impossible")
    assert refusal is not None
    assert not refusal.fits_when_empty


def test_a_cluster_without_nodes_is_said_so() -> None:
    (refusal,) = place(cluster(), [group("g")], POLICY, 0).refusals
    assert refusal.message == "0/0 nodes fit: the cluster has no nodes"


@pytest.mark.holds("placement.md", "Packing, fragmentation and spread are counted as the page says")
def test_the_score_is_the_share_of_used_gpus_on_used_nodes() -> None:
    snapshot = cluster(node("a"), node("b"), node("c"), claims=(used("a", 8), used("b", 4)))
    assert score(snapshot, POLICY, GPU, [("a",)]).value == 1.0
    assert score(snapshot, POLICY, GPU, [("a",), ("b",), ("b",)]).value == 0.75
    assert score(snapshot, POLICY, GPU, []).value is None


@pytest.mark.holds("placement.md", "Packing, fragmentation and spread are counted as the page says")
@pytest.mark.parametrize(
    ("groups", "spread"),
    [
        pytest.param([("x0",), ("y0",)], 1.0, id="one in each zone"),
        pytest.param([("x0",), ("x1",), ("y0",)], 1.0, id="three in two zones cannot lie more evenly"),
        pytest.param([("x0",), ("x1",), ("x0",), ("y0",)], 0.75, id="one of four is too many in its zone"),
        pytest.param([("x0",), ("x1",)], 0.5, id="both in one zone"),
        pytest.param([("nowhere",)], None, id="a node without a zone says nothing"),
    ],
)
def test_the_spread_is_the_share_of_replicas_that_are_not_too_many_in_their_domain(
    groups: list[tuple[str, ...]], spread: float | None
) -> None:
    zones = {"x0": "x", "x1": "x", "y0": "y"}
    nodes = [node(name, labels={ZONE: zone}) for name, zone in zones.items()]
    assert score(cluster(*nodes, node("nowhere")), POLICY, GPU, groups, spread_across=ZONE).spread == spread


@pytest.mark.holds(
    "placement.md", "The score has three parts that weigh 4, 2 and 1, and what is not known has no weight"
)
@pytest.mark.parametrize(
    ("parts", "value"),
    [
        pytest.param(Score(packing=1, fragmentation=0, spread=0), 0.57, id="packing is four parts of seven"),
        pytest.param(Score(packing=0, fragmentation=1, spread=0), 0.29, id="fragmentation two"),
        pytest.param(Score(packing=0, fragmentation=0, spread=1), 0.14, id="spread one"),
        pytest.param(Score(fragmentation=1, spread=0), 0.67, id="what is not known has no weight"),
        pytest.param(Score(spread=0.25), 0.25, id="one part alone is the score"),
        pytest.param(Score(), None, id="nothing is placed"),
    ],
)
def test_the_parts_of_the_score_weigh_four_to_two_to_one(parts: Score, value: float | None) -> None:
    assert parts.value == value
