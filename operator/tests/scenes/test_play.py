"""The scenes themselves: each runs the same way every time, and a promise that is broken fails it."""

import pytest

from tests.scenes.scene import Scene
from tests.support.virtual_time import run

pytestmark = pytest.mark.scenes


async def story(seed: int) -> list[tuple[float, str, str]]:
    """Requests of an operator in a scene, and when the last one came."""
    async with Scene(seed=seed).playing() as scene:
        scene.node("a")
        scene.create()
        await scene.until_ready()
        scene.change(replicas=1)
        await scene.until(lambda: len(scene.engines()) == 1)
        ended = scene.loop.time()
        return [(ended, request.method, request.path) for request in scene.api.requests]


@pytest.mark.holds(
    "architecture.md",
    "Everything outside the process is handed in, so an operator without a network runs the same "
    "way each time",
)
def test_a_scene_runs_the_same_way_each_time() -> None:
    assert run(story(1)) == run(story(1))


def test_another_seed_is_another_order() -> None:
    assert run(story(1)) != run(story(2))


async def test_a_promise_that_is_broken_for_a_moment_fails_the_scene(scene: Scene) -> None:
    scene.node("a")
    scene.create()
    await scene.until_ready()

    def both_stay() -> bool:
        """Both replicas stay."""
        return len(scene.pods()) == 2

    with scene.throughout(both_stay):
        scene.delete_pod(scene.pods()[0]["metadata"]["name"])
        with pytest.raises(AssertionError, match="Both replicas stay"):
            await scene.pass_time(600)
    assert both_stay(), "in the end they are two again"


async def test_what_does_not_come_fails_the_scene_with_what_there_is(scene: Scene) -> None:
    scene.create()
    with pytest.raises(AssertionError, match=r"not within 600 s(.|\n)*reason: NoNodeCanFit"):
        await scene.until(scene.is_ready, within_seconds=600)


def test_an_operator_that_ends_fails_the_scene() -> None:
    async def ends() -> None:
        async with Scene().playing() as scene:
            scene.operator.task.cancel()
            await scene.pass_time(60)

    with pytest.raises(AssertionError, match="operator has ended"):
        run(ends())
