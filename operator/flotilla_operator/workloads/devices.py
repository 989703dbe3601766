"""Accelerators by Dynamic Resource Allocation: the claims of a set's pods.

Kubernetes makes a claim for each stage pod from one template when the pod is created. A template cannot be
changed, so each revision has its own. An annotation of the pod says what its claim requests. Placement counts
that on the node to which the pod is pinned, until the scheduler has allocated devices.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.placement.devices import DeviceAsk, DeviceClass, device_request
from flotilla_operator.workloads.labels import Child
from flotilla_runtime import contract

API_VERSION = "resource.k8s.io/v1"
CLAIM = "accelerators"  # the claim's name in the pod's list of claims
ANNOTATION_DEVICES = f"{contract.DOMAIN}/devices"


def device_ask(spec: ModelReplicaSetSpec) -> DeviceAsk | None:
    """The devices that a set requests; None for a set with an extended resource or without accelerators."""
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
    """The name of the claim template of a revision."""
    return _template(owner, revision).name


def claim_template(
    owner: Owner, spec: ModelReplicaSetSpec, revision: str, device_class: DeviceClass
) -> Manifest | None:
    """The template for the claims of a revision's stage pods; None for a set that requests no devices."""
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
    """The annotation with what a stage pod's claim requests."""
    ask = device_ask(spec)
    return {} if ask is None else {ANNOTATION_DEVICES: f"{spec.parallelism.tensor} {ask.resource}"}


def devices_of(pod: Mapping[str, Any]) -> dict[str, int]:
    """The devices in a stage pod's annotation, as placement counts them."""
    said = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_DEVICES, "")
    count, _, resource = said.partition(" ")
    return {resource: int(count)} if resource and count.isdecimal() else {}


def claims_of_pod(owner: Owner, spec: ModelReplicaSetSpec, revision: str) -> Manifest:
    """The fields of the pod that refer to the claim template."""
    if device_ask(spec) is None:
        return {}
    claim = {"name": CLAIM, "resourceClaimTemplateName": template_name(owner, revision)}
    return {"resourceClaims": [claim]}


def _template(owner: Owner, revision: str) -> Child:
    return Child(owner=owner, component="engine", suffix=f"devices-{revision}")
