"""Life of a group by its pods: the phase, what troubles it, and what ends it. What is done about it:
test_plan.
"""

from dataclasses import replace
from typing import Any

import pytest

from flotilla_operator.objects.unseen import unseen_uid
from flotilla_operator.placement import Claim, Snapshot, Taint, Topology
from flotilla_operator.placement.manifests import claim_of
from flotilla_operator.replicas.group import Ending, EndingReason, Phase, ReplicaGroup, group_of
from flotilla_operator.replicas.leaving.endings import ending_of
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_operator.replicas.trouble import Trouble, TroubleReason, slow_start
from flotilla_operator.workloads.group_pods import member_of
from flotilla_operator.workloads.pod_trouble import router_trouble
from tests.builders.placement import GPU, POLICY, node, used
from tests.builders.pods import (
    NOW,
    container_status,
    engine_pod,
    stage_pod,
    terminated,
    time_text,
    waiting,
)

FOUR = {GPU: "4"}
TAINTED = Taint(key="team", value="search", effect="NoExecute")
NODES = (
    node("a"),
    node("b"),
    node("cordoned", cordoned=True),
    node("not-ready", ready=False),
    node("tainted", taints=(TAINTED,)),
)


def seen(*pods: dict[str, Any], claims: tuple[Claim, ...] = ()) -> ReplicaGroup:
    ours = tuple(claim for pod in pods if (claim := claim_of(pod)) is not None)
    snapshot = Snapshot(topology=Topology.of(NODES), claims=(*claims, *ours))
    gone = frozenset(pod["spec"].get("nodeName") or "" for pod in pods) - {one.name for one in NODES}
    around = Surroundings(snapshot=snapshot, policy=POLICY, gone=gone)
    group = group_of([member_of(pod) for pod in pods])
    return replace(group, ending=ending_of(group, around, NOW))


@pytest.mark.parametrize(
    ("containers", "started"),
    [
        pytest.param([container_status(started=True)], True, id="the engine has answered"),
        pytest.param([container_status(started=False)], False, id="it still loads"),
        pytest.param(
            [container_status("istio-proxy", ready=True, started=True), container_status(started=False)],
            False,
            id="it still loads beside a sidecar that somebody injected",
        ),
        pytest.param([], False, id="nothing runs"),
    ],
)
def test_requests_may_have_come_once_the_engine_has_started(
    containers: list[dict[str, Any]], started: bool
) -> None:
    group = seen(engine_pod(node="a", containers=containers))
    assert group.started == started
    assert group.may_have_requests == started


@pytest.mark.parametrize(
    ("pod", "phase"),
    [
        pytest.param(engine_pod(pin="a"), Phase.BINDING, id="pinned and not bound"),
        pytest.param(engine_pod(pin="a", node="a"), Phase.LOADING, id="bound and not ready"),
        pytest.param(engine_pod(node="a", ready=True), Phase.READY, id="ready"),
        pytest.param(engine_pod(node="a", ready=True, deleting=True), Phase.DRAINING, id="ready and leaving"),
        pytest.param(engine_pod(pin="a", deleting=True), Phase.DRAINING, id="leaving before it was bound"),
    ],
)
def test_phase(pod: dict[str, Any], phase: Phase) -> None:
    assert seen(pod).phase is phase


def test_a_gated_pod_is_gated() -> None:
    pod = engine_pod(pin="a")
    pod["spec"]["schedulingGates"] = [{"name": "flotilla.dev/whole-group"}]
    assert seen(pod).phase is Phase.GATED


