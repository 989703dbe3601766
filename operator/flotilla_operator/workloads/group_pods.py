"""Reads an engine pod as the member of a group that it is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flotilla_operator.objects.times import known_time, parsed_timestamp
from flotilla_operator.objects.unseen import is_unseen
from flotilla_operator.placement.manifests import FINISHED, pinned_node, pod_requests, toleration_of
from flotilla_operator.replicas.group import EngineSeen, Member, Phase
from flotilla_operator.workloads.devices import devices_of
from flotilla_operator.workloads.engine_pod import CONTAINER
from flotilla_operator.workloads.gate import is_gated
from flotilla_operator.workloads.pod_trouble import (
    has_ended,
    how_it_ended,
    is_evicted,
    lacks_resources,
    scheduler_message,
    setup_waits_since,
    trouble_of,
    when_it_ended,
)
from flotilla_runtime import contract

Pod = Mapping[str, Any]


def member_of(pod: Pod) -> Member:
    """The member that this pod is."""
    metadata, spec = pod["metadata"], pod["spec"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    waiting_since = annotations.get(contract.ANNOTATION_WAITING_SINCE)
    ready = _ready(pod)
    ready_since = None if ready is None else ready.get("lastTransitionTime")
    devices = devices_of(pod)
    return Member(
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        group=group_name(pod),
        revision=labels.get(contract.LABEL_REVISION, ""),
        stage=int(labels.get(contract.LABEL_STAGE, "0")),
        stages=int(annotations.get(contract.ANNOTATION_STAGES, "1")),
        server_id=int(annotations.get(contract.ANNOTATION_SERVER_ID, "0")),
        waiting_since=known_time(waiting_since),
        phase=phase_of(pod),
        created_at=created_at(pod),
        drain_epoch=drain_epoch_of(pod),
        ready=ready is not None,
        ready_since=known_time(ready_since),
        leaves="deletionTimestamp" in metadata,
        evicted=is_evicted(pod),
        gated=is_gated(spec),
        bound_to=spec.get("nodeName") or None,
        pin=pinned_node(spec),
        may_bind_since=_may_bind_since(pod),
        scheduler_says=scheduler_message(pod),
        lacks_resources=lacks_resources(scheduler_message(pod)),
        finished=_finished(pod),
        restarted=any(container.get("restartCount") for container in _containers(pod)),
        setup_waits_since=setup_waits_since(pod),
        engine=_engine(pod),
        asks={**pod_requests(spec), **devices},
        devices=devices,
        tolerations=tuple(toleration_of(toleration) for toleration in spec.get("tolerations") or ()),
        trouble=trouble_of(pod),
        version=metadata.get("resourceVersion"),
        unseen=is_unseen(metadata),
    )


def group_name(pod: Pod) -> str:
    """The group that a pod belongs to."""
    metadata = pod["metadata"]
    return str((metadata.get("labels") or {}).get(contract.LABEL_GROUP, metadata["name"]))


def drain_epoch_of(pod: Pod) -> int | None:
    """The epoch of the drain that this pod is in; 0 when the annotation is not a number of ours."""
    text = (pod["metadata"].get("annotations") or {}).get(contract.ANNOTATION_DRAIN_EPOCH)
    return None if text is None else int(text) if text.isdecimal() else 0


def pod_is_over(pod: Pod) -> bool:
    """Whether a pod has given back what it held, or is about to."""
    return "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") in FINISHED


def phase_of(pod: Pod) -> Phase:
    """The phase of one pod, from what the API server holds."""
    if "deletionTimestamp" in pod["metadata"] or drain_epoch_of(pod) is not None:
        return Phase.DRAINING
    if pod["spec"].get("schedulingGates"):
        return Phase.GATED
    if not pod["spec"].get("nodeName"):
        return Phase.BINDING
    return Phase.LOADING if _ready(pod) is None else Phase.READY


def created_at(pod: Pod) -> datetime:
    """When the pod was created."""
    return parsed_timestamp(pod["metadata"]["creationTimestamp"])


def _ready(pod: Pod) -> Mapping[str, Any] | None:
    """The condition Ready, where it is true."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == "Ready" and c["status"] == "True"), None)


def _may_bind_since(pod: Pod) -> datetime | None:
    """Since its gate was removed, or since its creation if it has none."""
    lifted = (pod["metadata"].get("annotations") or {}).get(contract.ANNOTATION_GATE_LIFTED)
    if lifted:
        return parsed_timestamp(lifted)
    return None if is_gated(pod["spec"]) else created_at(pod)


def _finished(pod: Pod) -> str | None:
    status = pod.get("status") or {}
    if status.get("phase") not in FINISHED:
        return None
    return str(status.get("message") or status.get("reason") or f"its phase is {status['phase']}")


def _engine(pod: Pod) -> EngineSeen:
    """The engine's container alone: an injected sidecar starts long before it."""
    for container in _containers(pod):
        if container["name"] != CONTAINER:
            continue
        since = ((container.get("state") or {}).get("running") or {}).get("startedAt")
        ended = has_ended(container)
        return EngineSeen(
            started=bool(container.get("started")),
            runs_since=known_time(since),
            end=(how_it_ended(container) or f"container {CONTAINER} was restarted") if ended else None,
            ended_at=when_it_ended(container) if ended else "",
        )
    return EngineSeen()


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    return (pod.get("status") or {}).get("containerStatuses") or []
