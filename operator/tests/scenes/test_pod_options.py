"""Options of pods that name a class which does not exist: it is said, and what runs stays running."""

from functools import partial
from typing import Any

import pytest

from flotilla_operator.objects.resources import AGENT_FLEETS, PODS, RUNTIME_CLASSES, Manifest
from flotilla_runtime import contract
from tests.builders.api_objects import changed, smallest
from tests.builders.pod_options import RUNTIME_CLASS, runtime_class
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes

SANDBOXED: dict[str, Any] = {"runtimeClassName": RUNTIME_CLASS}


def make_class(scene: Scene) -> None:
    manifest = runtime_class()
    del manifest["metadata"]["uid"]
    scene.cluster.create(RUNTIME_CLASSES, manifest)


@pytest.mark.holds("pods.md", "Until the class appears nothing is replaced, and then it goes on")
async def test_replicas_stay_until_the_runtime_that_the_set_names_exists(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    before = scene.uids()

    def nothing_is_replaced() -> bool:
        """The replicas are those of before."""
        return scene.uids() == before

    with scene.throughout(nothing_is_replaced):
        scene.change(pod=SANDBOXED)
        message = await scene.until_says("SpecValid", "False", "RuntimeClassMissing")
        assert message == (
            "spec.pod.runtimeClassName: there is no RuntimeClass 'sandboxed'; create it or name another"
        )
        await scene.pass_time(600)
    with scene.throughout(scene.two_serve):
        make_class(scene)
        await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    assert {pod["spec"]["runtimeClassName"] for pod in scene.pods()} == {RUNTIME_CLASS}


@pytest.mark.holds("pods.md", "Until the class appears nothing is replaced, and then it goes on")
async def test_redis_keeps_its_pod_until_the_runtime_that_the_fleet_names_exists(scene: Scene) -> None:
    scene.node("a")
    scene.create("m")
    fleet = smallest("AgentFleet", name="support")
    scene.cluster.create(AGENT_FLEETS, fleet)
    says = partial(scene.says, name="support", resource=AGENT_FLEETS)
    await scene.until(lambda: says("Ready", "True"))

    def redis() -> Manifest | None:
        """The pod of Redis."""
        pods = [
            pod
            for pod in scene.api.listed(PODS)
            if pod["metadata"].get("labels", {}).get(contract.LABEL_COMPONENT) == "redis"
        ]
        return pods[0] if pods else None

    first = redis()
    assert first is not None

    def it_is_the_same() -> bool:
        """Redis is not replaced."""
        found = redis()
        return found is not None and found["metadata"]["uid"] == first["metadata"]["uid"]

    options = changed(fleet, spec__queue={"redis": {"pod": SANDBOXED}})
    with scene.throughout(it_is_the_same):
        scene.cluster.merge(AGENT_FLEETS, fleet, {"spec": options["spec"]})
        await scene.until(lambda: says("QueueReady", "False", "RuntimeClassMissing"))
        await scene.pass_time(600)
    make_class(scene)
    await scene.until(lambda: (pod := redis()) is not None and "runtimeClassName" in pod["spec"])
    await scene.until(lambda: says("Ready", "True"))
