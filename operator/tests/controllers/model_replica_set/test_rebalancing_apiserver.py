"""A rebalancing through the real loop: two half-filled GPU nodes become a full one and an empty one."""

from typing import Any

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from tests.controllers.model_replica_set.stage import Stage, ready
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

ONE_MORE = {"maxSurge": 1, "maxUnavailable": 0}
ONE_FEWER = {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize(
    ("update", "least_ready"),
    [
        pytest.param(ONE_MORE, 2, id="the replacement comes first"),
        pytest.param(ONE_FEWER, 1, id="without a surge the replica drains first"),
    ],
)
def test_one_group_moves_and_a_node_is_free(stage: Stage, update: dict[str, int], least_ready: int) -> None:
    first, second = stage.node("a"), stage.node("b")
    stage.foreign_pod("training", first, gpus=4)
    stage.create(update=update)
    stage.wait("Ready", "True")
    before = {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in stage.pods()}
    assert set(before.values()) == {first, second}
    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}/pods/training")

    eventually(lambda: rebalance(stage, "show:1")["rebalance"]["phase"] == "Shown")
    (move,) = rebalance(stage, "show:1")["moves"]
    assert (move["gain"], move["acceleratorsRestarted"], move["phase"]) == (0.5, 4, "Proposed")
    assert {pod["metadata"]["uid"] for pod in stage.pods()} == before.keys()

    def is_done() -> bool:
        assert sum(ready(pod) for pod in stage.pods()) >= least_ready, "too many left at once"
        return bool(rebalance(stage, "apply:1")["rebalance"]["phase"] == "Done")

    eventually(is_done)
    now = {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in stage.pods()}
    assert len(now.keys() & before.keys()) == 1, "one group moved, the other did not"
    assert len(set(now.values())) == 1
    assert stage.get()["status"]["placement"]["score"] == 1.0
    stage.tells("GroupMoves", "GroupDraining", "GroupRemoved", "Rebalanced")
    stage.wait("Progressing", "False", "Settled")


def test_a_group_of_two_stages_comes_together_on_a_node_that_it_has_and_one_that_it_has_not(
    stage: Stage,
) -> None:
    first, other = stage.node("a", gpus=4, rack="r1"), stage.node("b", gpus=4, rack="r1")
    stage.node("c", gpus=4, rack="r2")
    apart = [stage.node(name, gpus=4, rack="r3") for name in "ef"]
    stage.foreign_pod("training", other, gpus=4)
    stage.create(parallelism={"tensor": 4, "pipeline": 2})
    stage.wait("Ready", "True")
    before = {pod["metadata"]["uid"] for pod in stage.pods()}
    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}/pods/training")

    eventually(lambda: rebalance(stage, "show")["rebalance"]["phase"] == "Shown")
    (move,) = rebalance(stage, "show")["moves"]
    assert (first in move["fromNodes"], sorted(move["toNodes"])) == (True, sorted([first, other]))

    def is_done() -> bool:
        assert sum(ready(pod) for pod in stage.pods()) >= 2, "the other group serves on"
        return bool(rebalance(stage, "apply")["rebalance"]["phase"] == "Done")

    eventually(is_done)
    pods = stage.pods()
    assert len({pod["metadata"]["uid"] for pod in pods} & before) == 2, "a group moves whole"
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted([first, other, *apart])
    assert "GroupReleased" not in stage.events()


def rebalance(stage: Stage, value: str) -> dict[str, Any]:
    """Ask once, and say how placement stands."""
    found = stage.get()
    if (found["metadata"].get("annotations") or {}).get(ANNOTATION_REBALANCE) != value:
        change = {"metadata": {"annotations": {ANNOTATION_REBALANCE: value}}}
        stage.client.merge(f"{stage.sets}/llama", change)
    placement: dict[str, Any] = found["status"]["placement"]
    if (placement.get("rebalance") or {}).get("asked") != value:
        return {"rebalance": {"phase": None}, "moves": []}
    return placement
