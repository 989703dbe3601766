"""Ten stories end on the fake API server as on a real one, with its scheduler, controllers and KWOK's nodes.

What a scene shows is therefore what users see, as far as these stories reach.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flotilla_operator.objects.resources import PODS, Manifest, Resource
from local_cluster.api_client import MERGE, ApiClient
from local_cluster.errors import ApiError
from tests.controllers.model_replica_set.stage import Stage
from tests.scenes.scene import Scene
from tests.scenes.stories import STORIES, ending
from tests.scenes.words import Words
from tests.support.fake_requests import Reply
from tests.support.virtual_time import run
from tests.support.waiting import until

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


class RealHands:
    """Sends what a scene asks for to a real API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def create(self, resource: Resource, manifest: Manifest) -> Reply:
        return self._ask("POST", resource.path(manifest["metadata"].get("namespace")), manifest)

    def delete(self, resource: Resource, manifest: Manifest, **options: Any) -> Reply:
        body = {"preconditions": {"uid": manifest["metadata"]["uid"]}, **options}
        return self._ask("DELETE", _path(resource, manifest), body)

    def merge(self, resource: Resource, manifest: Manifest, patch: Mapping[str, Any]) -> Reply:
        return self._ask("PATCH", _path(resource, manifest), patch, kind=MERGE)

    def evict(self, pod: Manifest) -> Reply:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod["metadata"]["name"]}}
        return self._ask("POST", f"{_path(PODS, pod)}/eviction", body)

    def listed(self, resource: Resource, namespace: str = "") -> list[Manifest]:
        items: list[Manifest] = self._client.get(resource.path(namespace or None))["items"]
        return items

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        try:
            return self._client.get(resource.path(namespace or None, name))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def _ask(self, method: str, path: str, body: Mapping[str, Any], kind: str = "application/json") -> Reply:
        try:
            document = self._client.request(method, path, body=body, kind=kind)
        except ApiError as error:
            return Reply(status=error.status, document={"message": error.message})
        return Reply(status=201 if method == "POST" else 200, document=document)


def _path(resource: Resource, manifest: Manifest) -> str:
    metadata = manifest["metadata"]
    return resource.path(metadata.get("namespace"), metadata["name"])


class RealWords(Words):
    """The words on a stage; its nodes have names of their own, and its sets keep to them."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(RealHands(stage.client), stage.namespace)
        self._stage = stage

    def node(self, name: str, **shape: Any) -> str:
        return self._stage.node(name, **shape)

    def full_name(self, node: str) -> str:
        return f"{node}-{self.namespace}"

    def short_name(self, node: str) -> str:
        return node.removesuffix(f"-{self.namespace}")

    def create(self, name: str = "llama", **spec: Any) -> None:
        super().create(name, **{"placement": {"nodeSelector": {"stage": self.namespace}}, **spec})

    def foreign_pod(self, name: str, node: str, gpus: int) -> None:
        self._stage.foreign_pod(name, self.full_name(node), gpus)

    async def until(self, holds: Callable[[], Any]) -> Any:
        await until(holds)
        return holds()


async def on_a_fake_one(name: str) -> dict[str, Any]:
    async with Scene().playing() as scene:
        await STORIES[name](scene)
        return await ending(scene)


async def on_a_real_one(stage: Stage, name: str) -> dict[str, Any]:
    told = RealWords(stage)
    await STORIES[name](told)
    return await ending(told)


@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_alike_on_both(stage: Stage, name: str) -> None:
    fake = run(on_a_fake_one(name))
    real = asyncio.run(on_a_real_one(stage, name))
    assert json.loads(json.dumps(fake)) == json.loads(json.dumps(real))
