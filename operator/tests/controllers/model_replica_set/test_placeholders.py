"""Plans of a set that asks for nodes: its writes, its condition and what its status remembers. The decision
alone: test_provisioning; with a real autoscaler: test_node_provisioning.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.cluster.writes import Create, Delete
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.observe.memory import lasting_claim
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.placement import Snapshot
from flotilla_operator.replicas.provisioning import Placeholder
from flotilla_operator.workloads.placeholder import is_placeholder, placeholder_of
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import cluster, node
from tests.builders.pods import NOW, time_text
from tests.controllers.model_replica_set.test_plan import condition, member, observed
from tests.support.planned import Plan
from tests.support.planned import plan_of_set as plan

ASKS = {"nodeProvisioning": {"mode": "Placeholders", "timeoutSeconds": 600}}
EMPTY = cluster()


def asking_set(**spec: Any) -> dict[str, Any]:
    return gpu_set(placement=ASKS, **spec)


def planned(
    manifest: dict[str, Any],
    placeholders: Sequence[dict[str, Any]] = (),
    *,
    pods: Sequence[dict[str, Any]] = (),
    snapshot: Snapshot = EMPTY,
    later: float = 0,
) -> Plan:
    seen = replace(observed(manifest, pods, snapshot=snapshot), placeholders=shown(placeholders))
    return plan(seen, NOW + timedelta(seconds=later))


def shown(pods: Sequence[dict[str, Any]]) -> list[Placeholder]:
    return [placeholder_of(pod) for pod in pods]


def made(done: Plan) -> list[dict[str, Any]]:
    return [w.manifest for w in done.writes if isinstance(w, Create) and is_placeholder(w.manifest)]


def engines(done: Plan) -> list[dict[str, Any]]:
    return [w.manifest for w in done.writes if isinstance(w, Create) and not is_placeholder(w.manifest)]


def removed(done: Plan) -> list[str]:
    return [w.ref.name for w in done.writes if isinstance(w, Delete)]


def live(done: Plan, *, nodes: Sequence[str | None] = ()) -> list[dict[str, Any]]:
    """The placeholders that a plan made, as the API server holds them, bound to these nodes."""
    pods = []
    for index, pod in enumerate(made(done)):
        metadata = {
            **pod["metadata"],
            "uid": f"uid-{pod['metadata']['name']}",
            "creationTimestamp": time_text(),
        }
        bound = nodes[index] if index < len(nodes) else None
        pods.append({**pod, "metadata": metadata, "spec": {**pod["spec"], "nodeName": bound}})
    return pods


def remembered(manifest: dict[str, Any], done: Plan) -> dict[str, Any]:
    return {**manifest, "status": done.status}


@pytest.mark.holds(
    "node-autoscalers.md",
    "For each replica that fits nowhere placeholders ask for what its pods ask for, and `Placed` "
    "is NodesRequested",
)
def test_replicas_that_fit_nowhere_ask_for_nodes() -> None:
    done = planned(asking_set())
    assert len(made(done)) == 2
    assert engines(done) == []
    pod = made(done)[0]
    assert pod["spec"]["priorityClassName"] == "flotilla-placeholder"
    assert pod["metadata"]["ownerReferences"][0]["uid"] == "uid-llama"
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    placed = condition(done, "Placed")
    assert placed["reason"] == Reason.NODES_REQUESTED
    assert "2 placeholder pods ask the node autoscaler for nodes; 0 of 2 found a node" in placed["message"]
    assert condition(done, "Stalled")["status"] == "False"
    assert done.look_again_seconds == 75, "the placeholders wake the set, and have a time-out of 600 s"


@pytest.mark.holds("node-autoscalers.md", "A set without `nodeProvisioning` asks for nothing")
@pytest.mark.parametrize(
    "placement",
    [pytest.param({}, id="not said"), pytest.param({"nodeProvisioning": {"mode": "None"}}, id="mode None")],
)
def test_without_the_wish_nothing_is_asked_for(placement: dict[str, Any]) -> None:
    done = planned(gpu_set(placement=placement))
    assert made(done) == []
    assert condition(done, "Placed")["reason"] == Reason.NO_NODE_CAN_FIT


def test_only_what_is_missing_is_asked_for() -> None:
    done = planned(asking_set(replicas=3), snapshot=cluster(node("a", gpus=4)))
    assert len(engines(done)) == 1
    assert len(made(done)) == 2


def test_asking_is_settled_after_one_step() -> None:
    manifest = asking_set()
    first = planned(manifest)
    again = planned(remembered(manifest, first), live(first))
    assert (made(again), removed(again)) == ([], [])


@pytest.mark.holds("node-autoscalers.md", "Placement looks through placeholders, and replicas preempt them")
def test_a_placeholder_holds_nothing_against_a_replica() -> None:
    (pod, _) = live(planned(asking_set()), nodes=["a"])
    assert lasting_claim(pod) is None
    engine = member(asking_set(), "llama-aaaaa", node="a")
    assert lasting_claim(engine) is not None


@pytest.mark.holds("node-autoscalers.md", "Leftover placeholders go only when the replica's pods are bound")
def test_a_replica_that_fits_starts_while_its_placeholder_stays() -> None:
    manifest = asking_set()
    first = planned(manifest)
    there = live(first, nodes=["new"])
    done = planned(remembered(manifest, first), there, snapshot=cluster(node("new", gpus=4)))
    assert len(engines(done)) == 1
    assert (made(done), removed(done)) == ([], [])
    starting = member(manifest, engines(done)[0]["metadata"]["name"], pin="new", age=1)
    still = planned(remembered(manifest, done), there, pods=[starting], snapshot=cluster(node("new", gpus=4)))
    assert (made(still), removed(still)) == ([], [])
    bound = member(manifest, starting["metadata"]["name"], node="new", age=1)
    after = planned(remembered(manifest, done), there, pods=[bound], snapshot=cluster(node("new", gpus=4)))
    assert len(removed(after)) == 1, "one replica less waits"


@pytest.mark.holds(
    "node-autoscalers.md",
    "After `timeoutSeconds` all placeholders go and `Placed` is NodeProvisioningTimedOut",
)
@pytest.mark.holds("node-autoscalers.md", "A change of the spec tries at once")
def test_past_the_time_out_nothing_is_left_and_the_condition_says_what_did_not_come() -> None:
    manifest = asking_set()
    first = planned(manifest)
    done = planned(remembered(manifest, first), live(first), later=600)
    assert len(removed(done)) == 2
    assert made(done) == []
    placed = condition(done, "Placed")
    assert placed["reason"] == Reason.NODE_PROVISIONING_TIMED_OUT
    assert "2 of 2 placeholder pods found no node within 600 s" in placed["message"]
    assert "2026-05-01T12:20:00Z" in placed["message"]
    assert condition(done, "Stalled")["status"] == "True", "somebody should look at the pool's limit"
    manifest = remembered(manifest, done)
    waiting = planned(manifest, later=1199)
    assert made(waiting) == []
    assert condition(waiting, "Placed")["reason"] == Reason.NODE_PROVISIONING_TIMED_OUT
    assert waiting.look_again_seconds == 1
    assert len(made(planned(manifest, later=1200))) == 2
    changed = {**manifest, "metadata": {**manifest["metadata"], "generation": 2}}
    assert len(made(planned(changed, later=601))) == 2, "a changed spec is tried at once"


def failed(seconds_ago: float) -> dict[str, Any]:
    times = {"failedTime": time_text(seconds_ago), "untilTime": time_text(seconds_ago - 40)}
    return {"backoff": {"failures": 4, "message": "llama-x: NCCL error", **times}}


HELD_BACK = [
    pytest.param(failed(0), (), id="they back off"),
    pytest.param({}, (Missing(reason=Reason.SECRET_MISSING, message="m"),), id="a secret is missing"),
]


@pytest.mark.holds(
    "node-autoscalers.md",
    "While replicas are held back it asks for nothing new, and a time-out is not counted",
)
@pytest.mark.parametrize(("status", "missing"), HELD_BACK)
def test_while_replicas_are_held_back_what_was_asked_for_stays_until_its_time_out(
    status: dict[str, Any], missing: tuple[Missing, ...]
) -> None:
    manifest = asking_set()
    asked = planned(manifest)
    there = live(asked, nodes=["new"])
    manifest["status"] = {**(asked.status or {}), **status}
    seen = replace(observed(manifest, snapshot=EMPTY), placeholders=shown(there), missing=missing)
    done = plan(seen, NOW)
    assert (made(done), removed(done)) == ([], [])
    assert len(removed(plan(seen, NOW + timedelta(seconds=600)))) == 2


@pytest.mark.holds(
    "node-autoscalers.md",
    "While replicas are held back it asks for nothing new, and a time-out is not counted",
)
@pytest.mark.parametrize(("status", "missing"), HELD_BACK)
def test_while_replicas_are_held_back_no_more_is_asked_for_than_wait(
    status: dict[str, Any], missing: tuple[Missing, ...]
) -> None:
    asked = planned(asking_set(replicas=5))
    manifest = asking_set(replicas=1)
    manifest["status"] = {**(asked.status or {}), **status}
    seen = replace(observed(manifest, snapshot=EMPTY), placeholders=shown(live(asked)), missing=missing)
    done = plan(seen, NOW)
    assert (len(made(done)), len(removed(done))) == (0, 4)
    if status:
        manifest["status"] |= failed(-600)
    later = replace(observed(manifest, snapshot=EMPTY), placeholders=shown(live(asked)), missing=missing)
    done = plan(later, NOW + timedelta(seconds=600))
    assert len(removed(done)) == 5
    assert done.status is not None
    assert done.status["placement"]["nodeProvisioning"] is None, "the nodes are not what is missing"


@pytest.mark.parametrize(("status", "missing"), HELD_BACK)
def test_what_became_of_asking_is_remembered_meanwhile(
    status: dict[str, Any], missing: tuple[Missing, ...]
) -> None:
    manifest = asking_set()
    asked = planned(manifest)
    given_up = planned(remembered(manifest, asked), live(asked), later=600)
    manifest["status"] = {**(given_up.status or {}), **status}
    if status:
        manifest["status"] |= failed(-600)
    seen = replace(observed(manifest, snapshot=EMPTY), missing=missing)
    done = plan(seen, NOW + timedelta(seconds=610))
    assert done.status is not None
    assert done.status["placement"]["nodeProvisioning"]["timeouts"] == 1
    assert made(done) == []


@pytest.mark.holds("node-autoscalers.md", "Scaled down, paused or without the wish it keeps no placeholder")
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"replicas": 0}, id="scaled down"),
        pytest.param({"paused": True}, id="paused"),
        pytest.param({"placement": {"nodeProvisioning": {"mode": "None"}}}, id="mode None"),
        pytest.param({"placement": {"nodeProvisioning": None}}, id="the wish is gone"),
    ],
)
def test_whoever_wants_no_nodes_keeps_no_placeholders(spec: dict[str, Any]) -> None:
    there = live(planned(asking_set()))
    done = planned(asking_set(**spec) if "placement" not in spec else gpu_set(**spec), there)
    assert sorted(removed(done)) == sorted(pod["metadata"]["name"] for pod in there)
    assert made(done) == []


def test_another_shape_replaces_the_placeholders() -> None:
    there = live(planned(asking_set()))
    done = planned(asking_set(parallelism={"tensor": 8}), there)
    assert len(removed(done)) == len(made(done)) == 2


def test_what_is_remembered_is_what_the_api_knows() -> None:
    manifest = asking_set()
    first = planned(manifest)
    done = planned(remembered(manifest, first), live(first), later=600)
    parsed = ModelReplicaSet.model_validate(remembered(manifest, done)).status
    assert parsed is not None
    assert parsed.placement is not None
    assert parsed.placement.node_provisioning is not None
    assert parsed.placement.node_provisioning.timeouts == 1
