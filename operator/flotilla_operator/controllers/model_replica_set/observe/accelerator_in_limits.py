"""Finds accelerators that are asked for as plain resources of the engine.

Placement, the engine's image and its arguments follow from `spec.accelerator`. With an accelerator that only
`spec.engine.resources` names, the operator would start the engine for CPUs, which does not use it.
"""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.objects.quantities import amounts, largest

FIELD = "spec.engine.resources"
# The last part of the names that device plugins give to accelerators.
DEVICES = frozenset(
    {"gpu", "gpu.shared", "i915", "xe", "gaudi", "neuron", "neuroncore", "neurondevice", "tpu", "npu"}
)
FAMILIES = ("mig-", "Ascend")  # nvidia.com/mig-1g.10gb, huawei.com/Ascend910


def accelerator_in_limits(spec: ModelReplicaSetSpec) -> Missing | None:
    """Object to an accelerator that only the engine's resources name, except with a user's image."""
    if spec.accelerator is not None or spec.engine.image is not None:
        return None
    asked = largest(map(amounts, (spec.engine.resources.limits, spec.engine.resources.requests)))
    named = sorted(resource for resource, count in asked.items() if count and is_accelerator(resource))
    if not named:
        return None
    resource, count = named[0], asked[named[0]]
    of_several = f" and spec.parallelism.tensor: {count}" if count > 1 else ""
    message = (
        f"{FIELD}: {resource} is an accelerator, and without spec.accelerator the engine for CPUs would not "
        f"use it; write spec.accelerator: {{resource: {resource}}}{of_several}, or name your own engine in "
        "spec.engine.image"
    )
    return Missing(reason=Reason.ACCELERATOR_IN_RESOURCES, message=message)


def is_accelerator(resource: str) -> bool:
    """Whether this is the name of an extended resource of accelerators, as their device plugins give it."""
    domain, _, name = resource.rpartition("/")
    return bool(domain) and (name in DEVICES or name.startswith(FAMILIES))
