"""Engine pods as the API server would show them, each showing only what matters to a row."""

import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from flotilla_operator.workloads.gate import gates
from flotilla_operator.workloads.pinning import pinned
from flotilla_runtime import contract

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def time_text(seconds_ago: float = 0) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def container_status(name: str = "engine", *, ready: bool = False, **fields: Any) -> dict[str, Any]:
    return {"name": name, "ready": ready, **fields}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def terminated(
    code: int, message: str = "", reason: str = "Error", *, ago: float | None = None
) -> dict[str, Any]:
    finished = {} if ago is None else {"finishedAt": time_text(ago)}
    return {"terminated": {"exitCode": code, "message": message, "reason": reason, **finished}}


def id_of(group: str) -> int:
    """A server id that hardly any two groups share."""
    return 1 + zlib.crc32(group.encode()) % 100_000


def engine_pod(
    name: str = "llama-aaaaa",
    *,
    pin: str | None = None,
    node: str | None = None,
    ready: bool = False,
    phase: str = "Pending",
    age: float = 10,
    deleting: bool = False,
    disrupted: str = "",
    revision: str = "r1",
    server_id: int | None = None,
    owner_uid: str = "uid-llama",
    scheduler: str = "",
    scheduler_reason: str = "Unschedulable",
    message: str = "",
    containers: Sequence[dict[str, Any]] = (),
    inits: Sequence[dict[str, Any]] = (),
    group: str | None = None,
    stage: int = 0,
    stages: int = 1,
    gated: bool = False,
    lifted: float | None = None,
    requests: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if scheduler:
        said = {"reason": scheduler_reason, "message": scheduler}
        conditions.append({"type": "PodScheduled", "status": "False", **said})
    if disrupted:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": disrupted})
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": time_text(age),
        "labels": {
            contract.LABEL_GROUP: group or name,
            contract.LABEL_REVISION: revision,
            contract.LABEL_STAGE: str(stage),
        },
        "annotations": {contract.ANNOTATION_SERVER_ID: str(server_id or id_of(group or name))},
        "ownerReferences": [{"kind": "ModelReplicaSet", "uid": owner_uid, "controller": True}],
    }
    if stages > 1:
        metadata["annotations"][contract.ANNOTATION_STAGES] = str(stages)
    if lifted is not None:
        metadata["annotations"][contract.ANNOTATION_GATE_LIFTED] = time_text(lifted)
    if deleting:
        metadata["deletionTimestamp"] = time_text()
    spec = _spec(pin, node, gated=gated, requests=requests)
    status: dict[str, Any] = {"phase": phase, "conditions": conditions, "message": message}
    if containers:
        status["containerStatuses"] = list(containers)
    if inits:
        status["initContainerStatuses"] = list(inits)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def _spec(
    pin: str | None, node: str | None, *, gated: bool, requests: Mapping[str, str] | None
) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "engine"}]}
    if requests:
        spec["containers"][0]["resources"] = {"requests": dict(requests)}
    if gated:
        spec["schedulingGates"] = gates()
    if pin:
        spec["affinity"] = pinned(None, pin)
    if node:
        spec["nodeName"] = node
    return spec


def stage_pod(
    stage: int = 0, *, group: str = "llama-aaaaa", stages: int = 2, **fields: Any
) -> dict[str, Any]:
    """The pod of one stage of a group of several."""
    name = group if stage == 0 else f"{group}-{stage}"
    return engine_pod(name, group=group, stage=stage, stages=stages, **fields)
