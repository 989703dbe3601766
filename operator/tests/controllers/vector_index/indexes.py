"""A vector index in a world of manifests, observed as the loop would, with builders for what a row needs."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Apply, Create, Delete
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.vector_index.cleanup import Cleanup, CleanupState, Remains
from flotilla_operator.controllers.vector_index.controller import VectorIndexController
from flotilla_operator.controllers.vector_index.seen import Leaving, Observed
from flotilla_operator.objects.resources import Key
from flotilla_operator.objects.used_by import ANNOTATION
from flotilla_operator.telemetry.measurements import Measurement, Measurements
from flotilla_runtime.contract import BuildStep, DocumentCounts, StepReport
from tests.builders.model_replica_set import model_replica_set
from tests.builders.vector_index import vector_index
from tests.builders.world import CONFIG, Entries, NoneIsGone, NothingDecided, Secrets
from tests.support.planned import Plan, plan_by

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
Manifest = dict[str, Any]


def embedder(*, available: bool = True, **spec: Any) -> Manifest:
    """The ModelReplicaSet that embeds."""
    base = {"model": {"name": "all-minilm", "source": "pvc://models/minilm", "task": "Embed"}}
    condition = {"type": "Available", "status": "True" if available else "False"}
    return model_replica_set("minilm", status={"conditions": [condition]}, **{**base, **spec})


def claim(name: str, *, used_by: str | None = None, **labels: str) -> Manifest:
    """A PersistentVolumeClaim of the user's."""
    annotations = {} if used_by is None else {ANNOTATION: used_by}
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {**metadata, "annotations": annotations},
        "spec": {"accessModes": ["ReadWriteOnce"]},
    }


