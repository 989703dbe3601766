"""The stories that are told on a real API server, too.

`tests/controllers/model_replica_set/test_stories_apiserver.py` compares how they end.
"""

import pytest

from tests.scenes.scene import Scene
from tests.scenes.stories import STORIES, ending

pytestmark = pytest.mark.scenes


@pytest.mark.parametrize("name", STORIES)
async def test_a_story_ends(scene: Scene, name: str) -> None:
    await STORIES[name](scene)
    end = await ending(scene)
    assert end["generation"] == scene.get()["metadata"]["generation"]
    assert {phase for _, phase in end["pods"]} <= {"Running"}
