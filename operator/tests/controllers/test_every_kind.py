"""Duties of every kind: a settled object is written no more, an object of somebody else's is left alone and
named, a paused object and one that is being deleted are left as they are, a newer release's field is named.

Here with the real controllers, and a cluster or an API server made of dictionaries. What only a real API
server shows (defaulting, garbage collection) is in the kinds' tests with the mark `apiserver`.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.base import ApiModel
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.events import Recorder
from flotilla_operator.cluster.kept_templates import WITH_LONG_LIVED_PODS
from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.cluster.reflector import Change
from flotilla_operator.cluster.status import StatusLimiter
from flotilla_operator.cluster.writer import Writer
from flotilla_operator.cluster.writes import Apply, Create
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.ignored_fields import ignored_fields
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.reconciler import Hands, Reconciler
from flotilla_operator.controllers.vector_index.controller import VectorIndexController
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.resources import Key, Manifest, resource_of
from flotilla_operator.telemetry.measurements import Measurements
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import Scraper
from flotilla_operator.workloads.template_parts import ALL_PARTS
from tests.builders import agent_fleet as fleets
from tests.builders import model_replica_set as sets
from tests.builders import vector_index as indexes
from tests.builders.world import CONFIG, IMAGES, NoneIsGone, steering_loop
from tests.support.fake_api import FakeApi
from tests.support.planned import Plan
from tests.support.settling import ROUND, EverySecret, SettlingCluster

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
ROUNDS = 8
BUILD_STEPS = ("plan", "shards", "promote")
WITH_PODS = ("Pod", "Deployment", "StatefulSet", "Job")


def core(kind: str, name: str, **fields: Any) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, **fields}


NODE = core(
    "Node",
    "a",
    status={
        "allocatable": {"nvidia.com/gpu": "64", "cpu": "512", "memory": "900Gi", "pods": "500"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
)
NODE["metadata"]["labels"] = {"nvidia.com/gpu.product": "H100"}
EMBEDDER = sets.model_replica_set(
    "minilm",
    model={"name": "minilm", "source": "pvc://models/minilm", "task": "Embed"},
    status={"conditions": [{"type": "Available", "status": "True"}]},
)


@dataclass(frozen=True)
class Kind:
    """A kind's controller, a small object of it with changes of its spec, and what that refers to."""

    controller: Callable[[], Any]
    make: Callable[..., Manifest]
    spec: type[ApiModel]
    around: tuple[Manifest, ...]

    def key(self) -> Key:
        manifest = self.make()
        return Key(manifest["kind"], "default", manifest["metadata"]["name"])


SET = Kind(ModelReplicaSetController, sets.gpu_set, ModelReplicaSetSpec, (NODE,))
FLEET = Kind(AgentFleetController, fleets.agent_fleet, AgentFleetSpec, (fleets.served_model(),))
INDEX = Kind(
    VectorIndexController,
    indexes.vector_index,
    VectorIndexSpec,
    (
        EMBEDDER,
        *(
            core("PersistentVolumeClaim", name, spec={"accessModes": ["ReadWriteOnce"]})
            for name in ("documents", "models")
        ),
    ),
)
by_kind = pytest.mark.parametrize(
    "kind",
    [pytest.param(SET, id="set"), pytest.param(FLEET, id="fleet"), pytest.param(INDEX, id="index")],
)


async def settled(kind: Kind) -> tuple[SettlingCluster, Any]:
    cluster, controller = SettlingCluster(*kind.around), kind.controller()
    await cluster.settle(controller, kind.make(), NOW, ROUNDS)
    return cluster, controller


def condition(plan_or_object: Any, condition_type: str) -> tuple[str, str]:
    (found,) = (c for c in plan_or_object["conditions"] if c["type"] == condition_type)
    return found["status"], found["reason"]


