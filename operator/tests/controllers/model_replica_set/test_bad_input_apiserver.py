"""Mistakes and mishaps through the real loop, each told in the set's conditions: labels that half the nodes
lack, taints that come between planning and binding, engines that crash, hang or have no image.

KWOK plays the kubelet, so what a kubelet says of a container is written by the test; what a real one says is
in e2e/tests/test_engine_faults.py and test_bad_input.py. A quota that refuses pods, products that no node
has, a tensor that fits no node: test_waiting_apiserver. Groups of several pods: test_groups_apiserver.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.objects.times import timestamp
from tests.controllers.model_replica_set.stage import Stage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

RACK = "topology.kubernetes.io/rack"
PAIR = {"tensor": 4, "pipeline": 2}
CRASHED = {"exitCode": 1, "message": "Traceback\n  File x\nValueError: no room for the KV cache\n"}


def nodes_without_rack(stage: Stage, *names: str) -> list[str]:
    """Nodes of four accelerators whose label is missing."""
    made = [stage.node(name, gpus=4) for name in names]
    for name in made:
        label(stage, name, None)
    return made


def label(stage: Stage, node: str, rack: str | None) -> None:
    stage.client.merge(f"/api/v1/nodes/{node}", {"metadata": {"labels": {RACK: rack}}})


def nodes_of_groups(stage: Stage) -> list[set[str]]:
    """The nodes of each group that serves."""
    groups = (stage.get().get("status") or {}).get("groups") or []
    return [set(group["nodes"]) for group in groups if group["phase"] == "Ready"]


@pytest.mark.holds(
    "placement.md",
    "With `required` nodes without the label are left out, and racks of two zones with one name are two",
)
def test_where_half_the_nodes_lack_a_label_that_is_a_must_the_status_counts_them(stage: Stage) -> None:
    with_rack = {stage.node(name, gpus=4, rack="r1") for name in "ab"}
    without = nodes_without_rack(stage, "c", "d")
    placement = {"packPipelineWithin": RACK, "required": True, "nodeSelector": {"stage": stage.namespace}}
    stage.create(parallelism=PAIR, placement=placement)
    eventually(lambda: nodes_of_groups(stage) == [with_rack])
    message = stage.wait("Placed", "False", "InsufficientCapacity")
    assert "2 TopologyLabelMissing" in message
    blocked = stage.get()["status"]["placement"]["blocked"]
    assert {"reason": "TopologyLabelMissing", "nodes": 2} in blocked
    for name in without:
        label(stage, name, "r2")
    stage.wait("Ready", "True")
    assert set(without) in nodes_of_groups(stage)


def test_where_the_label_is_a_wish_nodes_without_it_serve_after_those_that_have_it(stage: Stage) -> None:
    without = set(nodes_without_rack(stage, "a", "b"))
    with_rack = {stage.node(name, gpus=4, rack="r1") for name in "cd"}
    placement = {"packPipelineWithin": RACK, "nodeSelector": {"stage": stage.namespace}}
    stage.create(replicas=1, parallelism=PAIR, placement=placement)
    stage.wait("Ready", "True")
    assert nodes_of_groups(stage) == [with_rack]
    stage.change(replicas=2)
    eventually(lambda: without in nodes_of_groups(stage))


@pytest.mark.holds(
    "groups.md", "A node that goes, is cordoned or tainted before its pod is bound ends the wait at once"
)
def test_a_node_tainted_before_its_group_is_bound_gives_the_group_to_another_node(stage: Stage) -> None:
    first, second = stage.node("a"), stage.node("b")
    stage.foreign_pod("half", second, gpus=2)  # so that this node is the first choice
    stage.claim_on(first)  # and the scheduler binds nothing there
    stage.create(replicas=1, model={"name": "llama", "source": "pvc://models/llama"})
    (pinned,) = eventually(lambda: stage.pods())
    taint = {"key": "team", "value": "search", "effect": "NoSchedule"}
    stage.client.merge(f"/api/v1/nodes/{second}", {"spec": {"taints": [taint]}})
    eventually(lambda: [pod["spec"].get("nodeName") for pod in stage.pods()] == [first])
    (why,) = stage.told_because("GroupReleased")
    assert why == f"{pinned['metadata']['name']}: not bound to {second}: the node has the taint team"
    stage.wait("Ready", "True")


@pytest.mark.holds("groups.md", "What is for a person makes `Stalled` True and a warning")
@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        pytest.param(
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image x"}}},
            "ImagePullFailed",
            "container engine: Back-off pulling image x",
            id="an image that cannot be pulled",
        ),
        pytest.param(
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": CRASHED},
                "restartCount": 3,
            },
            "EngineCrashing",
            "ended with code 1: ValueError: no room for the KV cache; restarted 3 times, each after a longer "
            "wait",
            id="an engine that crashes at its start",
        ),
    ],
)
def test_what_a_person_must_mend_is_said_in_the_kubelets_words_and_passes(
    stage: Stage, said: dict[str, Any], reason: str, words: str
) -> None:
    stage.node("a")
    stage.create(replicas=1)
    stage.wait("Ready", "True")
    (pod,) = stage.pods()
    stage.report(pod, **said)
    assert words in stage.wait("Available", "False", reason)
    assert stage.condition("Ready")["reason"] == reason
    assert stage.condition("Stalled")["status"] == "True"
    assert any(reason in note and words in note for note in stage.notes())
    assert [kept["metadata"]["uid"] for kept in stage.pods()] == [pod["metadata"]["uid"]], "the kubelet tries"
    stage.change(engine={"image": "registry.example/other:1"})
    stage.wait("Ready", "True")


def test_an_engine_that_hangs_at_its_start_is_told_and_left_to_the_kubelet(stage: Stage) -> None:
    stage.node("a")
    stage.create(replicas=1)
    stage.wait("Ready", "True")
    (pod,) = stage.pods()
    since = timestamp(datetime.now(UTC) - timedelta(minutes=20))
    stage.report(pod, state={"running": {"startedAt": since}}, started=False)
    message = stage.wait("Available", "False", "EngineSlowToStart")
    assert f"has run since {since} without giving a first answer" in message
    assert stage.condition("Stalled")["status"] == "False"
    assert [kept["metadata"]["uid"] for kept in stage.pods()] == [pod["metadata"]["uid"]]