@pytest.mark.parametrize(
    ("pod", "ending"),
    [
        pytest.param(engine_pod(pin="a", age=29), None, id="29 seconds after creation nothing is late"),
        pytest.param(
            engine_pod(pin="a", age=31, scheduler="0/2 nodes are available: 1 Insufficient nvidia.com/gpu."),
            Ending(
                reason=EndingReason.RELEASED,
                message="not bound to a within 30 s: 0/2 nodes are available: 1 Insufficient nvidia.com/gpu.",
                failed_nodes=frozenset({"a"}),
            ),
            id="a pinned pod that is not bound makes way",
        ),
        pytest.param(engine_pod(age=9999), None, id="a pod without a pin may wait for ever"),
        pytest.param(engine_pod(pin="a", node="a", age=9999), None, id="a bound pod may load for long"),
        pytest.param(
            engine_pod(node="gone", ready=True),
            Ending(
                reason=EndingReason.LOST,
                message="node gone no longer exists",
                by_force=True,
            ),
            id="the node is gone",
        ),
        pytest.param(
            engine_pod(node="a", phase="Failed", message="The node was low on resource: memory."),
            Ending(
                reason=EndingReason.FAILED,
                message="the pod has ended: The node was low on resource: memory.",
            ),
            id="evicted by the kubelet",
        ),
        pytest.param(
            engine_pod(node="a", phase="Succeeded"),
            Ending(reason=EndingReason.FAILED, message="the pod has ended: its phase is Succeeded"),
            id="an engine that ended well is over all the same",
        ),
    ],
)
def test_what_ends_a_group(pod: dict[str, Any], ending: Ending | None) -> None:
    group = seen(pod)
    assert group.ending == ending
    assert group.lives == (ending is None)


@pytest.mark.holds(
    "groups.md",
    "`ImagePullFailed`, `ContainerConfigError`, `ModelFetchFailed` and `EngineCrashing` have the "
    "kubelet's words",
)
@pytest.mark.parametrize(
    ("pod", "trouble"),
    [
        pytest.param(
            engine_pod(
                node="a", containers=[container_status(**waiting("ImagePullBackOff", "Back-off pulling x"))]
            ),
            Trouble(reason=TroubleReason.IMAGE_PULL_FAILED, message="container engine: Back-off pulling x"),
            id="the image cannot be pulled",
        ),
        pytest.param(
            engine_pod(
                node="a",
                containers=[
                    container_status(
                        **waiting("CrashLoopBackOff"),
                        lastState=terminated(1, "Traceback\n  File x\nValueError: no KV cache room\n"),
                    )
                ],
            ),
            Trouble(
                reason=TroubleReason.ENGINE_CRASHING,
                message="container engine ended with code 1: ValueError: no KV cache room",
            ),
            id="a crash loop says its last line",
        ),
        pytest.param(
            engine_pod(
                node="a",
                containers=[
                    container_status(
                        **waiting("CrashLoopBackOff"), restartCount=4, lastState=terminated(1, "CUDA error")
                    )
                ],
            ),
            Trouble(
                reason=TroubleReason.ENGINE_CRASHING,
                message="container engine ended with code 1: CUDA error; restarted 4 times, each after a "
                "longer wait",
            ),
            id="a crash loop says how often",
        ),
        pytest.param(
            engine_pod(node="a", containers=[container_status(state=terminated(137, reason="OOMKilled"))]),
            Trouble(
                reason=TroubleReason.ENGINE_CRASHING,
                message="container engine ended with code 137: OOMKilled",
            ),
            id="killed for memory",
        ),
        pytest.param(
            engine_pod(
                node="a",
                containers=[container_status(state=terminated(137, "INFO loading\nINFO 42%\n", "OOMKilled"))],
            ),
            Trouble(
                reason=TroubleReason.ENGINE_CRASHING,
                message="container engine ended with code 137: OOMKilled: INFO 42%",
            ),
            id="killed for memory, with a log that does not say so",
        ),
        pytest.param(
            engine_pod(
                node="a",
                containers=[
                    container_status(
                        state={"running": {}}, restartCount=1, lastState=terminated(0, reason="Completed")
                    )
                ],
            ),
            Trouble(
                reason=TroubleReason.ENGINE_CRASHING,
                message="container engine ended with code 0: Completed; restarted once",
            ),
            id="an engine that ended well, which engines do not",
        ),
        pytest.param(
            engine_pod(
                node="a",
                containers=[
                    container_status(**waiting("ImageInspectError", "failed to inspect image x")),
                ],
            ),
            Trouble(
                reason=TroubleReason.IMAGE_PULL_FAILED, message="container engine: failed to inspect image x"
            ),
            id="the image cannot be read",
        ),
        pytest.param(
            engine_pod(
                node="a",
                inits=[
                    container_status(
                        "fetch-model",
                        state=terminated(1, "hf://x/y: there is no such repository; check the name"),
                    )
                ],
            ),
            Trouble(
                reason=TroubleReason.MODEL_FETCH_FAILED,
                message="container fetch-model ended with code 1: "
                "hf://x/y: there is no such repository; check the name",
            ),
            id="the fetcher's own words",
        ),
        pytest.param(
            engine_pod(
                node="a",
                inits=[
                    container_status(
                        "fetch-model", **waiting("CreateContainerConfigError", 'secret "hf" not found')
                    )
                ],
            ),
            Trouble(
                reason=TroubleReason.CONTAINER_CONFIG_ERROR,
                message='container fetch-model: secret "hf" not found',
            ),
            id="a secret that vanished",
        ),
        pytest.param(
            engine_pod(scheduler="0/1 nodes are available: 1 Insufficient cpu."),
            Trouble(
                reason=TroubleReason.UNSCHEDULABLE, message="0/1 nodes are available: 1 Insufficient cpu."
            ),
            id="the scheduler finds no node",
        ),
        pytest.param(
            engine_pod(
                node="a",
                ready=True,
                containers=[container_status(ready=True, lastState=terminated(1, "an old crash"))],
            ),
            None,
            id="a crash that was survived troubles nobody",
        ),
        pytest.param(
            engine_pod(node="a", inits=[container_status("fetch-model", state=terminated(0))]),
            None,
            id="a fetcher that is done",
        ),
        pytest.param(
            engine_pod(
                node="a",
                inits=[
                    container_status(
                        "fetch-model", ready=True, state=terminated(0), lastState=terminated(13, "no network")
                    )
                ],
            ),
            None,
            id="a fetcher that is done after a failure",
        ),
        pytest.param(
            engine_pod(
                node="a",
                inits=[
                    container_status("mesh", ready=True, state={"running": {}}, lastState=terminated(1, "x"))
                ],
            ),
            None,
            id="a sidecar that was restarted and is ready",
        ),
    ],
)
def test_what_troubles_a_group(pod: dict[str, Any], trouble: Trouble | None) -> None:
    assert seen(pod).trouble == trouble


