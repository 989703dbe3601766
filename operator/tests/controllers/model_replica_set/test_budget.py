"""How many engine pods evictions must leave healthy. Evictions that the API server lets through or refuses:
test_rollout_apiserver.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flotilla_operator.cluster.writes import Apply
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from tests.builders.model_replica_set import gpu_set, model_replica_set
from tests.builders.placement import GPU, cluster, node
from tests.builders.pods import NOW, stage_pod, time_text
from tests.controllers.model_replica_set.test_plan import (
    drained,
    is_engine_budget,
    member,
    observed,
    revision_of_set,
)
from tests.support.planned import Plan
from tests.support.planned import plan_of_set as plan

ROOM_FOR_FIVE = cluster(*(node(name, gpus=4) for name in "abcde"))


def budget(done: Plan) -> int:
    (found,) = [w.manifest for w in done.writes if isinstance(w, Apply) and is_engine_budget(w.manifest)]
    number: int = found["spec"]["minAvailable"]
    return number


def serving(manifest: Mapping[str, Any], nodes: str, **fields: Any) -> list[dict[str, Any]]:
    """A replica on each of these nodes."""
    where = {"ready": True} | fields
    return [member(dict(manifest), f"llama-{name}", node=name, pin=name, **where) for name in nodes]


@pytest.mark.holds(
    "draining.md", "A drain gets through on a full cluster, since replicas that wait for room do not count"
)
@pytest.mark.parametrize(
    ("wanted", "pods", "kept"),
    [
        pytest.param(5, [("abcde", {})], 4, id="all but one of those that serve"),
        pytest.param(10, [("abcde", {})], 4, id="what waits for room does not count"),
        pytest.param(
            10, [("abcd", {}), ("e", {"deleting": True})], 4, id="one at a time: a leaving one does"
        ),
        pytest.param(10, [("abcd", {}), ("e", {"ready": False})], 4, id="one that restarts does"),
        pytest.param(5, [("abcd", {})], 4, id="one that gets its pods in this plan does"),
        pytest.param(
            4,
            [("abcd", {}), ("e", {"ready": False})],
            3,
            id="one beside the wanted ones does not before it serves",
        ),
        pytest.param(1, [("a", {})], 0, id="the only one may be evicted"),
        pytest.param(0, [], 0, id="none is wanted"),
    ],
)
def test_evictions_leave(wanted: int, pods: Sequence[tuple[str, dict[str, Any]]], kept: int) -> None:
    manifest = gpu_set(replicas=wanted)
    there = [pod for nodes, fields in pods for pod in serving(manifest, nodes, **fields)]
    assert budget(plan(observed(manifest, there, snapshot=ROOM_FOR_FIVE), NOW)) == kept


def test_what_drains_comes_on_top_while_it_is_healthy() -> None:
    manifest = gpu_set(replicas=10)
    pods = serving(manifest, "abcd")
    leaving = [drained(pod, 5) for pod in serving(manifest, "e", revision="old")]
    assert budget(plan(observed(manifest, [*pods, *leaving], snapshot=ROOM_FOR_FIVE), NOW)) == 4
    few = {**manifest, "spec": {**manifest["spec"], "replicas": 4}}
    assert budget(plan(observed(few, [*pods, *leaving], snapshot=ROOM_FOR_FIVE), NOW)) == 4


@pytest.mark.holds("draining.md", "Replicas for which nodes are asked, and those that back off, count")
def test_failed_groups_count_while_they_back_off() -> None:
    backoff = {"failures": 3, "failedTime": time_text(1), "untilTime": time_text(-19)}
    manifest = {**gpu_set(replicas=5), "status": {"backoff": backoff}}
    assert budget(plan(observed(manifest, serving(manifest, "abcd"), snapshot=ROOM_FOR_FIVE), NOW)) == 4


def test_replicas_that_lack_something_do_not_count() -> None:
    manifest = gpu_set(replicas=5)
    lacking = Missing(reason=Reason.MODEL_DOES_NOT_FIT, message="too large")
    pods = serving(manifest, "abcd")
    assert budget(plan(observed(manifest, pods, snapshot=ROOM_FOR_FIVE, missing=(lacking,)), NOW)) == 3


@pytest.mark.holds(
    "draining.md",
    "A replica whose pods a quota refuses counts for the deadline and 90 s, or until another has its room",
)
@pytest.mark.parametrize(
    ("reason", "waits", "newest", "kept"),
    [
        pytest.param("QuotaExceeded", 60, 900, 4, id="a quota may still hold the pods of the one that went"),
        pytest.param("QuotaExceeded", 389, 900, 4, id="those have their drain's deadline and a try follows"),
        pytest.param("QuotaExceeded", 391, 900, 3, id="after that it is too small"),
        pytest.param("QuotaExceeded", 60, 30, 3, id="another replica has got their room"),
        pytest.param("Forbidden", 60, 900, 3, id="what is forbidden is nobody's to give back"),
    ],
)
def test_a_replica_whose_pods_are_refused_counts_while_it_may_still_come(
    reason: str, waits: float, newest: float, kept: int
) -> None:
    manifest = gpu_set(replicas=5, drain={"deadlineSeconds": 300})
    refused = {
        "type": "Placed",
        "status": "False",
        "reason": reason,
        "message": "over",
        "lastTransitionTime": time_text(),
    }
    waiting = {"name": "llama-new", "phase": "Waiting", "sinceTime": time_text(waits)}
    manifest["metadata"]["generation"] = 1
    manifest["status"] = {"observedGeneration": 1, "conditions": [refused], "groups": [waiting]}
    pods = [*serving(manifest, "abc", age=900), *serving(manifest, "d", age=newest)]
    assert budget(plan(observed(manifest, pods, snapshot=ROOM_FOR_FIVE), NOW)) == kept


@pytest.mark.holds("draining.md", "Replicas for which nodes are asked, and those that back off, count")
def test_replicas_for_which_nodes_are_asked_are_coming() -> None:
    manifest = gpu_set(replicas=10, placement={"nodeProvisioning": {"mode": "Placeholders"}})
    assert budget(plan(observed(manifest, serving(manifest, "abcde"), snapshot=ROOM_FOR_FIVE), NOW)) == 9


def test_of_replicas_left_to_the_scheduler_those_that_it_finds_no_node_for_do_not_count() -> None:
    manifest = model_replica_set(replicas=4)
    pods = [member(manifest, f"llama-{name}", node="a", ready=True) for name in "xy"]
    pods.append(member(manifest, "llama-new"))
    pods.append(member(manifest, "llama-stuck", scheduler="0/2 nodes are available: 2 Insufficient cpu."))
    assert budget(plan(observed(manifest, pods), NOW)) == 2


def test_groups_count_with_the_stages_that_they_have_and_one_pod_may_go() -> None:
    manifest = gpu_set(replicas=3, parallelism={"tensor": 4, "pipeline": 2})
    fields: dict[str, Any] = {"revision": revision_of_set(manifest), "ready": True, "requests": {GPU: "4"}}
    pods = [
        stage_pod(stage, group=f"llama-{group}", pin=name, node=name, **fields)
        for group, nodes in (("one", "ab"), ("two", "cd"))
        for stage, name in enumerate(nodes)
    ]
    snapshot = cluster(*(node(name, gpus=4) for name in "abcd"))
    assert budget(plan(observed(manifest, pods, snapshot=snapshot), NOW)) == 3
    before = gpu_set(replicas=2, parallelism={"tensor": 4, "pipeline": 1})
    assert budget(plan(observed(before, pods, snapshot=snapshot), NOW)) == 3, "old groups have two pods each"
