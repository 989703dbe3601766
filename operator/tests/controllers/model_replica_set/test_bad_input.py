"""Sets that no node can ever hold: the whole sentence that a person reads, and that a person must act.

A quota that refuses pods: test_waiting_apiserver. A model that does not fit its accelerators: test_verdicts.
"""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.placement import Node, Taint
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import cluster, node, used
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_plan import condition, created, observed, shown
from tests.support.planned import plan_of_set as plan

SKU = Taint(key="sku", value="gpu")
TEAM = Taint(key="team", value="search", effect="NoExecute")
NODES = cluster(node("a"), node("b", gpus=4), node("c", product="L40S"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"parallelism": {"tensor": 16}},
            "16 nvidia.com/gpu on one node: 0/3 nodes fit: 2 InsufficientGPUs, 1 ProductMismatch",
            id="a tensor that fits no node",
        ),
        pytest.param(
            {"accelerator": {"products": ["H1000"]}},
            "4 nvidia.com/gpu on one node: 0/3 nodes fit: 3 ProductMismatch",
            id="a product that no node has",
        ),
        pytest.param(
            {"accelerator": {"resource": "amd.com/gpu"}},
            "4 amd.com/gpu on one node: 0/3 nodes fit: 2 InsufficientGPUs, 1 ProductMismatch",
            id="accelerators that no node has",
        ),
        pytest.param(
            {"placement": {"nodeSelector": {"pool": "x"}}},
            "4 nvidia.com/gpu on one node: 0/3 nodes fit: 3 SelectorMismatch",
            id="a label that no node has",
        ),
    ],
)
def test_what_no_node_can_ever_hold_is_said_in_one_sentence(changes: dict[str, Any], message: str) -> None:
    done = plan(observed(gpu_set(**changes), snapshot=NODES), NOW)
    assert shown(done, "Placed") == ("False", Reason.NO_NODE_CAN_FIT)
    said = condition(done, "Placed")["message"]
    assert said.startswith(f"2 replicas wait for {message}; a replica would not fit even if nothing ran")
    assert said.endswith(
        "or change spec.accelerator, spec.parallelism or spec.placement; with "
        "spec.placement.nodeProvisioning, a node autoscaler is asked for nodes that would fit"
    )
    assert shown(done, "Stalled") == ("True", Reason.NO_NODE_CAN_FIT)
    assert created(done) == []


@pytest.mark.holds(
    "placement.md",
    "A refusal names the taint that keeps replicas from most of the nodes that could hold one "
    "otherwise, and the fields that tolerate it",
)
@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        pytest.param(
            [node("a", taints=(SKU,)), node("b")],
            "1 InsufficientGPUs, 1 TaintNotTolerated; the taint sku=gpu:NoSchedule can be tolerated in "
            "spec.placement.tolerations, or for all sets with an accelerator in the chart's "
            "placement.tolerations",
            id="a taint, beside a node that is in use",
        ),
        pytest.param(
            [node("a", taints=(SKU, TEAM)), node("b"), node("c", taints=(SKU,))],
            "2 TaintNotTolerated, 1 InsufficientGPUs; the taint sku=gpu:NoSchedule and 1 other can be",
            id="the most frequent of two",
        ),
        pytest.param(
            [node("a", taints=(SKU, TEAM, Taint(key="x"))), node("b")],
            "the taint sku=gpu:NoSchedule and 2 others can be",
            id="of three, by name",
        ),
    ],
)
def test_a_taint_in_the_way_is_named_with_the_fields_that_tolerate_it(nodes: list[Node], named: str) -> None:
    done = plan(observed(gpu_set(replicas=1), snapshot=cluster(*nodes, claims=(used("b", 8),))), NOW)
    assert shown(done, "Placed") == ("False", Reason.INSUFFICIENT_CAPACITY)
    assert named in condition(done, "Placed")["message"]


def test_many_long_taints_make_no_long_message() -> None:
    """A key may have 317 characters and a value 63."""
    taints = [Taint(key=f"{'d' * 253}/{'k' * 60}{n:03}", value="v" * 63) for n in range(200)]
    nodes = [node(f"n{number}", taints=(taint,)) for number, taint in enumerate(taints)]
    done = plan(observed(gpu_set(replicas=1), snapshot=cluster(*nodes)), NOW)
    message = condition(done, "Placed")["message"]
    assert f"{taints[0]} and 199 others" in message
    assert len(message) < 1024
