"""A set's PriorityClass: whether it exists, its value, and whether its pods can preempt placeholders.

Replicas that ask for nodes must preempt the placeholders that asked for them. With a class of lower value, or
one that never preempts, both would wait for ever.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec, NodeProvisioningMode
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.workloads.placeholder import PRIORITY

PriorityClass = Mapping[str, Any]
FIELD = "spec.placement.priorityClassName"
FIX = (
    "with spec.placement.nodeProvisioning, replicas must preempt placeholder pods of priority "
    f"{PRIORITY}; name a PriorityClass with a higher value and without preemptionPolicy Never"
)


def class_of(spec: ModelReplicaSetSpec, classes: Sequence[PriorityClass]) -> PriorityClass | None:
    """The class that the pods get: the one that is named, or the cluster's default."""
    wanted = spec.placement.priority_class_name
    return next(
        (
            found
            for found in classes
            if (found["metadata"]["name"] == wanted if wanted else found.get("globalDefault"))
        ),
        None,
    )


def priority_of(spec: ModelReplicaSetSpec, classes: Sequence[PriorityClass]) -> int:
    """The value of the priority class, as admission will give it to the pods."""
    found = class_of(spec, classes)
    return int(found["value"]) if found is not None else 0


def wrong_class(spec: ModelReplicaSetSpec, classes: Sequence[PriorityClass]) -> Missing | None:
    """Object to the priority class that the spec names or gets; None when nothing is wrong."""
    found = class_of(spec, classes)
    if found is None:
        named = spec.placement.priority_class_name
        missing = f"{FIELD}: there is no PriorityClass {named!r}; create it or name another"
        return _wrong(Reason.PRIORITY_CLASS_MISSING, missing) if named else None
    wish = spec.placement.node_provisioning
    if wish is None or wish.mode is NodeProvisioningMode.NONE:
        return None
    name = found["metadata"]["name"]
    if found.get("preemptionPolicy") == "Never":
        never = f"{FIELD}: PriorityClass {name!r} has preemptionPolicy Never; {FIX}"
        return _wrong(Reason.CANNOT_PREEMPT, never)
    if int(found["value"]) <= PRIORITY:
        low = f"{FIELD}: PriorityClass {name!r} has the value {found['value']}; {FIX}"
        return _wrong(Reason.CANNOT_PREEMPT, low)
    return None


def _wrong(reason: Reason, message: str) -> Missing:
    return Missing(reason=reason, message=message)
