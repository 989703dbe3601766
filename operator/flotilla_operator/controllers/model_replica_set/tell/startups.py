"""`status.capacity`: what one replica can do, and how long replicas took to start.

A start is measured from the creation of the leader's pod to its condition Ready, which means a first token
and not merely an open port (workloads/engine_checks.py). The other stages have no probes and are Ready as
soon as they run, so they are not measured. The newest starts are kept in the status, so they outlive their
pods and the operator. Each group is measured once: losing and regaining readiness is not a new start.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from statistics import median
from typing import Any

from flotilla_operator.api.model_replica_set import ModelSize
from flotilla_operator.capacity.fit import GIB
from flotilla_operator.controllers.model_replica_set.remembered.remembered import startups_status
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.memory import Startup

STARTUPS_KEPT = 5


def capacity_status(situation: Situation) -> dict[str, Any] | None:
    """Return the known figures of the capacity; None when there are none."""
    sizing, spec = situation.sizing, situation.me.spec
    startups = startups_of(situation)
    found: dict[str, Any] = {
        "kvBytesPerToken": sizing.kv_bytes_per_token,
        "acceleratorGiB": None if sizing.accelerator_gib is None else round(sizing.accelerator_gib, 1),
        "sequenceTokens": sizing.sequence_tokens,
        "sequencesPerReplica": None if sizing.sequences is None else round(sizing.sequences, 1),
        "sequencesPerReplicaSharingPrefix": (
            None if sizing.sequences_sharing_prefix is None else round(sizing.sequences_sharing_prefix, 1)
        ),
        "startupSeconds": median(start.seconds for start in startups) if startups else None,
        "startups": startups_status(startups),
    }
    if sizing.shape is not None:
        found["weightsGiB"] = round(sizing.shape.weight_bytes / GIB, 2)
        size = ModelSize(source=spec.model.source, revision=spec.model.revision, **asdict(sizing.shape))
        found["model"] = size.manifest()
    told = {name: value for name, value in found.items() if value is not None}
    return told or None


def startups_of(situation: Situation) -> list[Startup]:
    """The newest starts, the last one last, from the status and from pods that serve now."""
    held = situation.me.memory.startups
    since = held[0].ready_at if len(held) == STARTUPS_KEPT else None
    by_group = {start.group: start for start in _measured(situation.me.groups, since)}
    by_group |= {start.group: start for start in held}
    newest_last = sorted(by_group.values(), key=lambda start: (start.ready_at, start.group))
    return newest_last[-STARTUPS_KEPT:]


def _measured(groups: Sequence[ReplicaGroup], since: datetime | None) -> Iterator[Startup]:
    """The starts of groups that serve, without those older than all that are kept.

    A container that was restarted does not tell how long a start takes.
    """
    for group in groups:
        leader = group.leader
        if not (group.whole and group.ready) or leader.ready_since is None:
            continue
        if (since is not None and leader.ready_since < since) or any(m.restarted for m in group.members):
            continue
        yield Startup(
            group=group.name,
            revision=group.revision,
            ready_at=leader.ready_since,
            seconds=max(0.0, (leader.ready_since - leader.created_at).total_seconds()),
        )
