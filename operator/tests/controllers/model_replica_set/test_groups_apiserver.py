"""Groups of two stages through the real loop: a real API server and scheduler, KWOK's GPU nodes.

Each node has room for one stage, so a group needs two of them. What a group does when a member fails in other
ways: test_life and test_groups.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import permutations
from typing import Any

import pytest

from flotilla_operator.objects.times import parsed_timestamp
from flotilla_operator.placement.manifests import pinned_node
from flotilla_operator.workloads.engine_pod import LEADER_STAGE
from flotilla_operator.workloads.gate import GATE, is_gated
from flotilla_runtime import contract
from tests.controllers.model_replica_set.half_groups import HalfGroups
from tests.controllers.model_replica_set.stage import Stage
from tests.support.kinds import BIND_TIMEOUT_SECONDS
from tests.support.waiting import DEADLINE_SECONDS, eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

PAIR = {"tensor": 4, "pipeline": 2}
GROUPS_OF_SETS = {"one": 1, "two": 2, "three": 1}


def bound(stage: Stage, name: str = "llama") -> dict[str, str]:
    """The nodes of the engine pods that have one."""
    pods = stage.pods(name)
    return {p["metadata"]["name"]: p["spec"]["nodeName"] for p in pods if p["spec"].get("nodeName")}


def are_gone(stage: Stage, before: set[str]) -> bool:
    return not uids(stage) & before


def uids(stage: Stage) -> set[str]:
    return {pod["metadata"]["uid"] for pod in stage.pods()}


def seconds_with_half_a_group(
    stage: Stage, names: tuple[str, ...], done: Callable[[], bool], seconds: float = DEADLINE_SECONDS
) -> float:
    """The longest time during which a group held accelerators with one pod only, until it is done."""
    groups, end = HalfGroups(stage, *names), time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds:.0f} s, half a group for {groups.longest:.0f} s"
        groups.look()
        time.sleep(0.05)
    return groups.longest


@pytest.mark.holds("groups.md", "`status.groups[]` shows nodes and domain of each replica")
@pytest.mark.holds(
    "decisions/0004-pinning-and-gates.md",
    "A pod of an admitted group is pinned to its node, and the scheduler binds it",
)
def test_both_stages_are_bound_to_the_nodes_that_were_chosen(stage: Stage) -> None:
    nodes = {stage.node(name, gpus=4, rack="r1") for name in "ab"}
    stage.node("c", gpus=4, rack="r2")
    stage.create(replicas=1, parallelism=PAIR)
    stage.wait("Ready", "True")
    held = bound(stage)
    assert set(held.values()) == nodes, "the narrowest domain that has room"
    status = stage.get()["status"]
    (group,) = status["groups"]
    assert sorted(held) == [group["name"], f"{group['name']}-1"]
    assert group["nodes"] == [held[name] for name in sorted(held)]
    assert group["domain"].startswith("topology.kubernetes.io/rack=")
    assert (status["replicas"], status["ready"]) == (1, "1/1")
    assert any(f"{group['name']} is placed on {', '.join(group['nodes'])}" in note for note in stage.notes())
    assert all("schedulingGates" not in pod["spec"] for pod in stage.pods())
    selected = stage.client.get(
        f"/api/v1/namespaces/{stage.namespace}/pods?labelSelector={status['selector']}"
    )["items"]
    assert [pod["metadata"]["name"] for pod in selected] == [group["name"]], "the scale counts leaders"
    service = stage.client.get(f"/api/v1/namespaces/{stage.namespace}/services/llama-engine")
    assert service["spec"]["publishNotReadyAddresses"]


@pytest.mark.holds("groups.md", "All stages are placed together or none")
def test_stages_that_could_not_find_each_other_get_no_pods(stage: Stage) -> None:
    for name in "ab":
        stage.node(name, gpus=4)
    services = f"/api/v1/namespaces/{stage.namespace}/services"
    foreign = {"metadata": {"name": "llama-engine"}, "spec": {"ports": [{"port": 1}]}}
    stage.client.create(services, {"apiVersion": "v1", "kind": "Service", **foreign})
    stage.create(replicas=1, parallelism=PAIR)
    assert "Service llama-engine" in stage.wait("RouterReady", "False", "NameTaken")
    assert "llama-engine" in stage.wait("Placed", "False", "NameTaken")
    assert stage.pods() == []
    stage.client.delete(f"{services}/llama-engine")
    stage.wait("Ready", "True")
    assert len(bound(stage)) == 2


@pytest.mark.holds("groups.md", "A quota never leaves half a replica that holds accelerators")
def test_a_quota_for_one_pod_leaves_none_bound_and_is_said(stage: Stage) -> None:
    for name in "ab":
        stage.node(name, gpus=4)
    path = stage.quota("one-pod", gpus=4)
    stage.create(replicas=1, parallelism=PAIR)
    message = stage.wait("Placed", "False", "BackingOff")
    assert "exceeded quota" in message

    def refused_three_times() -> bool:
        """No pod is bound or let go, until the quota has refused the group three times."""
        assert bound(stage) == {}
        pods = stage.pods()
        gates = [gate["name"] for pod in pods for gate in pod["spec"].get("schedulingGates") or ()]
        assert gates == [GATE] * len(pods)
        return bool(stage.get()["status"]["backoff"]["failures"] >= 3)

    eventually(refused_three_times)
    assert "exceeded quota" in stage.condition("Placed")["message"]
    stage.client.delete(path)
    stage.wait("Ready", "True")


@pytest.mark.holds("groups.md", "Several sets of groups never lock each other out")
@pytest.mark.parametrize("order", random.Random(7).sample([*permutations(GROUPS_OF_SETS)], 3), ids="-".join)
def test_of_four_groups_of_three_sets_on_the_nodes_of_three_three_run_and_the_last_says_why(
    stage: Stage, order: tuple[str, ...]
) -> None:
    for name in "abcdef":
        stage.node(name, gpus=4)
    for name in order:
        stage.create(name, replicas=GROUPS_OF_SETS[name], parallelism=PAIR)

    def three_run() -> bool:
        return sum(len(bound(stage, name)) for name in order) == 6

    assert seconds_with_half_a_group(stage, order, three_run) < 5
    (waits,) = (name for name in order if len(bound(stage, name)) < 2 * GROUPS_OF_SETS[name])
    message = stage.wait("Placed", "False", "InsufficientCapacity", waits)
    assert "6 InsufficientGPUs" in message
    whole = {name: 2 * (groups - (name == waits)) for name, groups in GROUPS_OF_SETS.items()}
    assert {name: len(stage.pods(name)) for name in order} == whole
    assert "GroupReleased" not in stage.events()


@pytest.mark.holds(
    "groups.md", "A member that ends takes its group with it, and the event says which pod and why"
)
def test_an_engine_that_the_kubelet_restarts_takes_its_group_with_it(stage: Stage) -> None:
    for name in "ab":
        stage.node(name, gpus=4)
    stage.create(replicas=1, parallelism=PAIR)
    stage.wait("Ready", "True")
    before = uids(stage)
    (second,) = (pod for pod in stage.pods() if pod["metadata"]["name"].endswith("-1"))
    statuses: list[dict[str, Any]] = second["status"]["containerStatuses"]
    statuses[0]["restartCount"] = 1
    path = f"/api/v1/namespaces/{stage.namespace}/pods/{second['metadata']['name']}/status"
    stage.client.merge(path, {"status": {"containerStatuses": statuses}})
    eventually(lambda: len(uids(stage)) == 2 and not uids(stage) & before)
    stage.wait("Ready", "True")


@pytest.mark.holds(
    "groups.md", "The first failure costs nothing, further ones wait 10 s, 20 s up to five minutes"
)
def test_an_engine_that_crashes_again_and_again_is_tried_less_and_less_often(stage: Stage) -> None:
    for name in "ab":
        stage.node(name, gpus=4)
    stage.create(replicas=1, parallelism=PAIR)
    crashed = {
        "exitCode": 1,
        "message": "Traceback\n  File x\nRuntimeError: NCCL error: unhandled system error",
    }
    for _ in range(2):
        pods = eventually(lambda: found if len(found := stage.pods()) == 2 == len(bound(stage)) else None)
        stage.report(pods[1], state={"terminated": crashed}, restartCount=1)
        gone = {pod["metadata"]["uid"] for pod in pods}
        eventually(partial(are_gone, stage, gone))
    message = stage.wait("Placed", "False", "BackingOff")
    assert "after 2 failures in a row" in message
    assert message.endswith(
        "container engine ended with code 1: RuntimeError: NCCL error: unhandled system error"
    )
    assert stage.get()["status"]["backoff"]["failures"] == 2
    eventually(lambda: len(bound(stage)) == 2)


def half_a_group_that_cannot_be_bound(stage: Stage, *, holds: str = "a") -> str:
    """One pod is bound, the other never will be: its volume is on another node. Returns its node."""
    nodes = {name: stage.node(name, gpus=4) for name in "ab"}
    stage.claim_on(nodes[holds])
    stage.create(replicas=1, parallelism=PAIR, model={"name": "llama", "source": "pvc://models/llama"})
    eventually(lambda: list(bound(stage).values()) == [nodes[holds]])
    (other,) = nodes.keys() - {holds}
    return nodes[other]


def waits_for_its_volume(stage: Stage) -> list[dict[str, Any]]:
    """The pods of a group that is created and whose volume nobody has made; no pod of it can be bound yet."""
    stage.claim()
    stage.create(replicas=1, parallelism=PAIR, model={"name": "llama", "source": "pvc://models/llama"})
    found: list[dict[str, Any]] = eventually(lambda: pods if len(pods := stage.pods()) == 2 else None)
    return found


def annotation(pod: dict[str, Any], name: str) -> str | None:
    found: str | None = pod["metadata"]["annotations"].get(name)
    return found


def pin(pod: dict[str, Any]) -> str:
    found = pinned_node(pod["spec"])
    assert found is not None
    return found


def seconds_since(time_text: str) -> float:
    return (datetime.now(UTC) - parsed_timestamp(time_text)).total_seconds()


def test_a_pod_that_takes_a_node_after_the_gate_is_lifted_has_half_a_group_until_the_deadline_only(
    stage: Stage,
) -> None:
    for name in "ab":
        stage.node(name, gpus=4)
    waits_for_its_volume(stage)
    pods = eventually(lambda: None if any(is_gated(pod["spec"]) for pod in stage.pods()) else stage.pods())
    lifted = pods[0]["metadata"]["annotations"][contract.ANNOTATION_GATE_LIFTED]
    stage.foreign_pod("training", pin(pods[1]), gpus=4)
    stage.volume()
    eventually(lambda: list(bound(stage).values()) == [pin(pods[0])])
    assert seconds_since(lifted) < BIND_TIMEOUT_SECONDS, "the machine is too slow to see half a group"
    seconds_with_half_a_group(stage, ("llama",), lambda: bound(stage) == {})
    assert BIND_TIMEOUT_SECONDS - 1 < seconds_since(lifted) < BIND_TIMEOUT_SECONDS + 10
    (told,) = stage.told_because("GroupReleased")
    assert f"not bound to {pin(pods[1])} within {BIND_TIMEOUT_SECONDS} s" in told
    stage.create("other", replicas=1)
    stage.wait("Ready", "True", name="other")
    assert list(bound(stage, "other").values()) == [pin(pods[0])], "the accelerators are free for others"


@pytest.mark.holds(
    "groups.md",
    "A group that is not bound in 30 s is deleted whole and placed anew without the node that failed",
)
@pytest.mark.parametrize(
    ("holds", "stands", "paused"),
    [
        pytest.param("a", LEADER_STAGE, False, id="the leader is bound"),
        pytest.param("b", "1", True, id="the last pod is bound, and then the set is paused"),
    ],
)
def test_half_a_group_whose_other_pod_never_fits_gives_its_accelerators_back_at_the_deadline(
    stage: Stage, holds: str, stands: str, paused: bool
) -> None:
    half_a_group_that_cannot_be_bound(stage, holds=holds)
    (held,) = (pod for pod in stage.pods() if pod["spec"].get("nodeName"))
    assert held["metadata"]["labels"][contract.LABEL_STAGE] == stands
    (lifted,) = {at for pod in stage.pods() if (at := annotation(pod, contract.ANNOTATION_GATE_LIFTED))}
    stage.change(paused=paused)
    seconds_with_half_a_group(stage, ("llama",), lambda: bound(stage) == {})
    assert BIND_TIMEOUT_SECONDS - 1 < seconds_since(lifted) < BIND_TIMEOUT_SECONDS + 15
    stage.tells("GroupReleased")
    if paused:
        stage.wait("Progressing", "False", "Paused")
        eventually(lambda: stage.pods() == [])
    else:
        assert "BindTimedOut" in stage.wait("Placed", "False", "InsufficientCapacity")


@pytest.mark.holds(
    "groups.md", "A node that goes, is cordoned or tainted before its pod is bound ends the wait at once"
)
@pytest.mark.parametrize(
    ("change", "why", "reason", "counted"),
    [
        pytest.param(
            {"unschedulable": True}, "was cordoned", "InsufficientCapacity", "1 Cordoned", id="cordoned"
        ),
        pytest.param(None, "no longer exists", "NoNodeCanFit", "room for 1 of 2 stages", id="deleted"),
    ],
)
def test_half_a_group_is_released_as_soon_as_its_other_node_is_not_to_be_had(
    stage: Stage, change: dict[str, Any] | None, why: str, reason: str, counted: str
) -> None:
    other = half_a_group_that_cannot_be_bound(stage)
    if change is None:
        stage.client.delete(f"/api/v1/nodes/{other}")
    else:
        stage.client.merge(f"/api/v1/nodes/{other}", {"spec": change})
    eventually(lambda: bound(stage) == {})
    (told,) = stage.told_because("GroupReleased")
    assert f"not bound to {other}: the node {why}" in told
    stage.wait("Placed", "False", reason)
    eventually(lambda: counted in stage.condition("Placed")["message"])


def test_a_pod_that_takes_a_node_as_soon_as_the_group_exists_sends_it_to_other_nodes(stage: Stage) -> None:
    """At the deadline, for the gates are lifted as soon as the group exists."""
    for name in "abc":
        stage.node(name, gpus=4)
    taken = pin(waits_for_its_volume(stage)[1])
    stage.foreign_pod("training", taken, gpus=4)
    stage.volume()
    half = seconds_with_half_a_group(stage, ("llama",), lambda: len(bound(stage)) == 2)
    assert half < BIND_TIMEOUT_SECONDS + 5
    assert taken not in bound(stage).values()
