"""What a pod says about its group: the phase, what troubles it, and what ends it. What is done about it:
test_plan.
"""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.life import (
    Ending,
    Phase,
    ReplicaGroup,
    Trouble,
    group_of,
)
from flotilla_operator.controllers.model_replica_set.reasons import EventReason, Reason
from tests.builders.pods import NOW, container_status, engine_pod, terminated, waiting

NODES = frozenset({"a", "b"})


def seen(pod: dict[str, Any]) -> ReplicaGroup:
    return group_of(pod, node_names=NODES, now=NOW)


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
                reason=EventReason.GROUP_RELEASED,
                message="not bound to a within 30 s: 0/2 nodes are available: 1 Insufficient nvidia.com/gpu.",
            ),
            id="a pinned pod that is not bound makes way",
        ),
        pytest.param(engine_pod(age=9999), None, id="a pod without a pin may wait for ever"),
        pytest.param(engine_pod(pin="a", node="a", age=9999), None, id="a bound pod may load for long"),
        pytest.param(
            engine_pod(node="gone", ready=True),
            Ending(reason=EventReason.GROUP_LOST, message="node gone no longer exists", by_force=True),
            id="the node is gone",
        ),
        pytest.param(
            engine_pod(node="a", phase="Failed", message="The node was low on resource: memory."),
            Ending(
                reason=EventReason.GROUP_FAILED,
                message="the pod is over: The node was low on resource: memory.",
            ),
            id="evicted by the kubelet",
        ),
        pytest.param(
            engine_pod(node="a", phase="Succeeded"),
            Ending(reason=EventReason.GROUP_FAILED, message="the pod is over: its containers have ended"),
            id="an engine that ended well is over all the same",
        ),
    ],
)
def test_what_ends_a_group(pod: dict[str, Any], ending: Ending | None) -> None:
    group = seen(pod)
    assert group.ending == ending
    assert group.lives == (ending is None)


@pytest.mark.parametrize(
    ("pod", "trouble"),
    [
        pytest.param(
            engine_pod(
                node="a", containers=[container_status(**waiting("ImagePullBackOff", "Back-off pulling x"))]
            ),
            Trouble(reason=Reason.IMAGE_PULL_FAILED, message="container engine: Back-off pulling x"),
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
                reason=Reason.ENGINE_CRASHING,
                message="container engine ended with code 1: ValueError: no KV cache room",
            ),
            id="a crash loop says its last line",
        ),
        pytest.param(
            engine_pod(node="a", containers=[container_status(state=terminated(137, reason="OOMKilled"))]),
            Trouble(reason=Reason.ENGINE_CRASHING, message="container engine ended with code 137: OOMKilled"),
            id="killed for memory",
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
                reason=Reason.MODEL_FETCH_FAILED,
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
                reason=Reason.CONTAINER_CONFIG_ERROR, message='container fetch-model: secret "hf" not found'
            ),
            id="a secret that vanished",
        ),
        pytest.param(
            engine_pod(scheduler="0/1 nodes are available: 1 Insufficient cpu."),
            Trouble(reason=Reason.UNSCHEDULABLE, message="0/1 nodes are available: 1 Insufficient cpu."),
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
    ],
)
def test_what_troubles_a_group(pod: dict[str, Any], trouble: Trouble | None) -> None:
    assert seen(pod).trouble == trouble
