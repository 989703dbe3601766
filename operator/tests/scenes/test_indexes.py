"""An index: it waits for its source and its embedder, is built, and is served."""

from functools import partial

import pytest

from flotilla_operator.objects.resources import JOBS, PERSISTENT_VOLUME_CLAIMS, VECTOR_INDEXES
from tests.builders.api_objects import smallest
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes


async def test_an_index_waits_for_what_it_needs_is_built_and_built_anew(scene: Scene) -> None:
    scene.node("a")
    scene.cluster.create(VECTOR_INDEXES, smallest("VectorIndex", name="handbook"))
    says = partial(scene.says, name="handbook", resource=VECTOR_INDEXES)
    await scene.until(lambda: says("EmbedderReady", "False", "ModelMissing"))
    await scene.until(lambda: says("SourceReachable", "False", "ClaimMissing"))

    claim = {"metadata": {"name": "documents", "namespace": NAMESPACE}, "spec": {}}
    scene.cluster.create(PERSISTENT_VOLUME_CLAIMS, claim)
    model = {"name": "all-minilm", "source": "hf://minilm", "task": "Embed"}
    scene.create("minilm", replicas=1, model=model)
    await scene.until(lambda: says("Ready", "True"))
    assert scene.the(VECTOR_INDEXES, "handbook")["status"]["documents"]["indexed"] == 3
    before = {job["metadata"]["uid"] for job in scene.api.listed(JOBS)}

    index = scene.the(VECTOR_INDEXES, "handbook")
    scene.cluster.merge(VECTOR_INDEXES, index, {"spec": {"source": {"revision": "2"}}})
    await scene.until(lambda: says("Built", "False", "Building"))
    assert scene.the(VECTOR_INDEXES, "handbook")["status"]["phase"] == "Building"
    await scene.until(lambda: says("Built", "True", "UpToDate"))
    assert not before & {job["metadata"]["uid"] for job in scene.api.listed(JOBS)}
