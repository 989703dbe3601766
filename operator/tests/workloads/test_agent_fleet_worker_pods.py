"""Facts read from worker pods: why none becomes ready, and which ones are to go first."""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.cluster.stripped import stripped
from flotilla_operator.objects import deletion_cost
from flotilla_operator.objects.resources import PODS
from flotilla_operator.objects.times import timestamp
from flotilla_operator.workloads.agent_fleet import workers_of
from flotilla_operator.workloads.agent_fleet.worker_pods import costs_to_write, never_ready, worker_pod
from tests.builders.agent_fleet import OWNER
from tests.controllers.agent_fleet.test_plan import NOW


def pod(name: str = "w-1", *, ready: bool = False, since: float = 30, **container: Any) -> dict[str, Any]:
    """A worker pod; `container` is the status of its container."""
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "labels": workers_of(OWNER, "abc").labels,
        "annotations": {"flotilla.dev/config-hash": "x"},
    }
    changed = timestamp(NOW - timedelta(seconds=since))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": "a", "containers": [{"name": "worker"}]},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": changed}],
            "containerStatuses": [{"name": "worker", "ready": ready, **container}],
        },
    }


def waits(reason: str) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": f"{reason}: see there"}}}


def ended(code: int, words: str = "it failed") -> dict[str, Any]:
    return {"lastState": {"terminated": {"exitCode": code, "message": words}}, **waits("CrashLoopBackOff")}


@pytest.mark.holds("tasks.md", "They go over at once where no worker of theirs becomes ready")
@pytest.mark.parametrize(
    ("pods", "why"),
    [
        pytest.param([], None, id="there is none"),
        pytest.param([pod(ready=True)], None, id="one that is ready"),
        pytest.param([pod()], None, id="one that starts"),
        pytest.param([pod(**waits("ContainerCreating"))], None, id="one whose volumes come"),
        pytest.param([pod(**waits("ErrImagePull"))], "w-1: container worker: ErrImagePull", id="no image"),
        pytest.param([pod(**waits("CreateContainerConfigError"))], "ConfigError", id="no secret"),
        pytest.param([pod(**ended(1), restartCount=4)], "it failed; restarted 4 times", id="a crash loop"),
        pytest.param([pod(restartCount=1)], None, id="one crash is none"),
        pytest.param([pod(**ended(1)), pod("w-2", ready=True)], None, id="another one runs"),
        pytest.param([pod(since=600)], "no worker has been ready for 600 s", id="nobody says why"),
    ],
)
def test_why_no_worker_becomes_ready(pods: list[dict[str, Any]], why: str | None) -> None:
    found = never_ready([worker_pod(one) for one in pods], NOW)
    assert found is None if why is None else why in (found or "")


def test_a_worker_says_that_its_image_lacks_a_function() -> None:
    words = "spec.agent.entrypoint: app:main: there is no module app"
    found = worker_pod(pod(**ended(3, words)))
    assert (found.lacks_function, words in found.trouble) == (True, True)
    assert not worker_pod(pod(**ended(1))).lacks_function


def test_the_cost_of_deleting_a_pod_is_the_number_of_its_tasks() -> None:
    annotated = pod("w-2")
    annotated["metadata"]["annotations"][deletion_cost.ANNOTATION] = "7"
    pods = [worker_pod(pod("w-1")), worker_pod(annotated), worker_pod(pod("w-3"))]
    assert [(one.ref.name, cost) for one, cost in costs_to_write(pods, {"w-1": 5, "w-2": 7})] == [
        ("w-1", "5")
    ]
    assert [(one.ref.name, cost) for one, cost in costs_to_write(pods, {"w-3": 2})] == [
        ("w-2", "0"),
        ("w-3", "2"),
    ]


def test_the_caches_keep_the_cost_and_no_other_annotation_of_a_pod() -> None:
    kept = pod()
    kept["metadata"]["annotations"] |= {deletion_cost.ANNOTATION: "7" * 99, "other": "x"}
    assert stripped(PODS, kept)["metadata"]["annotations"] == {deletion_cost.ANNOTATION: "7" * 11}
    assert worker_pod(stripped(PODS, pod())).cost is None
