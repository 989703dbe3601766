"""A fleet of agents: it waits for its model, and is ready with it."""

from functools import partial

import pytest

from flotilla_operator.objects.resources import AGENT_FLEETS, MODEL_REPLICA_SETS
from tests.builders.api_objects import smallest
from tests.scenes.scene import Scene

pytestmark = pytest.mark.scenes


async def test_a_fleet_waits_for_its_model_and_is_ready_with_it(scene: Scene) -> None:
    scene.node("a")
    scene.cluster.create(AGENT_FLEETS, smallest("AgentFleet", name="support"))
    says = partial(scene.says, name="support", resource=AGENT_FLEETS)
    await scene.until(lambda: says("ModelsReady", "False"))
    await scene.until(lambda: says("QueueReady", "True"))
    assert not says("Ready", "True")

    scene.create("m")
    await scene.until(lambda: says("Ready", "True"))
    scene.cluster.delete(MODEL_REPLICA_SETS, scene.get("m"))
    await scene.until(lambda: says("ModelsReady", "False"))
