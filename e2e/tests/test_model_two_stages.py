"""A replica of two stages with the real engine: two pods on the one real node behind the set's router."""

from collections.abc import Iterator

import pytest

from demo.environment import Environment
from tests.support.applied import Site
from tests.support.objects import Objects
from tests.support.questions import ANSWER, ask
from tests.support.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.rare, pytest.mark.timeout(2400, func_only=True)]

NAME = "two-stages"
READY_SECONDS = 600
SET = {
    "apiVersion": "flotilla.dev/v1alpha1",
    "kind": "ModelReplicaSet",
    "metadata": {"name": NAME},
    "spec": {
        "model": {"name": NAME, "source": "pvc://models/smollm2"},
        "parallelism": {"pipeline": 2},
        "engine": {
            "maxModelLen": 1024,
            "maxNumSeqs": 4,
            "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}},
        },
        "replicas": 1,
        "router": {"replicas": 1},
        "drain": {"deadlineSeconds": 5},
    },
}


@pytest.fixture
def stages(demo: Environment) -> Iterator[None]:
    """The set, ready; gone afterwards."""
    demo.kubectl.apply([SET])
    ready(demo)
    yield
    demo.kubectl.run("delete", "mrs", NAME, "--wait", timeout_seconds=120)


@pytest.mark.holds("groups.md", "Two stages of the real engine answer as one replica")
def test_two_pods_answer_as_one_replica_and_start_anew_together(demo: Environment, stages: None) -> None:
    assert ANSWER in answer(demo)
    objects = Site(demo.kubectl).objects
    before = pods(objects)
    assert len(before) == 2
    follower = next(name for name in before if name.endswith("-1"))
    objects.delete("Pod", follower)

    def both_are_new() -> bool:
        now = pods(objects)
        return len(now) == 2 and not now & before

    eventually(both_are_new)
    ready(demo)
    assert ANSWER in answer(demo)


def ready(demo: Environment) -> None:
    demo.kubectl.run(
        *("wait", "--for=condition=Ready", f"mrs/{NAME}", f"--timeout={READY_SECONDS}s"),
        timeout_seconds=READY_SECONDS + 10,
    )


def pods(objects: Objects) -> set[str]:
    """The names of all engine pods, also of those that are being deleted."""
    engines = f"labelSelector=flotilla.dev/owner={NAME},app.kubernetes.io/component=engine"
    return {pod["metadata"]["name"] for pod in objects.list("Pod", engines)}


def answer(demo: Environment) -> str:
    """The set's answer to the question, through its router."""
    with demo.kubectl.port_forward(f"service/{NAME}-model", 8000) as port:
        return ask(f"http://127.0.0.1:{port}", NAME, timeout_seconds=300)
