"""Accelerators by Dynamic Resource Allocation: what the pods of a set ask for.

Every stage pod gets a claim of its own from one template, made by Kubernetes when the pod is created. A
template cannot be changed, so each revision has its own. The pod says in an annotation what its claim asks
for: placement counts that on the node it is pinned to until the scheduler has allocated devices.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.placement.devices import DeviceAsk, DeviceClass, device_request
from flotilla_operator.workloads.labels import Child, Manifest, Owner
from flotilla_runtime import contract

API_VERSION = "resource.k8s.io/v1"
CLAIM = "accelerators"  # in the pod's own list of claims
ANNOTATION_DEVICES = f"{contract.DOMAIN}/devices"


def device_ask(spec: ModelReplicaSetSpec) -> DeviceAsk | None:
    """The devices that a set asks for; None where it asks for an extended resource, or for nothing."""
    if spec.accelerator is None or (wanted := spec.accelerator.device_class) is None:
        return None
    return DeviceAsk(wanted.name, tuple(sorted(wanted.attributes.items())))


def accelerator_resource(spec: ModelReplicaSetSpec) -> str | None:
    """The name under which placement counts the set's accelerators; None for a set on CPUs."""
    if spec.accelerator is None:
        return None
    ask = device_ask(spec)
    return spec.accelerator.resource if ask is None else ask.resource


def template_name(owner: Owner, revision: str) -> str:
    """The claim template of a revision."""
    return _template(owner, revision).name


def claim_template(
    owner: Owner, spec: ModelReplicaSetSpec, revision: str, device_class: DeviceClass
) -> Manifest | None:
    """What each stage pod of a revision gets its claim from; None for a set that asks for no devices."""
    if (ask := device_ask(spec)) is None:
        return None
    request = device_request(ask, device_class, spec.parallelism.tensor)
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourceClaimTemplate",
        "metadata": _template(owner, revision).metadata(),
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


def device_annotation(spec: ModelReplicaSetSpec) -> dict[str, str]:
    """What a stage pod says of its claim."""
    ask = device_ask(spec)
    return {} if ask is None else {ANNOTATION_DEVICES: f"{spec.parallelism.tensor} {ask.resource}"}


def devices_of(pod: Mapping[str, Any]) -> dict[str, int]:
    """What a stage pod says of its claim, as placement counts it."""
    said = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_DEVICES, "")
    count, _, resource = said.partition(" ")
    return {resource: int(count)} if resource and count.isdecimal() else {}


def claims_of_pod(owner: Owner, spec: ModelReplicaSetSpec, revision: str) -> Manifest:
    """The pod's part of the claim: where it comes from."""
    if device_ask(spec) is None:
        return {}
    claim = {"name": CLAIM, "resourceClaimTemplateName": template_name(owner, revision)}
    return {"resourceClaims": [claim]}


def _template(owner: Owner, revision: str) -> Child:
    return Child(owner=owner, component="engine", suffix=f"devices-{revision}")