def pulling() -> dict[str, Any]:
    return {"node": "b", "containers": [container_status(**waiting("ImagePullBackOff", "no such tag"))]}


@pytest.mark.holds("groups.md", "Of several stages the worst is told with its number")
@pytest.mark.parametrize(
    ("first", "second", "trouble"),
    [
        pytest.param(
            {"node": "a", "containers": [container_status(started=False)]},
            pulling(),
            Trouble(reason=TroubleReason.IMAGE_PULL_FAILED, message="stage 1: container engine: no such tag"),
            id="the leader starts and the other has no image",
        ),
        pytest.param(
            {"scheduler": "0/1 nodes are available"},
            pulling(),
            Trouble(reason=TroubleReason.IMAGE_PULL_FAILED, message="stage 1: container engine: no such tag"),
            id="the scheduler may find a node for the leader, and nobody an image for the other",
        ),
        pytest.param(
            {"node": "a", "containers": [container_status(state=terminated(1, "no answer from rank 1"))]},
            pulling(),
            Trouble(reason=TroubleReason.IMAGE_PULL_FAILED, message="stage 1: container engine: no such tag"),
            id="the leader crashes over the one that has no image",
        ),
        pytest.param(
            pulling(),
            {"scheduler": "0/1 nodes are available"},
            Trouble(reason=TroubleReason.IMAGE_PULL_FAILED, message="stage 0: container engine: no such tag"),
            id="the leader itself is the worst",
        ),
    ],
)
def test_of_a_group_of_several_the_worst_is_told_with_its_stage(
    first: dict[str, Any], second: dict[str, Any], trouble: Trouble
) -> None:
    assert seen(stage_pod(0, **first), stage_pod(1, **second)).trouble == trouble


@pytest.mark.holds("groups.md", "Of several stages the worst is told with its number")
def test_of_engines_that_ended_the_first_is_told() -> None:
    ends = [terminated(1, "connection closed by rank 1", ago=2), terminated(137, reason="OOMKilled", ago=5)]
    pods = (
        stage_pod(stage, **PAIR, containers=[container_status(state=end)]) for stage, end in enumerate(ends)
    )
    ending = seen(*pods).ending
    assert ending is not None
    assert ending.message == "pod llama-aaaaa-1: container engine ended with code 137: OOMKilled"