class Stage:
    """Objects of the cluster; `settle` carries plans out as the writer would."""

    def __init__(self, index: Manifest | None = None, *others: Manifest, **secrets: Entries) -> None:
        self.index = index or vector_index()
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.put(claim("models"), *(others or (embedder(), claim("documents"))))
        self.secrets = Secrets(secrets)
        self.measurements = Measurements()
        self.controller = VectorIndexController(milvus_on_loopback=True)
        self.config = CONFIG
        self.events: list[str] = []

    def put(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            self.objects[manifest["kind"], manifest["metadata"]["name"]] = manifest

    def observe(self, now: datetime = NOW) -> Observed | Leaving:
        return asyncio.run(self.observing(now))

    async def observing(self, now: datetime = NOW) -> Observed | Leaving:
        caches = Caches.of(self.index, *self.objects.values())
        world = World(
            caches=caches,
            measurements=self.measurements,
            config=self.config,
            secrets=self.secrets,
            decisions=NothingDecided(),
            absent_nodes=NoneIsGone(),
            steady=lambda: 0.0,
        )
        name = self.index["metadata"]["name"]
        return await self.controller.observe(Key("VectorIndex", "default", name), self.index, world, now)

    def plan(self, now: datetime = NOW) -> Plan:
        return plan_by(self.controller, self.observe(now), now)

    def step(self, now: datetime = NOW) -> Plan:
        """Plan, and carry the plan out."""
        plan = self.plan(now)
        for write in plan.writes:
            match write:
                case Apply() | Create():
                    self._write(write.manifest)
                case Delete():
                    self.objects = {
                        place: manifest
                        for place, manifest in self.objects.items()
                        if manifest["metadata"].get("uid") != write.uid
                    }
        if plan.status is not None:
            self.index = {**self.index, "status": dict(plan.status)}
        self.events += [event.reason for event in plan.events]
        return plan

    def _write(self, manifest: Manifest) -> None:
        place = manifest["kind"], manifest["metadata"]["name"]
        live = self.objects.get(place)
        status = {"status": live["status"]} if live is not None and "status" in live else {}
        metadata = {**manifest["metadata"], "uid": f"uid-{place[1]}-{place[0]}", "resourceVersion": "1"}
        self.objects[place] = {**manifest, "metadata": metadata, **status}

    def without_image_of_milvus(self) -> "Stage":
        """From now on the chart names no image of Milvus Lite."""
        images = self.config.images.model_copy(update={"milvus": ""})
        self.config = self.config.model_copy(update={"images": images})
        return self

    def ready(self) -> None:
        """Every workload of ours has a ready pod."""
        for kind, name in (("StatefulSet", "handbook-milvus"), ("Deployment", "handbook-retriever")):
            if (kind, name) in self.objects:
                self.objects[kind, name]["status"] = {"readyReplicas": 1}

    def jobs(self) -> dict[str, Manifest]:
        """The Jobs by step."""
        return {
            manifest["metadata"]["labels"]["flotilla.dev/step"]: manifest
            for (kind, _), manifest in self.objects.items()
            if kind == "Job"
        }

    def finish(self, step: BuildStep, report: StepReport | None, *, at: datetime = NOW) -> None:
        """The step's Job ends as its report says, by way of a pod's termination message."""
        job = self.jobs()[step]
        failed = report is not None and report.reason is not None
        condition = {"type": "Failed" if failed else "Complete", "status": "True"}
        job["status"] = {
            "succeeded": 0 if failed else job["spec"].get("completions", 1),
            "conditions": [{**condition, "lastTransitionTime": at.isoformat()}],
        }
        message = report.model_dump_json(exclude_defaults=True) if report is not None else ""
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{job['metadata']['name']}-pod",
                    "namespace": "default",
                    "uid": f"uid-pod-{job['metadata']['name']}",
                    "labels": job["spec"]["template"]["metadata"]["labels"],
                    "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
                },
                "status": {
                    "phase": "Failed" if failed else "Succeeded",
                    "containerStatuses": [
                        {"state": {"terminated": {"exitCode": int(failed), "message": message}}}
                    ],
                },
            }
        )

    def build(self) -> None:
        """A whole build that goes well."""
        self.step()
        self.ready()
        self.step()
        self.finish(BuildStep.PLAN, planned())
        self.step()
        self.finish(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS))
        self.step()
        self.finish(BuildStep.PROMOTE, promoted())
        self.step()

    def measure(self, document: Mapping[str, Any]) -> None:
        """Answer of the retriever's pod about itself."""
        selector = self.objects["Deployment", "handbook-retriever"]["spec"]["selector"]["matchLabels"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "retriever-pod",
                "namespace": "default",
                "uid": "uid-retriever",
                "labels": selector,
            },
            "status": {"podIP": "10.0.0.9"},
        }
        self.put(pod)
        self.measurements.record(
            "uid-retriever", Measurement(at=NOW, document=json.loads(json.dumps(document)))
        )

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.index["status"]
        return status

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason."""
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"]

    def message(self, kind: str) -> str:
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        message: str = found["message"]
        return message


def being_emptied(stage: Stage, state: CleanupState) -> Leaving:
    """The index, deleted at NOW, while its collections are being removed from an external Milvus."""
    stage.index["metadata"]["deletionTimestamp"] = NOW.isoformat()
    seen = stage.observe()
    assert isinstance(seen, Leaving)
    there = {"uri": "http://milvus.example", "database": "default", "token": None}
    remains = Remains(**there, alias="a", prefix="a_g_", index_uid="uid")  # type: ignore[arg-type]
    return replace(seen, held=True, deletes=True, remains=remains, cleanup=Cleanup(state=state))


def planned(shards: int = 2) -> StepReport:
    """Report of the plan step of ten documents."""
    return StepReport(
        step=BuildStep.PLAN,
        documents=DocumentCounts(discovered=10, dead_lettered=1),
        shards=shards,
        tokenizer="Model",
    )


def promoted() -> StepReport:
    """Report of the promotion of ten documents."""
    return StepReport(
        step=BuildStep.PROMOTE,
        documents=DocumentCounts(discovered=10, indexed=9, dead_lettered=1),
        chunks=81,
        shards=2,
        count_parity=True,
        tokenizer="Model",
    )
