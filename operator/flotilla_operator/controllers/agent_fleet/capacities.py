"""Capacity of a ModelReplicaSet, as admission counts it. Pure."""

from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_runtime import contract


def capacity_of(
    name: str, told: dict[str, Any], spec: ModelReplicaSetSpec, context_tokens: int
) -> contract.ModelCapacity:
    """The room of the ready replicas together; that of one while none is ready, since callers then wait.

    `told` is the set's status, and `context_tokens` what a task of the fleet may come to.
    """
    capacity = told.get("capacity") or {}
    sequences: float | None = capacity.get("sequencesPerReplica")
    tokens: int | None = capacity.get("sequenceTokens")
    replicas = max(1, told.get("readyReplicas") or 0)
    return contract.ModelCapacity(
        name=name,
        context_tokens=context_tokens,
        kv_tokens=None if sequences is None or tokens is None else sequences * tokens * replicas,
        slots=spec.engine.max_num_seqs * replicas,
    )