@pytest.mark.holds("router.md", "`RouterReady` says in the kubelet's words why no router pod is ready")
def test_of_several_routers_the_one_is_told_of_that_a_person_must_mend() -> None:
    crashed = container_status("haproxy", restartCount=1, lastState=terminated(1, "cannot bind socket"))
    unknown = container_status("agent", **waiting("ErrImagePull", "no such image"))
    pods = [
        engine_pod("router-a", scheduler="Insufficient cpu."),
        engine_pod("router-b", node="a", inits=[container_status("render", state=terminated(1, "no key"))]),
        engine_pod("router-c", node="a", containers=[crashed]),
        engine_pod("router-d", node="a", containers=[unknown]),
    ]
    told = [router_trouble(pods[:count]) for count in range(5)]
    assert [found and (found.reason, found.message) for found in told] == [
        None,
        (TroubleReason.UNSCHEDULABLE, "router-a: Insufficient cpu."),
        (TroubleReason.ROUTER_CRASHING, "router-b: container render ended with code 1: no key"),
        (TroubleReason.ROUTER_CRASHING, "router-b: container render ended with code 1: no key"),
        (TroubleReason.IMAGE_PULL_FAILED, "router-d: container agent: no such image"),
    ]


@pytest.mark.holds(
    "groups.md", "`EngineSlowToStart` after 10 minutes, or three times the usual start, 5 minutes at least"
)
@pytest.mark.parametrize(
    ("ran_seconds", "fields", "usual_seconds", "said"),
    [
        pytest.param(599, {}, None, None, id="nothing is known of the set's starts: not within 10 minutes"),
        pytest.param(600, {}, None, "a first answer; ", id="it is slow after 10 minutes"),
        pytest.param(600, {"started": True}, None, None, id="one that has answered has started"),
        pytest.param(299, {}, 20, None, id="never within 5 minutes"),
        pytest.param(
            300, {}, 20, "answer; other replicas of the set needed 20 s; ", id="others were quicker"
        ),
        pytest.param(2699, {}, 900, None, id="a large model may load for thrice as long as usual"),
        pytest.param(600, {"name": "helper"}, None, None, id="another container of the user's"),
    ],
)
def test_an_engine_that_hangs_at_its_start_is_told(
    ran_seconds: float, fields: dict[str, Any], usual_seconds: float | None, said: str | None
) -> None:
    status = {"name": "engine", "ready": False, "started": False} | fields
    status["state"] = {"running": {"startedAt": time_text(ran_seconds)}}
    trouble = slow_start(
        member_of(engine_pod(node="a", containers=[status])).engine.loads_since, usual_seconds, NOW
    )
    if said is None:
        assert trouble is None
        return
    assert trouble is not None
    assert trouble.reason is TroubleReason.ENGINE_SLOW_TO_START
    assert f"has run since {time_text(ran_seconds)} without giving a first" in trouble.message
    assert f"{said}the kubelet restarts it 1800 s after its start" in trouble.message


PAIR: dict[str, Any] = {"pin": "a", "node": "a", "ready": True}


@pytest.mark.parametrize(
    ("pods", "phase"),
    [
        pytest.param(
            [stage_pod(0, pin="a", gated=True), stage_pod(1, pin="b", gated=True)],
            Phase.GATED,
            id="all gated",
        ),
        pytest.param(
            [stage_pod(0, pin="a", node="a"), stage_pod(1, pin="b", gated=True)],
            Phase.GATED,
            id="one gate lifted, one not yet",
        ),
        pytest.param(
            [stage_pod(0, **PAIR), stage_pod(1, pin="b", lifted=3)], Phase.BINDING, id="one is not bound"
        ),
        pytest.param([stage_pod(0, **PAIR), stage_pod(1, pin="b", node="b")], Phase.LOADING, id="one loads"),
        pytest.param([stage_pod(1, **PAIR), stage_pod(0, **PAIR)], Phase.READY, id="all are ready"),
        pytest.param(
            [stage_pod(0, **PAIR), stage_pod(1, **PAIR, deleting=True)], Phase.DRAINING, id="one leaves"
        ),
    ],
)
def test_a_group_is_as_far_as_the_member_furthest_behind(pods: list[dict[str, Any]], phase: Phase) -> None:
    group = seen(*pods)
    assert group.phase is phase
    assert [member.stage for member in group.members] == [0, 1]


