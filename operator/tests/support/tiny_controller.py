"""A controller small enough to be checked by eye, which uses every kind of write.

Its objects are ModelReplicaSets. It keeps `spec.replicas` pods, each created gated and then ungated by a JSON
patch; deletes those beyond; applies a ConfigMap with `spec.pod.annotations` as its data; guards its object
with a finalizer; counts its pods in the status; and tells in an event when all are placed. As a program it is
an operator with this controller alone, which kills itself at the crash point named in CRASH_AT.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.crash_points import CrashPoint
from flotilla_operator.cluster.writer import Writer
from flotilla_operator.cluster.writes import Acts, Apply, Create, Delete, JsonPatch, Told, Write
from flotilla_operator.controllers.conditions import (
    Condition,
    Truth,
    conditions_of,
    merged,
    transitions,
    with_summary,
)
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.failures import corrected
from flotilla_operator.controllers.logs import configure_logs
from flotilla_operator.controllers.main import run_process
from flotilla_operator.controllers.outside import Place
from flotilla_operator.controllers.steering import FiguresOnly
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    MODEL_REPLICA_SETS,
    PODS,
    Key,
    Manifest,
    Reference,
    Resource,
)
from flotilla_runtime.contract import RouterStatus

FINALIZER = "flotilla.dev/tiny"
GATE = {"name": "flotilla.dev/tiny"}
IMAGES = dict.fromkeys(("runtime", "haproxy", "redis", "milvus", "engine"), "none")


@dataclass(frozen=True)
class Seen:
    manifest: Manifest
    pods: list[Manifest]


class TinyController:
    resource: Resource = MODEL_REPLICA_SETS
    watches: Sequence[Resource] = (PODS, CONFIG_MAPS)

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        return ()

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        return ()

    async def observe(self, key: Key, manifest: Manifest, world: World, now: datetime) -> Seen:
        return Seen(manifest, world.caches.owned(PODS, manifest["metadata"]["uid"]))

    def decide(self, seen: Seen, now: datetime) -> set[str]:
        """The pods that are wanted, by name."""
        name, spec = seen.manifest["metadata"]["name"], seen.manifest["spec"]
        return {f"{name}-{index}" for index in range(spec.get("replicas", 1))}

    def steering(self, seen: Seen, decision: set[str]) -> FiguresOnly:
        return FiguresOnly(uid=seen.manifest["metadata"]["uid"], targets=(), report=RouterStatus)

    def left_behind(self, key: Key, world: World) -> Sequence[Delete]:
        return ()

    def carried_out(self, manifest: Manifest) -> None:
        pass

    def was_told(self, manifest: Manifest) -> None:
        pass

    def act(self, seen: Seen, wanted: set[str], now: datetime) -> Acts:
        manifest = seen.manifest
        metadata = manifest["metadata"]
        if "deletionTimestamp" in metadata:
            return Acts(writes=[_delete(pod) for pod in seen.pods], finalizers=())
        held = {pod["metadata"]["name"]: pod for pod in seen.pods}
        writes: list[Write] = [Apply(manifest=_config_map(manifest))]
        writes += [
            Create(manifest=_pod(name, metadata["namespace"])) for name in sorted(wanted - held.keys())
        ]
        writes += [_delete(held[name]) for name in sorted(held.keys() - wanted)]
        writes += [_ungate(held[name]) for name in sorted(wanted & held.keys()) if _is_gated(held[name])]
        return Acts(writes=writes, finalizers=(FINALIZER,))

    def tell(self, seen: Seen, wanted: set[str], refusals: Sequence[RefusedWrite], now: datetime) -> Told:
        manifest = seen.manifest
        metadata = manifest["metadata"]
        if "deletionTimestamp" in metadata:
            return corrected(Told(), refusals, manifest, now)
        held = {pod["metadata"]["name"] for pod in seen.pods}
        done = held == wanted and not any(map(_is_gated, seen.pods))
        placed = Condition(type="Placed", status=Truth.of(done), reason="Placed" if done else "Placing")
        before = conditions_of(manifest)
        conditions = merged(before, with_summary([placed]), generation=metadata["generation"], now=now)
        status = {
            "observedGeneration": metadata["generation"],
            "replicas": len(held),
            "conditions": conditions,
        }
        told = Told(status=status, events=transitions(before, [placed]))
        return corrected(told, refusals, manifest, now)


def _config_map(manifest: Manifest) -> Manifest:
    name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-config", "namespace": namespace},
        "data": manifest["spec"].get("pod", {}).get("annotations", {}),
    }


def _pod(name: str, namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "none"}], "schedulingGates": [GATE]},
    }


def _delete(pod: Manifest) -> Delete:
    metadata = pod["metadata"]
    ref = PODS.ref(metadata["namespace"], metadata["name"])
    return Delete(ref=ref, uid=metadata["uid"], grace_period_seconds=0)


def _is_gated(pod: Manifest) -> bool:
    return bool(pod["spec"].get("schedulingGates"))


def _ungate(pod: Manifest) -> JsonPatch:
    metadata = pod["metadata"]
    return JsonPatch(
        ref=PODS.ref(metadata["namespace"], metadata["name"]),
        resource_version=metadata["resourceVersion"],
        operations=[{"op": "remove", "path": "/spec/schedulingGates/0"}],
    )


def kill_at(point: str) -> Any:
    def reached(here: CrashPoint) -> None:
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


def send_what_is_applied_already() -> None:
    """The deliberate mistake: every apply is sent, though nothing changed."""
    Writer._is_applied = lambda *_: False  # type: ignore[method-assign]


def main() -> int:
    if os.environ.get("NO_OP_WRITES"):
        send_what_is_applied_already()
    config = parse_config(json.loads(os.environ["TINY_CONFIG"]))
    configure_logs(config.log_level)
    place = Place.from_environment(Path(os.environ["KUBECONFIG"]))
    return run_process([TinyController()], config, place, reached=kill_at(os.environ.get("CRASH_AT", "")))


if __name__ == "__main__":
    sys.exit(main())
