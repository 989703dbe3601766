"""Settings of the engine that the spec alone refutes, and CEL cannot: it compares no quantities."""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Missing
from flotilla_operator.placement.quantities import quantity

FIELD = "spec.engine.kvOffloadGiB"
GIB = 1024**3


def no_room_to_offload(spec: ModelReplicaSetSpec) -> Missing | None:
    """The KV cache in the node's memory counts as the container's, which would be killed when it fills."""
    limit = spec.engine.resources.limits.get("memory")
    offload = spec.engine.kv_offload_gib
    if not offload or limit is None or offload * GIB < quantity(limit):
        return None
    message = (
        f"{FIELD}: {offload:g} GiB do not fit into the memory limit of {limit}; raise "
        "spec.engine.resources.limits.memory above it, by what the engine needs itself, or lower it"
    )
    return Missing(field=FIELD, reason=Reason.NO_ROOM_TO_OFFLOAD, message=message)