@pytest.mark.holds(
    "groups.md", "A node that goes, is cordoned or tainted before its pod is bound ends the wait at once"
)
@pytest.mark.holds(
    "groups.md", "A member that ends takes its group with it, and the event says which pod and why"
)
@pytest.mark.parametrize(
    ("pods", "reason", "message"),
    [
        pytest.param(
            [stage_pod(0, **PAIR), stage_pod(1, **PAIR, phase="Failed", message="Evicted.")],
            EndingReason.FAILED,
            "pod llama-aaaaa-1 has ended: Evicted.",
            id="a member is evicted",
        ),
        pytest.param(
            [stage_pod(0, **PAIR), stage_pod(1, node="gone", ready=True)],
            EndingReason.LOST,
            "node gone no longer exists",
            id="the node of one is gone",
        ),
        pytest.param(
            [stage_pod(0, **PAIR, deleting=True), stage_pod(1, **PAIR)],
            EndingReason.FAILED,
            "pod llama-aaaaa was deleted",
            id="one is being deleted",
        ),
        pytest.param(
            [stage_pod(0, **PAIR), stage_pod(1, **PAIR, deleting=True, disrupted="EvictionByEvictionAPI")],
            EndingReason.EVICTED,
            "pod llama-aaaaa-1 was evicted",
            id="somebody drains the node of one",
        ),
        pytest.param(
            [stage_pod(0, **PAIR), stage_pod(1, **PAIR, deleting=True, disrupted="DeletionByTaintManager")],
            EndingReason.EVICTED,
            "pod llama-aaaaa-1 was evicted",
            id="the node of one has got a taint",
        ),
        pytest.param(
            [stage_pod(0, **PAIR), stage_pod(1, **PAIR, deleting=True, disrupted="PreemptionByScheduler")],
            EndingReason.FAILED,
            "pod llama-aaaaa-1 was deleted",
            id="one makes room for a pod of higher priority, which would do so again",
        ),
        pytest.param(
            [stage_pod(0, **PAIR, stages=3)],
            EndingReason.FAILED,
            "the pod of stage 1, 2 no longer exists",
            id="two of three are gone",
        ),
        pytest.param(
            [stage_pod(0, pin="a", gated=True)],
            EndingReason.INCOMPLETE,
            "the pod of stage 1 could not be created",
            id="the last pod was refused",
        ),
        pytest.param(
            [
                stage_pod(0, **PAIR),
                stage_pod(
                    1,
                    **PAIR,
                    containers=[
                        container_status(ready=True, restartCount=1, lastState=terminated(1, "NCCL error"))
                    ],
                ),
            ],
            EndingReason.FAILED,
            "pod llama-aaaaa-1: container engine ended with code 1: NCCL error",
            id="an engine was restarted by the kubelet",
        ),
        pytest.param(
            [
                stage_pod(
                    0, **PAIR, containers=[container_status(state=terminated(137, reason="OOMKilled"))]
                ),
                stage_pod(1, **PAIR),
            ],
            EndingReason.FAILED,
            "pod llama-aaaaa: container engine ended with code 137: OOMKilled",
            id="an engine has ended",
        ),
        pytest.param(
            [
                stage_pod(0, **PAIR, lifted=31, age=32),
                stage_pod(1, pin="b", age=31, scheduler="Insufficient nvidia.com/gpu"),
            ],
            EndingReason.RELEASED,
            "not bound to b within 30 s: Insufficient nvidia.com/gpu",
            id="half of it holds accelerators for 31 seconds",
        ),
        pytest.param(
            [stage_pod(0, pin="a", lifted=31, node="a"), stage_pod(1, pin="b", gated=True)],
            EndingReason.RELEASED,
            "not bound to b within 30 s: its scheduling gate was not removed",
            id="the second gate was never lifted",
        ),
        pytest.param(
            [stage_pod(0, pin="a", gated=True), stage_pod(1, pin="b", age=31)],
            EndingReason.RELEASED,
            "not bound to b within 30 s: the scheduler gave no reason",
            id="one was tried in vain and the other's gate was not lifted",
        ),
        pytest.param(
            [stage_pod(0, pin="a", gated=True), stage_pod(1, pin="gone", gated=True)],
            EndingReason.RELEASED,
            "not bound to gone: the node no longer exists",
            id="a node went before its pod was bound",
        ),
        pytest.param(
            [stage_pod(0, pin="a", lifted=1), stage_pod(1, pin="cordoned", lifted=1)],
            EndingReason.RELEASED,
            "not bound to cordoned: the node was cordoned",
            id="a node was cordoned",
        ),
        pytest.param(
            [stage_pod(0, pin="a", lifted=1), stage_pod(1, pin="not-ready", lifted=1)],
            EndingReason.RELEASED,
            "not bound to not-ready: the node is not ready",
            id="a node is not ready any more",
        ),
        pytest.param(
            [engine_pod(pin="tainted")],
            EndingReason.RELEASED,
            "not bound to tainted: the node has the taint team",
            id="a node was tainted under a single pod",
        ),
    ],
)
def test_a_group_ends_with_any_of_its_members(
    pods: list[dict[str, Any]], reason: EndingReason, message: str
) -> None:
    ending = seen(*pods).ending
    assert ending is not None
    assert (ending.reason, ending.message) == (reason, message)


