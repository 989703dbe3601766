"""An index: it waits for its source and its embedder, is built, and is served."""

from functools import partial

import pytest

from flotilla_operator.objects.resources import JOBS, PERSISTENT_VOLUME_CLAIMS, PODS, VECTOR_INDEXES
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


async def test_a_build_on_a_node_that_does_not_report_says_so(scene: Scene) -> None:
    scene.node("a")
    model = {"name": "all-minilm", "source": "hf://minilm", "task": "Embed"}
    scene.create("minilm", replicas=1, model=model)
    claim = {"metadata": {"name": "documents", "namespace": NAMESPACE}, "spec": {}}
    scene.cluster.create(PERSISTENT_VOLUME_CLAIMS, claim)
    scene.cluster.create(VECTOR_INDEXES, smallest("VectorIndex", name="handbook"))
    says = partial(scene.says, name="handbook", resource=VECTOR_INDEXES)
    await scene.until(lambda: says("Ready", "True"))

    def building() -> list[str]:
        pods = [pod for pod in scene.api.listed(PODS) if pod["status"]["phase"] == "Pending"]
        return [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") == "a"]

    scene.kubelets.mute.add("a")
    index = scene.the(VECTOR_INDEXES, "handbook")
    scene.cluster.merge(VECTOR_INDEXES, index, {"spec": {"source": {"revision": "2"}}})
    await scene.until(lambda: says("Built", "False", "Building") and building())
    scene.silence_node("a")
    await scene.until(lambda: "is on node a, which does not report" in (says("Built", "False") or ""))
    scene.node_answers_again("a")
    await scene.until(lambda: "does not report" not in (says("Built", "False") or ""))
    await scene.until(lambda: not building())