@pytest.mark.holds("architecture.md", "Planning right after applying gives nothing to do, for each kind")
@by_kind
async def test_a_settled_object_is_ready_and_asks_for_nothing_that_is_not_there(kind: Kind) -> None:
    cluster, controller = await settled(kind)
    plan = await cluster.plan(controller, kind.key(), NOW + ROUNDS * ROUND)
    assert plan.status is not None
    assert condition(plan.status, "Ready") == ("True", "Ready")
    assert plan.status == cluster.objects[kind.key().kind, kind.key().name]["status"]
    assert plan.events == []
    assert {type(write) for write in plan.writes} == {Apply}
    for write in plan.writes:
        assert isinstance(write, Apply)
        held = cluster.objects[write.manifest["kind"], write.manifest["metadata"]["name"]]
        assert {name: held[name] for name in write.manifest if name != "metadata"} == {
            name: value for name, value in write.manifest.items() if name != "metadata"
        }
        assert write.manifest["metadata"].items() <= held["metadata"].items()


@pytest.mark.holds("decisions/0008-upgrades.md", "Another release makes neither engine pods nor Jobs anew")
@by_kind
async def test_another_release_creates_and_deletes_nothing_of_a_settled_object(kind: Kind) -> None:
    """Neither engine pods nor Jobs are made anew. What is applied: see test_kept_templates.py."""
    cluster, controller = await settled(kind)
    later = NOW + ROUNDS * ROUND
    before = await cluster.plan(controller, kind.key(), later)
    names = {name: f"registry.example/{name}:2" for name in IMAGES}
    upgraded = SettlingCluster(config=parse_config({"images": names}))
    upgraded.objects = cluster.objects
    plan = await upgraded.plan(controller, kind.key(), later)
    assert {type(write) for write in plan.writes} == {Apply}
    assert plan.status == before.status
    assert plan.writes != before.writes, "the images are others"


@pytest.mark.holds(
    "install.md", "After an upgrade routers, gateways and workers keep the settings that their pods have"
)
@pytest.mark.holds(
    "decisions/0008-upgrades.md",
    "Every Deployment and StatefulSet of every kind can be rendered as the release before did",
)
@by_kind
async def test_every_workload_can_be_rendered_as_a_release_of_before_did(kind: Kind) -> None:
    cluster, controller = await settled(kind)
    plan = await cluster.plan(controller, kind.key(), NOW + ROUNDS * ROUND)
    workloads = [
        write
        for write in plan.writes
        if isinstance(write, Apply) and write.manifest["kind"] in WITH_LONG_LIVED_PODS
    ]
    assert workloads
    for write in workloads:
        assert write.parts is not None
        assert write.parts.names == ALL_PARTS
        assert write.parts.with_only(write.parts.names) == write.manifest
        assert write.parts.with_only(frozenset())["metadata"] == write.manifest["metadata"]


@pytest.mark.parametrize(
    ("kind", "condition_type", "expected"),
    [
        pytest.param(SET, "Progressing", ("False", "Paused"), id="set"),
        pytest.param(FLEET, "Paused", ("True", "SpecPaused"), id="fleet"),
        pytest.param(INDEX, "Built", ("False", "Paused"), id="index"),
    ],
)
async def test_an_object_that_is_paused_from_the_start_is_told_of_and_gets_nothing(
    kind: Kind, condition_type: str, expected: tuple[str, str]
) -> None:
    cluster = SettlingCluster(*kind.around, kind.make(paused=True))
    plan = await cluster.plan(kind.controller(), kind.key(), NOW)
    assert list(plan.writes) == []
    assert condition(plan.status, condition_type) == expected


@pytest.mark.parametrize(
    ("kind", "changes", "condition_type", "expected"),
    [
        pytest.param(SET, {"engine": {"maxNumSeqs": 7}}, "Progressing", ("False", "UpdatePaused"), id="set"),
        pytest.param(FLEET, {"agent": {"prompt": "Ask."}}, "Paused", ("True", "SpecPaused"), id="fleet"),
        pytest.param(INDEX, {"processing": {"chunkTokens": 64}}, "Built", ("False", "Paused"), id="index"),
    ],
)
async def test_a_settled_object_that_is_paused_is_told_of_and_keeps_what_it_has(
    kind: Kind, changes: dict[str, Any], condition_type: str, expected: tuple[str, str]
) -> None:
    cluster, controller = await settled(kind)
    later = NOW + ROUNDS * ROUND
    settled_plan = await cluster.plan(controller, kind.key(), later)
    cluster.change(kind.key(), kind.make(**changes)["spec"])
    changed_plan = await cluster.plan(controller, kind.key(), later)
    assert changed_plan.writes != settled_plan.writes, "without the pause the change is carried out"
    cluster.change(kind.key(), kind.make(**changes, paused=True)["spec"])
    plan = await cluster.plan(controller, kind.key(), later)
    assert list(plan.writes) == []
    assert condition(plan.status, condition_type) == expected


