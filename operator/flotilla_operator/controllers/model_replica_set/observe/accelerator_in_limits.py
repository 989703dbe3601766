"""Finds accelerators that are asked for as plain resources of the engine.

Placement, the engine's image and its arguments follow from `spec.accelerator`. With an accelerator that only
`spec.engine.resources` names, the operator would start the engine for CPUs, which does not use it.
"""

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason

FIELD = "spec.engine.resources"
DEVICES = ("gpu", "gaudi", "neuron", "neurondevice", "tpu", "npu")  # the last part of known resources' names
PARTITION = "mig-"  # nvidia.com/mig-1g.10gb


def accelerator_in_limits(spec: ModelReplicaSetSpec) -> Missing | None:
    """What to write where only the engine's resources name an accelerator. One's own image may use it."""
    if spec.accelerator is not None or spec.engine.image is not None:
        return None
    named = sorted(filter(is_accelerator, (*spec.engine.resources.limits, *spec.engine.resources.requests)))
    if not named:
        return None
    message = (
        f"{FIELD}: {named[0]} is an accelerator, and without spec.accelerator the engine for CPUs would not "
        f"use it; write accelerator: {{resource: {named[0]}}}, or name your own engine in spec.engine.image"
    )
    return Missing(reason=Reason.ACCELERATOR_IN_RESOURCES, message=message)


def is_accelerator(resource: str) -> bool:
    """Whether this is the name of an extended resource of accelerators, as their device plugins give it."""
    domain, _, name = resource.rpartition("/")
    return bool(domain) and (name in DEVICES or name.startswith(PARTITION))
