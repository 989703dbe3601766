"""`status.capacity`: what one replica can do, and how long replicas took to serve.

A start is measured from the leader's creation to its condition Ready, which is a first token and not merely
an open port (workloads/engine_checks.py). The stages behind it have no probes and are Ready as soon as they
run, so they say nothing. The newest few are kept in the status, so they outlive their pods and the operator;
each is measured once, for a group that loses and regains its readiness does not start again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from flotilla_operator.api.model_replica_set import ModelSize
from flotilla_operator.capacity.fit import GIB
from flotilla_operator.controllers.conditions import conditions_of, parsed_timestamp
from flotilla_operator.controllers.model_replica_set.life import Pod, ReplicaGroup, created_at
from flotilla_operator.controllers.model_replica_set.seen import Observed

STARTUPS_KEPT = 5

Startup = Mapping[str, Any]


def capacity_status(observed: Observed) -> dict[str, Any] | None:
    """What is known, None where nothing is."""
    sizing, spec = observed.sizing, observed.me.spec
    startups = startups_of(observed)
    found: dict[str, Any] = {
        "kvBytesPerToken": sizing.kv_bytes_per_token,
        "acceleratorGiB": None if sizing.accelerator_gib is None else round(sizing.accelerator_gib, 1),
        "sequenceTokens": sizing.sequence_tokens,
        "sequencesPerReplica": None if sizing.sequences is None else round(sizing.sequences, 1),
        "sequencesPerReplicaSharingPrefix": (
            None if sizing.sequences_sharing_prefix is None else round(sizing.sequences_sharing_prefix, 1)
        ),
        "startupSeconds": median(start["seconds"] for start in startups) if startups else None,
        "startups": startups or None,
    }
    if sizing.shape is not None:
        found["weightsGiB"] = round(sizing.shape.weight_bytes / GIB, 2)
        size = ModelSize(source=spec.model.source, revision=spec.model.revision, **asdict(sizing.shape))
        found["model"] = size.manifest()
    told = {name: value for name, value in found.items() if value is not None}
    return told or None


def startups_of(observed: Observed) -> list[dict[str, Any]]:
    """The newest starts, the last one last: those the status holds, and those of pods that serve now."""
    capacity = (observed.me.manifest.get("status") or {}).get("capacity") or {}
    held: Sequence[Startup] = capacity.get("startups") or ()
    since = held[0]["readyTime"] if len(held) == STARTUPS_KEPT else ""
    by_group = {start["group"]: dict(start) for start in _measured(observed.me.groups, since)}
    by_group |= {start["group"]: dict(start) for start in held}
    newest_last = sorted(by_group.values(), key=lambda start: (start["readyTime"], start["group"]))
    return newest_last[-STARTUPS_KEPT:]


def _measured(groups: Sequence[ReplicaGroup], since: str) -> Iterator[Startup]:
    """The starts of groups that serve, those left out that are older than all that are kept."""
    for group in groups:
        leader = group.leader.pod
        ready_time = _ready_time(leader)
        if not (group.whole and group.ready) or ready_time is None or ready_time < since:
            continue
        if any(_restarted(member.pod) for member in group.members):
            continue
        took = parsed_timestamp(ready_time) - created_at(leader)
        yield {
            "group": group.name,
            "revision": group.revision,
            "readyTime": ready_time,
            "seconds": max(0.0, took.total_seconds()),
        }


def _ready_time(pod: Pod) -> str | None:
    for condition in conditions_of(dict(pod)):
        if condition.get("type") == "Ready" and condition.get("status") == "True":
            time: str | None = condition.get("lastTransitionTime")
            return time
    return None


def _restarted(pod: Pod) -> bool:
    """Whether a container began anew, so that its readiness says nothing of how long a start takes."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(status.get("restartCount") for status in statuses)
