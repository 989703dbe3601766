"""The claims of a fleet's Redis: what an older operator made, and what outlives its fleet."""

from functools import partial

import pytest

from flotilla_operator.objects.resources import AGENT_FLEETS, PERSISTENT_VOLUME_CLAIMS, PODS, Manifest
from flotilla_runtime import contract
from tests.builders.api_objects import changed, smallest
from tests.scenes.scene import Scene
from tests.support.fake_requests import Request

pytestmark = pytest.mark.scenes

INSTANCE = "app.kubernetes.io/instance"


def claim(scene: Scene, fleet: str) -> Manifest:
    return scene.the(PERSISTENT_VOLUME_CLAIMS, f"{fleet}-redis")


def labels(scene: Scene, fleet: str) -> dict[str, str]:
    found: dict[str, str] = claim(scene, fleet)["metadata"]["labels"]
    return found


def label_as_before(scene: Scene, fleet: str) -> None:
    """Give the claim the label that an older operator gave it."""
    older = {"metadata": {"labels": {INSTANCE: fleet}}}
    scene.cluster.merge(PERSISTENT_VOLUME_CLAIMS, claim(scene, fleet), older)


@pytest.mark.holds(
    "argocd.md",
    "No claim has the label by which Argo CD may track, and older claims lose it, also of fleets "
    "that are paused or gone",
)
async def test_older_claims_lose_the_label_by_which_argo_cd_tracks(scene: Scene) -> None:
    """Of a fleet at work, of a paused one, and of one that is gone; also if the first answer is lost."""
    fleets = ("working", "paused", "gone")
    scene.node("a")
    for name in fleets:
        scene.cluster.create(AGENT_FLEETS, smallest("AgentFleet", name=name))
        says = partial(scene.says, name=name, resource=AGENT_FLEETS)
        await scene.until(partial(says, "QueueReady", "True"))
    await scene.operator.kill()
    scene.cluster.merge(AGENT_FLEETS, scene.the(AGENT_FLEETS, "paused"), {"spec": {"paused": True}})
    scene.cluster.delete(AGENT_FLEETS, scene.the(AGENT_FLEETS, "gone"))
    for name in fleets:
        label_as_before(scene, name)
    pods = {pod["metadata"]["uid"] for pod in scene.api.listed(PODS) if "gone" not in pod["metadata"]["name"]}

    def first_patch(request: Request) -> bool:
        return request.method == "PATCH" and request.path.endswith("/gone-redis")

    scene.api.lose(first_patch, times=1)
    await scene.start_operator()
    await scene.until(lambda: not any(INSTANCE in labels(scene, name) for name in fleets))
    await scene.pass_time(60)
    for name in fleets:
        assert labels(scene, name)[contract.LABEL_OWNER_NAME] == name, "a fleet of that name finds it again"
    assert pods <= {pod["metadata"]["uid"] for pod in scene.api.listed(PODS)}, "no pod is replaced"


@pytest.mark.holds(
    "argocd.md",
    "No claim has the label by which Argo CD may track, and older claims lose it, also of fleets "
    "that are paused or gone",
)
async def test_a_claim_that_is_to_be_deleted_and_then_retained_has_no_label_at_any_time(scene: Scene) -> None:
    scene.node("a")
    fleet = changed(smallest("AgentFleet", name="support"), spec__queue__redis={"deletionPolicy": "Delete"})
    scene.cluster.create(AGENT_FLEETS, fleet)
    await scene.until(lambda: scene.says("QueueReady", "True", name="support", resource=AGENT_FLEETS))
    assert claim(scene, "support")["metadata"]["ownerReferences"]

    def untracked() -> bool:
        """The claim cannot be taken for a part of an Application."""
        return INSTANCE not in labels(scene, "support")

    with scene.throughout(untracked):
        kept = {"spec": {"queue": {"redis": {"deletionPolicy": "Retain"}}}}
        scene.cluster.merge(AGENT_FLEETS, scene.the(AGENT_FLEETS, "support"), kept)
        await scene.until(lambda: not claim(scene, "support")["metadata"].get("ownerReferences"))
        scene.cluster.delete(AGENT_FLEETS, scene.the(AGENT_FLEETS, "support"))
        await scene.until(lambda: not scene.api.listed(PODS))
        assert claim(scene, "support")
