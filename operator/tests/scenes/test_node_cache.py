"""Folders of nodes as model caches: a set that names one which is not listed says so, and what runs stays."""

import pytest

from flotilla_operator.controllers.config import ModelCache
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes

LISTED = ModelCache(node_paths=("/srv/models",))
NODE = {"mode": "Node", "path": "/srv/models"}


async def restarted_with(scene: Scene, listed: ModelCache) -> None:
    """The chart is upgraded with other values."""
    await scene.operator.kill()
    scene.config = scene.config.model_copy(update={"model_cache": listed})
    await scene.start_operator()


@pytest.mark.holds(
    "engine.md",
    "A folder of the node that is not listed is `NodePathNotListed`; no pod is made, and what runs stays",
)
async def test_a_folder_that_is_not_listed_makes_no_pods_until_it_is(scene: Scene) -> None:
    scene.node("a")
    scene.create(modelCache=NODE)
    message = await scene.until_says("SpecValid", "False", "NodePathNotListed")
    assert "spec.modelCache.path" in message
    assert "modelCache.nodePaths" in message
    await scene.pass_time(3600)
    assert scene.pods() == []
    await restarted_with(scene, LISTED)
    await scene.until_ready()


@pytest.mark.holds(
    "install.md", "After a path is removed from the list, sets get no new pods and their running pods stay"
)
async def test_what_runs_in_a_folder_that_is_listed_no_more_stays(scene: Scene) -> None:
    """As after the upgrade from a release that needed no list."""
    scene.node("a")
    await restarted_with(scene, LISTED)
    scene.create(modelCache=NODE)
    await scene.until_ready()
    before = scene.uids()
    await restarted_with(scene, ModelCache())
    with scene.throughout(lambda: scene.uids() == before and scene.two_serve()):
        await scene.until_says("SpecValid", "False", "NodePathNotListed")
        await scene.pass_time(3600)
    (first, _) = scene.pods()
    scene.delete_pod(first["metadata"]["name"])
    await scene.pass_time(3600)
    assert scene.uids() < before, "a replica that is lost is not made anew"
    await restarted_with(scene, LISTED)
    await scene.until_ready()


@pytest.mark.holds(
    "engine.md",
    "A folder of the node that is not listed is `NodePathNotListed`; no pod is made, and what runs stays",
)
async def test_a_change_to_a_folder_that_is_not_listed_replaces_nothing(scene: Scene) -> None:
    """Though the user allows an update to take both replicas away before there are others."""
    scene.node("a")
    scene.create(update={"maxSurge": 0, "maxUnavailable": 2})
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(lambda: scene.uids() == before and scene.two_serve()):
        scene.change(modelCache=NODE)
        await scene.until_says("SpecValid", "False", "NodePathNotListed")
        await scene.pass_time(3 * 3600)
    scene.change(modelCache=None)
    await scene.until_ready()
    assert scene.uids() == before
