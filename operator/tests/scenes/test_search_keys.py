"""Keys of searches: an upgrade parts no fleet from its index, and a lost key is made again."""

import json
from collections.abc import Iterable
from functools import partial

import pytest

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    VECTOR_INDEXES,
    Manifest,
)
from flotilla_runtime import contract
from tests.builders.api_objects import changed, smallest
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes

KEY = "handbook-retriever-key"
RETRIEVER, WORKER = "handbook-retriever", "support-worker"


async def a_fleet_that_searches(scene: Scene) -> None:
    """An index and a fleet with a worker, both ready."""
    scene.node("a")
    scene.node("b")
    scene.create("m")
    claim = {"metadata": {"name": "documents", "namespace": NAMESPACE}, "spec": {}}
    scene.cluster.create(PERSISTENT_VOLUME_CLAIMS, claim)
    model = {"name": "all-minilm", "source": "hf://minilm", "task": "Embed"}
    scene.create("minilm", replicas=1, model=model)
    scene.cluster.create(VECTOR_INDEXES, smallest("VectorIndex", name="handbook"))
    indexes = [{"name": "h", "indexRef": {"name": "handbook"}}]
    fleet = changed(
        smallest("AgentFleet", name="support"), spec__indexes=indexes, spec__workers__minReplicas=1
    )
    scene.cluster.create(AGENT_FLEETS, fleet)
    says = partial(scene.says, "Ready", "True")
    await scene.until(
        lambda: says(name="handbook", resource=VECTOR_INDEXES) and says(name="support", resource=AGENT_FLEETS)
    )


def pods(scene: Scene, deployment: str) -> list[Manifest]:
    """The pods of a Deployment, those that end too."""
    return [pod for pod in scene.api.listed(PODS) if pod["metadata"]["name"].startswith(deployment)]


def volumes(pod: Manifest) -> set[str]:
    return {volume["name"] for volume in pod["spec"]["volumes"]}


def sends_key(pod: Manifest) -> bool:
    return "index-keys" in volumes(pod)


def answers_without_key(scene: Scene) -> bool:
    """Whether every retriever pod answers a search without a key, as its files say."""
    files = scene.the(CONFIG_MAPS, RETRIEVER)["data"]
    asks = "caller_keys_directory" in json.loads(files["config.json"])
    return not asks or files.get(contract.KEYLESS_FILE) == contract.KEYLESS


def keys(scene: Scene) -> Manifest:
    found: Manifest = scene.the(VECTOR_INDEXES, "handbook")["status"].get("keys") or {}
    return found


def make_older(scene: Scene) -> None:
    """Make what the release before keys would have made of the same objects, while no operator runs."""
    _without(scene, RETRIEVER, volume="keys", setting=("caller_keys_directory",))
    revision = scene.the(AGENT_FLEETS, "support")["status"]["revision"]
    worker = f"{WORKER}-{revision}"
    _without(scene, worker, volume="index-keys", setting=("indexes", 0, "key_path"))
    index = scene.the(VECTOR_INDEXES, "handbook")
    scene.cluster.report(VECTOR_INDEXES, index, keys=None)
    scene.cluster.delete(SECRETS, scene.the(SECRETS, KEY))


def _without(scene: Scene, name: str, *, volume: str, setting: Iterable[str | int]) -> None:
    config_map, deployment = scene.the(CONFIG_MAPS, name), scene.the(DEPLOYMENTS, name)
    config = json.loads(config_map["data"]["config.json"])
    *parents, last = setting
    here = config
    for parent in parents:
        here = here[parent]
    del here[last]
    scene.cluster.merge(CONFIG_MAPS, config_map, {"data": {"config.json": json.dumps(config)}})
    template = deployment["spec"]["template"]
    container = template["spec"]["containers"][0]
    mounts = [one for one in container["volumeMounts"] if one["name"] != volume]
    spec = {
        "volumes": [one for one in template["spec"]["volumes"] if one["name"] != volume],
        "containers": [{**container, "volumeMounts": mounts}],
    }
    metadata = {
        "labels": {contract.LABEL_INDEX_KEYS: None},
        "annotations": {contract.ANNOTATION_CONFIG_HASH: "old"},
    }
    scene.cluster.merge(DEPLOYMENTS, deployment, {"spec": {"template": {"metadata": metadata, "spec": spec}}})


