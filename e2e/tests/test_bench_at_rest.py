"""Counts of the benchmarks of waiting and of many objects. Nothing is started."""

from collections import Counter
from typing import Any

import pytest

from at_rest import is_told, reconciles_in
from flotilla_operator.api.kinds import KINDS
from many.objects import all_objects, is_complete
from waiting.__main__ import set_named
from waiting.rounds import seconds_of_round

METRICS = """\
# TYPE flotilla_controller_reconcile_total counter
flotilla_controller_reconcile_total{kind="ModelReplicaSet",result="success"} 120.0
flotilla_controller_reconcile_total{kind="AgentFleet",result="error"} 2.0
flotilla_controller_reconcile_created{kind="AgentFleet",result="error"} 1.7e+09
flotilla_controller_reconcile_errors_total{kind="AgentFleet"} 2.0
"""


@pytest.mark.holds(
    "performance.md",
    "The benchmarks of resting objects count each reconcile once, and half of their objects wait",
)
def test_all_reconciles_count_once() -> None:
    assert reconciles_in(METRICS) == 122


@pytest.mark.parametrize(
    ("status", "told"),
    [
        pytest.param(None, False, id="a new object"),
        pytest.param({"observedGeneration": 1, "conditions": []}, False, id="about an older spec"),
        pytest.param({"observedGeneration": 2, "conditions": []}, False, id="it says nothing of it"),
        pytest.param(
            {"observedGeneration": 2, "conditions": [{"type": "Placed", "status": "Unknown"}]},
            False,
            id="it does not know yet",
        ),
        pytest.param(
            {"observedGeneration": 2, "conditions": [{"type": "Placed", "status": "False"}]},
            True,
            id="it says why it waits",
        ),
    ],
)
def test_an_object_is_told_when_its_condition_is_about_the_newest_spec(
    status: dict[str, Any] | None, told: bool
) -> None:
    manifest: dict[str, Any] = {"metadata": {"generation": 2}}
    assert is_told(manifest | ({"status": status} if status else {}), "Placed") is told


@pytest.mark.holds(
    "performance.md",
    "The benchmarks of resting objects count each reconcile once, and half of their objects wait",
)
def test_half_of_the_objects_wait_and_all_are_valid() -> None:
    models = {kind.name: kind.model for kind in KINDS}
    made = [manifest for _, manifest in all_objects(1000)]
    for manifest in [*made[:8], set_named("one")]:
        models[manifest["kind"]].model_validate(manifest)
    kinds = Counter(manifest["kind"] for manifest in made)
    assert kinds == {"ModelReplicaSet": 500, "AgentFleet": 250, "VectorIndex": 250}
    assert sum(is_complete(manifest) for manifest in made) == 500
    assert len({(manifest["kind"], manifest["metadata"]["name"]) for manifest in made}) == 1000


def test_a_round_is_timed_only_if_it_fills_the_nodes() -> None:
    assert seconds_of_round(30, nodes=4) > 0
