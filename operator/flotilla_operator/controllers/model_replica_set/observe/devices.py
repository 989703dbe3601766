"""Devices of Dynamic Resource Allocation, from the caches: which exist, which are held, what sets lack.

An API server without `resource.k8s.io/v1` has no classes, slices or claims, and the caches are then empty. A
pod's claim is allocated just before the pod is bound. Until the allocation is observed, the devices that the
pod asks for count on the node to which it is pinned.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.objects.resources import (
    DEVICE_CLASSES,
    MODEL_REPLICA_SETS,
    PODS,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Manifest,
)
from flotilla_operator.placement import Claim
from flotilla_operator.placement.devices import (
    Device,
    DeviceAsk,
    DeviceClass,
    Inventory,
    allocated_devices,
    device_class_of,
    whole_devices,
)
from flotilla_operator.placement.manifests import FINISHED, claim_of, pinned_node
from flotilla_operator.replicas.facts import SetFacts
from flotilla_operator.workloads.devices import CLAIM, device_ask, devices_of
from flotilla_operator.workloads.stages import pod_name_of
from flotilla_runtime import contract

FIELD = "spec.accelerator.deviceClass"


@dataclass(slots=True)
class KnownDevices:
    """The devices of all slices, computed again only when a slice changes."""

    versions: frozenset[tuple[str, str]] = frozenset()
    devices: Sequence[Device] = ()

    def of(self, slices: Sequence[Manifest]) -> Sequence[Device]:
        """The whole devices of these slices."""
        versions = frozenset((one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for one in slices)
        if versions != self.versions:
            self.versions, self.devices = versions, whole_devices(slices)
        return self.devices


def inventories(specs: Iterable[ModelReplicaSetSpec], caches: Caches, known: KnownDevices) -> list[Inventory]:
    """Return the inventory for each device ask of these sets, which may all wait for the same nodes."""
    asks = {ask for spec in specs if (ask := device_ask(spec)) is not None}
    if not asks:
        return []
    devices = known.of(caches.listed(RESOURCE_SLICES))
    allocated = allocated_devices(caches.listed(RESOURCE_CLAIMS))
    return [
        Inventory.of(ask, class_named(ask, caches), devices, allocated)
        for ask in sorted(asks, key=lambda ask: ask.resource)
    ]


def class_named(ask: DeviceAsk, caches: Caches) -> DeviceClass | None:
    """The class that is asked for; None when it does not exist or its devices cannot be counted."""
    manifest = caches.get(DEVICE_CLASSES, "", ask.class_name)
    return None if manifest is None else device_class_of(manifest)


def reserved_devices(caches: Caches) -> Iterator[Claim]:
    """The devices of pods that have a node and whose claims have not been observed as allocated."""
    for pod in caches.by_label(PODS, contract.LABEL_OWNER_KIND, MODEL_REPLICA_SETS.kind):
        devices = devices_of(pod)
        node = pod["spec"].get("nodeName") or pinned_node(pod["spec"])
        over = (pod.get("status") or {}).get("phase") in FINISHED
        if devices and node is not None and not over and not _is_allocated(pod, caches):
            yield Claim(node=node, requests=devices, of_pod=False)


def with_devices_of(pod: Manifest) -> Claim | None:
    """Return the claim of a pod that is being created, its devices included."""
    claim = claim_of(pod)
    return None if claim is None else replace(claim, requests={**claim.requests, **devices_of(pod)})


def wrong_device_class(spec: ModelReplicaSetSpec, caches: Caches) -> Missing | None:
    """Object to the device class that a set names; None when it can be used."""
    if (ask := device_ask(spec)) is None:
        return None
    if caches.get(DEVICE_CLASSES, "", ask.class_name) is None:
        why = (
            f"there is no DeviceClass {ask.class_name!r}; install the driver that creates it (this needs "
            "Kubernetes 1.34 or newer with resource.k8s.io/v1), or set spec.accelerator.resource instead"
        )
        return Missing(reason=Reason.DEVICE_CLASS_MISSING, message=f"{FIELD}: {why}")
    if (device_class := class_named(ask, caches)) is None:
        why = (
            f"the operator cannot count the devices of DeviceClass {ask.class_name!r}: its selectors contain "
            "more than equalities of device.driver and device.attributes joined by &&; name a simpler class"
        )
        return Missing(reason=Reason.DEVICE_CLASS_NOT_COUNTABLE, message=f"{FIELD}: {why}")
    if device_class.all_wanted(ask) is None:
        why = (
            f"no device of DeviceClass {ask.class_name!r} can have these attributes: the class requires "
            "another value, or it names no driver and an attribute is without its domain; correct the value, "
            "or write the attribute as domain/name"
        )
        return Missing(
            reason=Reason.DEVICE_ATTRIBUTES_CONTRADICT,
            message=f"{FIELD}.attributes: {why}",
        )
    return None


def device_classes(specs: Iterable[ModelReplicaSetSpec], caches: Caches) -> dict[str, DeviceClass]:
    """The classes that these specs name, where they exist and their devices can be counted."""
    asks = [ask for spec in specs if (ask := device_ask(spec)) is not None]
    found = {ask.class_name: class_named(ask, caches) for ask in asks}
    return {name: device_class for name, device_class in found.items() if device_class is not None}


def held_devices(me: SetFacts, caches: Caches) -> frozenset[str]:
    """The group of the current move, if its pods are gone but its claims are still allocated.

    Claims are given back some time after their pods are gone.
    """
    move, namespace = me.memory.rebalance.current, me.owner.namespace
    if move is None:
        return frozenset()
    pods = {pod_name_of(move.group, stage) for stage in range(len(move.from_nodes))}
    held = any(
        owner["kind"] == "Pod" and owner["name"] in pods
        for claim in caches.listed(RESOURCE_CLAIMS)
        if claim["metadata"].get("namespace") == namespace and _allocation(claim)
        for owner in claim["metadata"].get("ownerReferences") or ()
    )
    return frozenset({move.group}) if held else frozenset()


def gives_back(claim: Manifest, caches: Caches) -> bool:
    """Whether a changed resource claim no longer holds devices, or no longer exists."""
    metadata = claim["metadata"]
    live = caches.get(RESOURCE_CLAIMS, metadata.get("namespace", ""), metadata["name"])
    return live is None or not _allocation(live)


def _is_allocated(pod: Manifest, caches: Caches) -> bool:
    for status in (pod.get("status") or {}).get("resourceClaimStatuses") or ():
        if status["name"] == CLAIM and status.get("resourceClaimName"):
            claim = caches.get(RESOURCE_CLAIMS, pod["metadata"]["namespace"], status["resourceClaimName"])
            return claim is not None and bool(_allocation(claim))
    return False


def _allocation(claim: Manifest) -> Mapping[str, Any]:
    allocation: Mapping[str, Any] = (claim.get("status") or {}).get("allocation") or {}
    return allocation
