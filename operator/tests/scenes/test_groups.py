"""Groups of two stages: whole or not at all."""

import random
from itertools import permutations

import pytest

from flotilla_operator.workloads.gate import is_gated
from flotilla_runtime import contract
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes

PAIR = {"tensor": 4, "pipeline": 2}
GROUPS_OF_SETS = {"one": 1, "two": 2, "three": 1}


async def test_both_stages_are_bound_to_the_nodes_that_were_chosen(scene: Scene) -> None:
    for name in "ab":
        scene.node(name, gpus=4, rack="r1")
    scene.node("c", gpus=4, rack="r2")
    scene.create(replicas=1, parallelism=PAIR)
    await scene.until_ready()
    assert sorted(map(str, scene.nodes_of())) == ["a", "b"], "the narrowest domain that has room"
    (group,) = scene.status()["groups"]
    assert group["nodes"] == scene.nodes_of()
    assert not any(is_gated(pod["spec"]) for pod in scene.pods())


@pytest.mark.holds(
    "groups.md", "A member that ends takes its group with it, and the event says which pod and why"
)
@pytest.mark.parametrize("lost", ["0", "1"], ids=["the leader", "the other stage"])
async def test_a_lost_member_takes_its_group_with_it(scene: Scene, lost: str) -> None:
    for name in "ab":
        scene.node(name, gpus=4)
    scene.create(replicas=1, parallelism=PAIR)
    await scene.until_ready()
    before = scene.uids()
    (pod,) = (p for p in scene.pods() if p["metadata"]["labels"][contract.LABEL_STAGE] == lost)
    scene.delete_pod(pod["metadata"]["name"])
    await scene.until(lambda: scene.is_ready() and not scene.uids() & before)
    await scene.until_told("GroupFailed")


@pytest.mark.holds("groups.md", "Several sets of groups never lock each other out")
@pytest.mark.parametrize("order", random.Random(7).sample([*permutations(GROUPS_OF_SETS)], 3), ids="-".join)
async def test_of_four_groups_on_the_nodes_of_three_three_run_and_the_last_says_why(
    scene: Scene, order: tuple[str, ...]
) -> None:
    for name in "abcdef":
        scene.node(name, gpus=4)
    for name in order:
        scene.create(name, replicas=GROUPS_OF_SETS[name], parallelism=PAIR)
    await scene.until(lambda: sum(scene.serving(name) for name in order) == 6)
    (waits,) = (name for name in order if scene.serving(name) < 2 * GROUPS_OF_SETS[name])
    assert "6 InsufficientGPUs" in await scene.until_says("Placed", "False", "InsufficientCapacity", waits)
    assert "GroupReleased" not in scene.told()


@pytest.mark.holds(
    "groups.md",
    "A group that is not bound in 30 s is deleted whole and placed anew without the node that failed",
)
async def test_half_a_group_gives_its_accelerators_back_at_the_bind_time_out(scene: Scene) -> None:
    for name in "ab":
        scene.node(name, gpus=4)
    scene.scheduler.pause()
    scene.create(replicas=1, parallelism=PAIR)
    await scene.until(lambda: len(scene.pods()) == 2)
    scene.foreign_pod("training", "b", gpus=4)
    scene.scheduler.go_on()
    await scene.until(lambda: "a" in scene.nodes_of())
    begun = scene.loop.time()
    await scene.until(lambda: scene.pods() == [])
    assert scene.loop.time() - begun <= 35
    scene.create("other", replicas=1)
    await scene.until_ready("other")
    assert scene.nodes_of("other") == ["a"], "the accelerators are free for others"