@pytest.mark.holds(
    "install.md", "`images.pullSecrets` is named by the operator's pod and by every other pod of our objects"
)
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        pytest.param(SET, {"haproxy", "engine"}, id="set"),
        pytest.param(FLEET, {"redis", "gateway", "worker"}, id="fleet"),
        pytest.param(INDEX, {"milvus", "retriever", *BUILD_STEPS}, id="index"),
    ],
)
async def test_every_pod_names_the_pull_secrets_of_the_configuration(kind: Kind, names: set[str]) -> None:
    cluster = SettlingCluster(
        *kind.around, config=CONFIG.model_copy(update={"image_pull_secrets": ("registry",)})
    )
    await cluster.settle(kind.controller(), kind.make(), NOW, ROUNDS)
    specs = [found["spec"] for found in cluster.objects.values() if found["kind"] in WITH_PODS]
    pods = [spec.get("template", {"spec": spec})["spec"] for spec in specs if spec]
    assert {pod["containers"][0]["name"] for pod in pods} == names
    assert [pod["imagePullSecrets"] for pod in pods] == [[{"name": "registry"}]] * len(pods)


@by_kind
async def test_the_children_of_a_deleted_object_are_left_to_the_garbage_collector(kind: Kind) -> None:
    manifest = kind.make()
    manifest["metadata"]["deletionTimestamp"] = NOW.isoformat()
    plan = await SettlingCluster(*kind.around, manifest).plan(kind.controller(), kind.key(), NOW)
    leaving = {"observedGeneration": 1, "phase": "Deleting"}
    assert plan == (Plan(status=leaving, finalizers=()) if kind is INDEX else Plan())


@by_kind
async def test_a_field_of_a_newer_release_is_named_and_holds_nothing_back(kind: Kind) -> None:
    cluster = SettlingCluster(*kind.around, kind.make(shiny=True))
    plan = await cluster.plan(kind.controller(), kind.key(), NOW)
    assert plan.status is not None
    assert condition(plan.status, "SpecValid") == ("True", "FieldsIgnored")
    (message,) = (c["message"] for c in plan.status["conditions"] if c["type"] == "SpecValid")
    assert "spec.shiny" in message
    without = await SettlingCluster(*kind.around, kind.make()).plan(kind.controller(), kind.key(), NOW)
    assert made(plan) == made(without) != []


def made(plan: Plan) -> list[str]:
    """The kinds of the objects that are created or applied."""
    return sorted(write.manifest["kind"] for write in plan.writes if isinstance(write, Apply | Create))


@pytest.mark.parametrize(
    ("spec", "manifest"),
    [
        pytest.param(kind.spec, manifest, id=manifest["metadata"]["name"])
        for kind, objects in (
            (SET, sets.full_featured_objects()),
            (FLEET, fleets.full_featured_objects()),
            (INDEX, indexes.full_featured_objects()),
        )
        for manifest in objects
    ],
)
def test_nothing_of_what_we_know_is_ignored(spec: type[ApiModel], manifest: Manifest) -> None:
    assert ignored_fields(spec, manifest["spec"], "spec") == []


@dataclass
class Loop:
    """The loop over one object, what its API server holds, and the keys that a change has woken."""

    api: FakeApi
    caches: Caches
    reconciler: Reconciler
    wakes: Wakes
    woken: list[Key]

    def put(self, manifest: Manifest) -> Manifest:
        stored = self.api.put(resource_of(manifest), manifest)
        self.caches.store(resource_of(manifest)).put(stored)
        return stored

    def remove(self, manifest: Manifest) -> None:
        """As its owner deletes it, and as the watch then tells of it."""
        resource, metadata = resource_of(manifest), manifest["metadata"]
        self.api.remove(resource, metadata["namespace"], metadata["name"])
        self.caches.store(resource).remove(metadata["namespace"], metadata["name"], metadata["uid"])
        self.woken.clear()
        self.wakes.changed(resource, manifest, Change.REMOVED)


