"""A release restarts nothing of the users': the pod templates of what serves stay as a release of before made
them.

Neither images nor the parts of template_parts.py count, since what serves keeps those it has
(cluster/test_kept_templates.py). Engine pods are never edited (test_revision.py).
"""

import copy
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.api.vector_index import VectorIndex
from flotilla_operator.cluster.kept_templates import with_kept_template
from flotilla_operator.controllers.rendered import rendered
from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.workloads import agent_fleet as fleets
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.router import router_manifests
from flotilla_operator.workloads.template_parts import TemplatePart
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_operator.workloads.vector_index.milvus import milvus_objects
from flotilla_operator.workloads.vector_index.retriever import retriever_objects
from tests.builders import agent_fleet, model_replica_set, vector_index
from tests.builders.model_replica_set import IMAGES

FULL_SET, FULL_INDEX = model_replica_set.full_featured_objects()[0], vector_index.full_featured_objects()[0]
KEYS = EmbedderModel(
    name="minilm",
    url="http://minilm-model.default.svc:8000/v1",
    spec=model_replica_set.spec_of(router={"authSecretRef": {"name": "keys"}}),
)
FLEET = agent_fleet.agent_fleet()
FLEET_WITH_EXECUTORS = agent_fleet.agent_fleet(
    tools=[{"name": "order", "python": "shop.tools:order"}],
    image="registry.example/shop:1",
    toolExecutors={},
    gateway={"auth": {"mode": "Secret", "secretRef": {"name": "callers"}}},
)
WITHOUT_PARTS = replace(IMAGES, parts=frozenset())


def routers(manifest: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    spec = ModelReplicaSet.model_validate(manifest).spec
    return router_manifests(model_replica_set.OWNER, spec, images)


def retrievers(manifest: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    spec = VectorIndex.model_validate(manifest).spec
    versions = {"FLOTILLA_EMBEDDER_KEY": "version"}
    return retriever_objects(vector_index.OWNER, spec, images, KEYS, versions, keyless=False)


def databases(manifest: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    return milvus_objects(vector_index.OWNER, VectorIndex.model_validate(manifest).spec, images, [])


def gateways(manifest: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    spec = AgentFleet.model_validate(manifest).spec
    return fleets.gateway_manifests(agent_fleet.OWNER, spec, fleets.Wiring(), images, "r")


def workers(manifest: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    spec = AgentFleet.model_validate(manifest).spec
    return fleets.worker_manifests(agent_fleet.OWNER, spec, fleets.Wiring(), images, 1)


def executors(manifest: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    spec = AgentFleet.model_validate(manifest).spec
    return fleets.executor_manifests(agent_fleet.OWNER, spec, fleets.Wiring(), images, 1)


def queues(manifest: dict[str, Any], images: Images) -> list[dict[str, Any]]:
    spec = AgentFleet.model_validate(manifest).spec
    executors = fleets.has_executors(spec)
    return fleets.redis_manifests(
        agent_fleet.OWNER, spec.queue.redis, images, digests={}, has_executors=executors
    )


def workload(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [each for each in manifests if each["kind"] in ("Deployment", "StatefulSet")]
    return found


def without_images(manifest: dict[str, Any]) -> dict[str, Any]:
    template: dict[str, Any] = copy.deepcopy(manifest["spec"]["template"])
    for container in [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]:
        container["image"] = ""
    return template


WORKLOADS = [
    pytest.param(routers, model_replica_set.model_replica_set(), "xre2zifv5e", id="router"),
    pytest.param(routers, FULL_SET, "n2f3jvof4k", id="router, every field"),
    pytest.param(retrievers, vector_index.vector_index(), "v3k7dvuf5a", id="retriever"),
    pytest.param(retrievers, FULL_INDEX, "tm2mrty3sh", id="retriever, every field"),
    pytest.param(databases, vector_index.vector_index(), "wxoyqktjww", id="Milvus Lite"),
    pytest.param(gateways, FLEET, "d4452apsrz", id="gateway"),
    pytest.param(gateways, FLEET_WITH_EXECUTORS, "tep4eej7fs", id="gateway, callers of a secret"),
    pytest.param(workers, FLEET, "eg6i7v2wzb", id="worker"),
    pytest.param(workers, FLEET_WITH_EXECUTORS, "xdd5ircibv", id="worker, image of the user"),
    pytest.param(executors, FLEET_WITH_EXECUTORS, "v4sazl6pz4", id="executor"),
    pytest.param(queues, FLEET, "g2ywoytrxy", id="Redis"),
    pytest.param(queues, FLEET_WITH_EXECUTORS, "dhcgp4xjwp", id="Redis, with executors"),
]


@pytest.mark.holds("decisions/0008-upgrades.md", "An upgrade of the operator restarts nothing")
@pytest.mark.parametrize(("render", "manifest", "golden"), WORKLOADS)
def test_templates_without_parts_are_the_same_from_release_to_release(
    render: Any, manifest: dict[str, Any], golden: str
) -> None:
    """A change here restarts every pod of the kind in every cluster that upgrades: is it meant?

    If not, the change is a part of template_parts.py.
    """
    assert stable_hash(without_images(workload(render(manifest, WITHOUT_PARTS)))) == golden


@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "A part that a release adds to a template is taken when a new image is, and until then the "
    "template stays",
)
@pytest.mark.parametrize(("render", "manifest", "golden"), WORKLOADS)
def test_what_serves_without_parts_stays_and_takes_all_when_somebody_asks(
    render: Any, manifest: dict[str, Any], golden: str
) -> None:
    found = next(
        one
        for one in rendered(lambda images: render(manifest, images), IMAGES)
        if one.manifest["kind"] in ("Deployment", "StatefulSet")
    )
    of_before = with_kept_template(workload(render(manifest, WITHOUT_PARTS)), None, refresh="")
    live = {**of_before, "status": {"readyReplicas": 1}}
    assert with_kept_template(found.manifest, live, refresh="", parts=found.parts) == of_before
    asked = with_kept_template(found.manifest, live, refresh="now", parts=found.parts)
    assert asked["spec"] == found.manifest["spec"]


def test_parts_are_rendered_by_name() -> None:
    (one,) = rendered(lambda images: [objects_with(images)], IMAGES)
    assert one.manifest == objects_with(IMAGES)
    assert one.parts.names == frozenset(TemplatePart)
    assert one.parts.with_only(frozenset({"unknown"})) == objects_with(WITHOUT_PARTS)
    assert one.parts.with_only(one.parts.names) == objects_with(IMAGES)
    changed = one.changed(lambda manifest: {**manifest, "added": True})
    assert changed.manifest == {**objects_with(IMAGES), "added": True}
    assert changed.parts.with_only(frozenset()) == {**objects_with(WITHOUT_PARTS), "added": True}


def objects_with(images: Images) -> dict[str, Any]:
    return {"kind": "Deployment", "metadata": {"name": "w"}, "parts": sorted(images.parts)}


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