@pytest.mark.holds("groups.md", "A replica of one pod is left to the kubelet's restarts and has no gate")
@pytest.mark.parametrize(
    "pods",
    [
        pytest.param(
            [stage_pod(0, pin="a", gated=True, age=90), stage_pod(1, pin="b", gated=True)], id="gated"
        ),
        pytest.param([stage_pod(0, pin="a", lifted=29, age=90), stage_pod(1, pin="b", node="b")], id="29 s"),
        pytest.param([stage_pod(i, **PAIR, deleting=True) for i in (0, 1)], id="leaving as a whole"),
        pytest.param([stage_pod(0, **PAIR, deleting=True)], id="leaving, and one is gone already"),
        pytest.param([stage_pod(0, node="cordoned", pin="cordoned"), stage_pod(1, **PAIR)], id="bound there"),
        pytest.param(
            [engine_pod(**PAIR, containers=[container_status(ready=True, restartCount=3)])],
            id="a single engine may be restarted",
        ),
    ],
)
def test_a_group_goes_on(pods: list[dict[str, Any]]) -> None:
    assert seen(*pods).ending is None


def test_only_a_node_that_was_tried_in_vain_has_failed() -> None:
    ending = seen(stage_pod(0, pin="a", gated=True), stage_pod(1, pin="b", age=31)).ending
    assert ending is not None
    assert ending.failed_nodes == {"b"}


def test_what_the_scheduler_said_of_a_gate_is_no_news_once_it_is_lifted() -> None:
    blocked = "Scheduling is blocked due to non-empty scheduling gates"
    pod = stage_pod(0, pin="a", lifted=1, scheduler=blocked, scheduler_reason="SchedulingGated")
    assert seen(pod, stage_pod(1, pin="b")).leader.not_bound_because == ""
    full = stage_pod(0, pin="a", lifted=1, scheduler="no room", scheduler_reason="Unschedulable")
    assert seen(full, stage_pod(1, pin="b")).leader.not_bound_because == "no room"


@pytest.mark.holds(
    "groups.md",
    "The gates are lifted when the group is whole; the next leader lifts them or releases the group",
)
def test_a_gated_group_whose_room_others_took_is_released() -> None:
    pods = [
        stage_pod(0, pin="a", gated=True, requests=FOUR),
        stage_pod(1, pin="b", age=1, requests=FOUR),
    ]
    assert seen(*pods, claims=(used("b", 4),)).ending is None
    ending = seen(*pods, claims=(used("b", 5),)).ending
    assert ending is not None
    assert ending.reason is EndingReason.RELEASED
    assert ending.message == f"not bound to b: other pods took the node's free {GPU}"
    lifted = [stage_pod(i, pin=name, lifted=1, requests=FOUR) for i, name in enumerate("ab")]
    assert seen(*lifted, claims=(used("b", 5),)).ending is None, "the scheduler has its time"


def test_a_node_that_is_only_missing_ends_nothing() -> None:
    group = group_of([member_of(engine_pod("llama-x", node="elsewhere"))])
    around = Surroundings(snapshot=Snapshot(topology=Topology.of(NODES), claims=()), policy=POLICY)
    assert ending_of(group, around, NOW) is None
    assert ending_of(group, replace(around, gone=frozenset({"elsewhere"})), NOW) is not None


def test_a_group_with_a_pod_in_doubt_does_not_end() -> None:
    waits = engine_pod("llama-x", pin="a", age=300)
    around = Surroundings(snapshot=Snapshot(topology=Topology.of(NODES), claims=()), policy=POLICY)
    assert ending_of(group_of([member_of(waits)]), around, NOW) is not None
    waits["metadata"]["uid"] = unseen_uid("llama-x")
    assert ending_of(group_of([member_of(waits)]), around, NOW) is None