@asynccontextmanager
async def loop(kind: Kind) -> AsyncIterator[Loop]:
    api, caches, controller = FakeApi(), Caches(), kind.controller()
    woken: list[Key] = []
    wakes, scraper = Wakes([controller], caches, woken.append), Scraper(Measurements())
    manifest = kind.make()
    async with api.running(), api.client() as client:
        queue = KeyedQueue()
        steering = steering_loop(queue)
        hands = Hands(
            queue=queue,
            writer=Writer(client, caches, StatusLimiter(), on_change=wakes.changed),
            recorder=Recorder(client, "test"),
            scraper=scraper,
            steering=steering,
            wakes=wakes,
            metrics=Metrics(),
        )
        secrets = EverySecret(manifest["metadata"]["uid"])
        world = World(
            caches=caches,
            measurements=Measurements(),
            config=CONFIG,
            secrets=secrets,
            decisions=steering,
            absent_nodes=NoneIsGone(),
            steady=lambda: 0.0,
        )
        reconciler = Reconciler([controller], world, hands, now=lambda: NOW)
        looping = Loop(api, caches, reconciler, wakes, woken)
        for one in (*kind.around, manifest):
            looping.put(one)
        yield looping
        await scraper.close()


@pytest.mark.parametrize(
    ("kind", "api_version", "taken", "name"),
    [
        pytest.param(SET, "v1", "Service", "llama-model", id="set: what callers call"),
        pytest.param(SET, "apps/v1", "Deployment", "llama-router", id="set: its routers"),
        pytest.param(SET, "v1", "ConfigMap", "llama-router", id="set: its routers' configuration"),
        pytest.param(FLEET, "v1", "Service", "support-gateway", id="fleet: what callers call"),
        pytest.param(FLEET, "apps/v1", "StatefulSet", "support-redis", id="fleet: its Redis"),
        pytest.param(
            FLEET,
            "v1",
            "ConfigMap",
            f"support-{fleets.worker_of(fleets.agent_fleet())}",
            id="fleet: its workers' configuration",
        ),
        pytest.param(INDEX, "v1", "Service", "handbook-retriever", id="index: what callers call"),
        pytest.param(INDEX, "apps/v1", "StatefulSet", "handbook-milvus", id="index: its Milvus"),
        pytest.param(
            INDEX, "v1", "ConfigMap", "handbook-retriever", id="index: its retriever's configuration"
        ),
    ],
)
async def test_an_object_of_somebody_elses_is_left_alone_and_said_until_it_goes(
    kind: Kind, api_version: str, taken: str, name: str
) -> None:
    theirs = {**core(taken, name, spec={"theirs": True}), "apiVersion": api_version}
    async with loop(kind) as found:
        before = found.put(theirs)["metadata"]["resourceVersion"]
        for _ in range(2):
            await found.reconciler.attempt(kind.key())
        after = found.api.get(resource_of(theirs), "default", name)
        assert after is not None
        assert (after["metadata"]["resourceVersion"], after["spec"]) == (before, {"theirs": True})
        live = found.caches.get(resource_of(kind.make()), "default", kind.key().name) or {}
        assert condition(live["status"], "Ready") == ("False", "NameTaken")
        assert condition(live["status"], "Stalled") == ("True", "NameTaken")
        (message,) = (c["message"] for c in live["status"]["conditions"] if c["type"] == "Ready")
        assert f"{taken} {name}" in message
        found.remove(after)
        assert found.woken == [kind.key()]
        for _ in range(2):
            await found.reconciler.attempt(kind.key())
        live = found.caches.get(resource_of(kind.make()), "default", kind.key().name) or {}
        assert condition(live["status"], "Ready")[1] != "NameTaken"
        ours = found.api.get(resource_of(theirs), "default", name)
        assert ours is not None
        assert [owner["kind"] for owner in ours["metadata"]["ownerReferences"]] == [kind.key().kind]
