"""A set at zero: a router that reports a held request wakes it, idleness puts it back."""

import pytest

from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes


@pytest.mark.holds(
    "argocd.md",
    "A set that is scaled up is not Ready until its new replicas are; one at zero because no "
    "requests come is",
)
@pytest.mark.holds("router.md", "A held request starts a replica, which answers it")
@pytest.mark.holds("router.md", "The replica goes when nothing was to do for `scaleToZeroAfterSeconds`")
async def test_a_held_request_wakes_the_set_and_idleness_puts_it_back(scene: Scene) -> None:
    scene.node("a")
    scene.create(autoscaling={"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 600})
    await scene.until(lambda: (scene.status().get("autoscaling") or {}).get("mode") == "NoRequest")
    await scene.pass_time(30)
    assert (scene.pods(), scene.status()["ready"]) == ([], "0/0")
    assert scene.is_ready(), "nothing waits for it, also no sync wave of Argo CD"

    routers = scene.routers.of("llama")
    routers.held = 1
    await scene.until(lambda: len(scene.pods()) == 1)
    routers.held = 0
    await scene.until(lambda: scene.status()["ready"] == "1/1")

    routers.idle_seconds = 599
    await scene.pass_time(30)
    assert len(scene.pods()) == 1, "not idle for long enough"
    routers.idle_seconds = 700
    await scene.until(lambda: scene.pods() == [] and scene.status()["ready"] == "0/0")
    decisions = scene.status()["autoscaling"]["lastDecisions"]
    assert [(entry["from"], entry["to"]) for entry in decisions] == [(0, 1), (1, 0)]
