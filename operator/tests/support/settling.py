"""A cluster in which everything goes well, to see what the controllers make of an object from first to last.

Plans are carried out on manifests in memory. What is written is ready in the next round, every secret has
every entry, every job ends well. Nothing is judged here; the controllers' own tests do that.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Apply, Create, Delete
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller, Secret, World
from flotilla_operator.objects.resources import Key, Manifest
from flotilla_operator.telemetry.measurements import Measurements
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildStep, DocumentCounts, StepReport
from tests.builders.world import CONFIG, NoneIsGone, NothingDecided
from tests.support.planned import Plan, plan_by

ROUND = timedelta(seconds=60)
REPORTS = {
    BuildStep.PLAN: {"documents": DocumentCounts(discovered=3), "shards": 2},
    BuildStep.SHARDS: {},
    BuildStep.PROMOTE: {"documents": DocumentCounts(discovered=3, indexed=3), "count_parity": True},
}


class EveryEntry(dict[str, bytes]):
    """A secret's data with any entry that is asked for."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> bytes:
        return b"postgresql://user:entry@db.example/name"  # also where an entry must be a URL

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]


class EverySecret:
    """Any secret that is asked for, made by the object that asks."""

    def __init__(self, controller_uid: str) -> None:
        self._controller_uid = controller_uid

    async def get(self, namespace: str, name: str, *, owned_by: str | None = None) -> Secret | None:
        data, owner = EveryEntry(), self._controller_uid
        return Secret(name=name, uid=name, resource_version="1", data=data, controller_uid=owner)


class SettlingCluster:
    """Manifests by kind and name, all in one namespace or in none."""

    def __init__(self, *manifests: Manifest, config: OperatorConfig = CONFIG) -> None:
        self._config = config
        self.objects: dict[tuple[str, str], Manifest] = {}
        for manifest in manifests:
            self.put(manifest)

    def put(self, manifest: Manifest) -> None:
        metadata = dict(manifest["metadata"])
        metadata.setdefault("uid", f"uid-{manifest['kind']}-{metadata['name']}")
        metadata.setdefault("resourceVersion", "1")
        metadata.setdefault("creationTimestamp", "2026-05-01T11:00:00Z")
        self.objects[manifest["kind"], metadata["name"]] = {**manifest, "metadata": metadata}

    def change(self, key: Key, spec: Mapping[str, Any]) -> None:
        """Replace an object's spec, which is a new generation."""
        found = self.objects[key.kind, key.name]
        metadata = {**found["metadata"], "generation": found["metadata"]["generation"] + 1}
        self.put({**found, "metadata": metadata, "spec": dict(spec)})

    async def settle(
        self, controller: Controller[Any, Any], manifest: Manifest, now: datetime, rounds: int
    ) -> None:
        """Let the controller look and act so many times."""
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        self.put(manifest)
        for turn in range(rounds):
            await self._round(controller, Key(kind, "default", name), now + turn * ROUND)

    async def plan(self, controller: Controller[Any, Any], key: Key, now: datetime) -> Plan:
        """Plan of the controller for the object as it is."""
        current = self.objects[key.kind, key.name]
        world = World(
            caches=Caches.of(*self.objects.values()),
            measurements=Measurements(),
            config=self._config,
            secrets=EverySecret(current["metadata"]["uid"]),
            decisions=NothingDecided(),
            absent_nodes=NoneIsGone(),
            steady=lambda: 0.0,
        )
        list(controller.references(current))
        facts = await controller.observe(key, current, world, now)
        return plan_by(controller, facts, now)

    async def _round(self, controller: Controller[Any, Any], key: Key, now: datetime) -> None:
        current = self.objects[key.kind, key.name]
        plan = await self.plan(controller, key, now)
        for write in plan.writes:
            if isinstance(write, Apply | Create):
                self._write(write.manifest)
            elif isinstance(write, Delete):
                self._delete(write.uid)
        if plan.status is not None:
            self.objects[key.kind, key.name] = {**current, "status": dict(plan.status)}

    def _write(self, manifest: Manifest) -> None:
        if (manifest["kind"], manifest["metadata"]["name"]) not in self.objects:
            self.put({**manifest, **_come_to_life(manifest)})
            if manifest["kind"] == "Job":
                self.put(_pod_of_job(self.objects["Job", manifest["metadata"]["name"]]))

    def _delete(self, uid: str) -> None:
        self.objects = {
            place: manifest for place, manifest in self.objects.items() if manifest["metadata"]["uid"] != uid
        }


def _come_to_life(manifest: Manifest) -> Mapping[str, Any]:
    """Act on an object as controllers and kubelet do."""
    true = {"status": "True", "lastTransitionTime": "2026-05-01T11:30:00Z"}
    match manifest["kind"]:
        case "Deployment" | "StatefulSet":
            return {"status": {"readyReplicas": manifest["spec"].get("replicas", 1)}}
        case "PersistentVolumeClaim":
            return {"status": {"phase": "Bound"}}
        case "Job":
            done = manifest["spec"].get("completions", 1)
            return {"status": {"succeeded": done, "conditions": [{"type": "Complete", **true}]}}
        case "Pod":
            status = {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", **true}]}
            return {"spec": {**manifest["spec"], "nodeName": "a"}, "status": status}
    return {}


def _pod_of_job(job: Manifest) -> Manifest:
    """The pod that did a job, with its report."""
    step = BuildStep(job["metadata"]["labels"][contract.LABEL_STEP])
    report = StepReport.model_validate({"step": step, **REPORTS[step]})
    ended = {"exitCode": 0, "message": report.model_dump_json(exclude_defaults=True)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job['metadata']['name']}-pod",
            "namespace": "default",
            "labels": job["spec"]["template"]["metadata"].get("labels", {}),
            "ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"], "controller": True}],
        },
        "spec": {},
        "status": {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": ended}}]},
    }
