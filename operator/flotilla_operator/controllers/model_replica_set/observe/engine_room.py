"""Engine settings that contradict each other in ways CEL cannot check, because it compares no quantities."""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.objects.quantities import quantity

FIELD = "spec.engine.kvOffloadGiB"
GIB = 1024**3


def no_room_to_offload(spec: ModelReplicaSetSpec) -> Missing | None:
    """Offloaded KV cache counts as the container's memory, and beyond the limit the container is killed."""
    limit = spec.engine.resources.limits.get("memory")
    offload = spec.engine.kv_offload_gib
    if not offload or limit is None or offload * GIB < quantity(limit):
        return None
    message = (
        f"{FIELD}: {offload:g} GiB do not fit into the memory limit of {limit}; raise "
        f"spec.engine.resources.limits.memory to {offload:g} GiB plus what the engine itself needs, or lower "
        f"{FIELD}"
    )
    return Missing(reason=Reason.NO_ROOM_TO_OFFLOAD, message=message)
