"""A release restarts nothing of the users': the pod templates of what serves stay, but for their images.

Images do not count, since what serves keeps those it has (cluster/test_kept_images.py). Fleets' own templates
are in their golden files; engine pods are never edited (test_revision.py).
"""

import copy
from typing import Any

import pytest
from pydantic import BaseModel

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.api.vector_index import VectorIndex
from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.router import router_manifests
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_operator.workloads.vector_index.milvus import milvus_objects
from flotilla_operator.workloads.vector_index.retriever import retriever_objects
from tests.builders import model_replica_set, vector_index
from tests.builders.model_replica_set import IMAGES

FULL_SET, FULL_INDEX = model_replica_set.full_featured_objects()[0], vector_index.full_featured_objects()[0]
KEYS = EmbedderModel(
    name="minilm",
    url="http://minilm-model.default.svc:8000/v1",
    spec=model_replica_set.spec_of(router={"authSecretRef": {"name": "keys"}}),
)


def routers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = ModelReplicaSet.model_validate(manifest).spec
    return router_manifests(model_replica_set.OWNER, spec, IMAGES)


def retrievers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    spec = VectorIndex.model_validate(manifest).spec
    versions = {"FLOTILLA_EMBEDDER_KEY": "version"}
    return retriever_objects(vector_index.OWNER, spec, IMAGES, KEYS, versions, keyless=False)


def databases(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return milvus_objects(vector_index.OWNER, VectorIndex.model_validate(manifest).spec, IMAGES, [])


def without_images(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [each for each in manifests if each["kind"] in ("Deployment", "StatefulSet")]
    template: dict[str, Any] = copy.deepcopy(found["spec"]["template"])
    for container in [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]:
        container["image"] = ""
    return template


@pytest.mark.parametrize(
    ("manifests", "golden"),
    [
        pytest.param(routers(model_replica_set.model_replica_set()), "xre2zifv5e", id="router"),
        pytest.param(routers(FULL_SET), "n2f3jvof4k", id="router, every field"),
        pytest.param(retrievers(vector_index.vector_index()), "jvsfqjx5a3", id="retriever"),
        pytest.param(retrievers(FULL_INDEX), "prvhi6utwi", id="retriever, every field"),
        pytest.param(databases(vector_index.vector_index()), "wxoyqktjww", id="Milvus Lite"),
    ],
)
def test_templates_are_the_same_from_release_to_release(manifests: list[dict[str, Any]], golden: str) -> None:
    """A change here restarts every pod of the kind in every cluster that upgrades: is it meant?"""
    assert stable_hash(without_images(manifests)) == golden


class Settings(BaseModel):
    """A component's configuration."""

    name: str
    limit: int = 5


class SettingsOfTheNextRelease(Settings):
    """The same with one setting more."""

    added: str = "as before"


def test_a_setting_that_is_added_changes_no_configuration() -> None:
    before = objects.config_file(Settings(name="a"))
    assert objects.config_file(SettingsOfTheNextRelease(name="a")) == before
    assert objects.config_file(SettingsOfTheNextRelease(name="a", added="b")) != before


def test_a_default_that_is_written_out_changes_no_configuration() -> None:
    assert objects.config_file(Settings(name="a", limit=5)) == objects.config_file(Settings(name="a"))
