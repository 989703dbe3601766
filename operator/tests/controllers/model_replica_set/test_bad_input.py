"""Sets that no node can ever hold: the whole sentence that a person reads, and that a person must act.

A quota that refuses pods: test_waiting_apiserver. A model that does not fit its accelerators: test_verdicts.
"""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.reasons import Reason
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import cluster, node
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_plan import condition, created, observed, shown
from tests.support.planned import plan_of_set as plan

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
    assert "or change spec.accelerator, spec.parallelism or spec.placement; with spec.placement." in said
    assert said.endswith("nodeProvisioning, a node autoscaler is asked for nodes that would fit")
    assert shown(done, "Stalled") == ("True", Reason.NO_NODE_CAN_FIT)
    assert created(done) == []