@pytest.mark.holds(
    "install.md", "The upgrade to a release with keys for searches replaces retrievers and workers once"
)
@pytest.mark.holds(
    "search.md",
    "After an upgrade searches without a key are answered until no worker is left that sends none, "
    "and then never again",
)
@pytest.mark.holds(
    "decisions/0019-search-keys.md",
    "The upgrade replaces retrievers and workers once, and no worker that sends no key meets a "
    "retriever that asks for one",
)
async def test_an_upgrade_parts_no_fleet_from_its_index(scene: Scene) -> None:
    await a_fleet_that_searches(scene)
    await scene.operator.kill()
    make_older(scene)
    await scene.until(lambda: [sends_key(pod) for pod in pods(scene, WORKER)] == [False])
    await scene.until(lambda: ["keys" in volumes(pod) for pod in pods(scene, RETRIEVER)] == [False])
    replaced = {pod["metadata"]["uid"] for name in (WORKER, RETRIEVER) for pod in pods(scene, name)}

    def every_search_is_answered() -> bool:
        """While a worker sends no key, retrievers ask for none; a worker that sends one finds it there."""
        workers = pods(scene, WORKER)
        if any(map(sends_key, workers)) and scene.api.get(SECRETS, NAMESPACE, KEY) is None:
            return False
        return all(map(sends_key, workers)) or answers_without_key(scene)

    scene.kubelets.never_ready = sends_key_and_is_worker
    with scene.throughout(every_search_is_answered):
        await scene.start_operator()
        await scene.until(lambda: keys(scene) == {"secretName": KEY, "entry": "key", "required": False})
        await scene.until(lambda: any(map(sends_key, pods(scene, WORKER))))
        await scene.pass_time(600)
        assert keys(scene)["required"] is False, "the old worker still searches"
        message = scene.says("RetrieverReady", "True", name="handbook", resource=VECTOR_INDEXES)
        assert "until the workers of support are replaced" in (message or "")

        scene.kubelets.never_ready = lambda _pod: False
        (waiting,) = filter(sends_key, pods(scene, WORKER))
        scene.cluster.report(PODS, waiting, conditions=scene.cluster.condition(waiting, "Ready", "True"))
        await scene.until(lambda: keys(scene)["required"])
    assert not answers_without_key(scene)
    assert all(sends_key(pod) for pod in pods(scene, WORKER))
    assert all("keys" in volumes(pod) for pod in pods(scene, RETRIEVER))
    now = {pod["metadata"]["uid"] for name in (WORKER, RETRIEVER) for pod in pods(scene, name)}
    assert len(now) == len(replaced) == 2
    assert not now & replaced

    await scene.pass_time(1200)
    assert now == {pod["metadata"]["uid"] for name in (WORKER, RETRIEVER) for pod in pods(scene, name)}, (
        "each was replaced once"
    )


def sends_key_and_is_worker(pod: Manifest) -> bool:
    return bool(pod["metadata"]["name"].startswith(WORKER) and sends_key(pod))


@pytest.mark.holds("search.md", "A deleted key is made again within ten minutes, and no pod is replaced")
async def test_a_lost_key_is_made_again_and_replaces_no_pod(scene: Scene) -> None:
    await a_fleet_that_searches(scene)
    assert keys(scene) == {"secretName": KEY, "entry": "key", "required": True}
    key = scene.the(SECRETS, KEY)
    before = {pod["metadata"]["uid"] for pod in scene.api.listed(PODS)}
    scene.cluster.delete(SECRETS, key)
    made = await scene.until(lambda: scene.api.get(SECRETS, NAMESPACE, KEY), within_seconds=660)
    assert made["data"]["key"] != key["data"]["key"]
    await scene.pass_time(120)
    assert {pod["metadata"]["uid"] for pod in scene.api.listed(PODS)} == before
