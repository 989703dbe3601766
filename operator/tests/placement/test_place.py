"""Where groups go, and what is said of those that do not fit.

Properties over any cluster: test_properties.py; reading nodes and pods of the API: test_manifests.py.
"""

import pytest

from flotilla_operator.placement import Group, Node, RefusalReason, Snapshot, Taint, Toleration, place, score
from tests.builders.placement import GPU, POLICY, cluster, group, node, used


def bindings(snapshot: Snapshot, *groups: Group, now: float = 0) -> dict[str, str]:
    placement = place(snapshot, groups, POLICY, now)
    return {binding.group.name: binding.nodes[0] for binding in placement.bindings}


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
            [group("small", gpus=2), group("large", gpus=8, since=1)],
            {"small": "a", "large": "b"},
            id="equal nodes are taken by name",
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
    ],
)
def test_groups_go_where_they_should(
    snapshot: Snapshot, groups: list[Group], expected: dict[str, str]
) -> None:
    assert bindings(snapshot, *groups) == expected


def test_the_whole_sentence_of_a_refusal() -> None:
    nodes = [node(f"full-{i}", gpus=8) for i in range(8)] + [
        node(f"old-{i}", product="A100") for i in range(4)
    ]
    snapshot = cluster(*nodes, claims=tuple(used(f"full-{i}", 6) for i in range(8)))
    (refusal,) = place(snapshot, [group("g", gpus=4, products=frozenset({"H100"}))], POLICY, 0).refusals
    assert refusal.message == "0/12 nodes fit: 8 InsufficientGPUs, 4 ProductMismatch"
    assert refusal.fits_when_empty


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


def test_every_reason_is_covered_here() -> None:
    parametrized = test_each_reason_is_said.pytestmark[0].args[1]
    shown = {row.values[0] for row in parametrized} | {RefusalReason.KEPT_FOR_OLDER_GROUP}
    assert shown == set(RefusalReason)


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


def test_the_score_is_the_share_of_used_gpus_on_used_nodes() -> None:
    snapshot = cluster(node("a"), node("b"), node("c"), claims=(used("a", 8), used("b", 4)))
    assert score(snapshot, GPU, frozenset({"a"})).value == 1.0
    assert score(snapshot, GPU, frozenset({"a", "b"})).value == 0.75
    assert score(snapshot, GPU, frozenset()).value is None
