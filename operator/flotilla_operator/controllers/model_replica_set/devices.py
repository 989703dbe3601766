"""Devices of Dynamic Resource Allocation, from the caches: what is there, what is held, and what sets lack.

An API server that does not serve `resource.k8s.io/v1` has no classes, slices or claims, which is what the
caches say then. A pod's claim is allocated just before the pod is bound; until that is seen, what the pod
says of its claim counts on the node that it is pinned to.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import (
    DEVICE_CLASSES,
    MODEL_REPLICA_SETS,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
)
from flotilla_operator.cluster.writes import Create, Delete, Manifest
from flotilla_operator.controllers.model_replica_set.demand import Demand
from flotilla_operator.controllers.model_replica_set.moves import Rebalance
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Missing, Observed
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
from flotilla_operator.workloads.devices import CLAIM, claim_template, device_ask, devices_of, template_name
from flotilla_operator.workloads.stages import pod_name_of
from flotilla_runtime import contract

FIELD = "spec.accelerator.deviceClass"


@dataclass(slots=True)
class KnownDevices:
    """The devices in all slices, read anew only when a slice changes."""

    versions: frozenset[tuple[str, str]] = frozenset()
    devices: Sequence[Device] = ()

    def of(self, slices: Sequence[Manifest]) -> Sequence[Device]:
        """The whole devices of these slices."""
        versions = frozenset((one["metadata"]["uid"], one["metadata"]["resourceVersion"]) for one in slices)
        if versions != self.versions:
            self.versions, self.devices = versions, whole_devices(slices)
        return self.devices


def inventories(specs: Iterable[ModelReplicaSetSpec], caches: Caches, known: KnownDevices) -> list[Inventory]:
    """What there is for each of the asks of these sets, all of which may wait for the same nodes."""
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
    """The class that is asked for; None where there is none, or none whose devices can be counted."""
    manifest = caches.get(DEVICE_CLASSES, "", ask.class_name)
    return None if manifest is None else device_class_of(manifest)


def reserved_devices(caches: Caches) -> Iterator[Claim]:
    """The devices of pods that have a node and whose claims are not seen to be allocated yet."""
    for pod in caches.by_label(PODS, contract.LABEL_OWNER_KIND, MODEL_REPLICA_SETS.kind):
        devices = devices_of(pod)
        node = pod["spec"].get("nodeName") or pinned_node(pod["spec"])
        over = (pod.get("status") or {}).get("phase") in FINISHED
        if devices and node is not None and not over and not _is_allocated(pod, caches):
            yield Claim(node=node, requests=devices, of_pod=False)


def with_devices_of(pod: Manifest) -> Claim | None:
    """What a pod that is being created holds, its devices among it."""
    claim = claim_of(pod)
    return None if claim is None else replace(claim, requests={**claim.requests, **devices_of(pod)})


def wrong_device_class(spec: ModelReplicaSetSpec, caches: Caches) -> Missing | None:
    """What is wrong with the class that a set names."""
    if (ask := device_ask(spec)) is None:
        return None
    if caches.get(DEVICE_CLASSES, "", ask.class_name) is None:
        why = (
            f"there is no DeviceClass {ask.class_name!r}; install the driver that brings it (this needs "
            "Kubernetes 1.34 with resource.k8s.io/v1), or use spec.accelerator.resource"
        )
        return Missing(field=FIELD, reason=Reason.DEVICE_CLASS_MISSING, message=f"{FIELD}: {why}")
    if (device_class := class_named(ask, caches)) is None:
        why = (
            f"the devices of DeviceClass {ask.class_name!r} cannot be counted, since its selectors are more "
            "than equalities of device.driver and device.attributes joined by &&; name a simpler class"
        )
        return Missing(field=FIELD, reason=Reason.DEVICE_CLASS_NOT_COUNTABLE, message=f"{FIELD}: {why}")
    if device_class.all_wanted(ask) is None:
        why = (
            f"no device of DeviceClass {ask.class_name!r} can have these, since the class demands another "
            "value, or names no driver and so an attribute needs its domain (domain/name)"
        )
        return Missing(
            field=f"{FIELD}.attributes",
            reason=Reason.DEVICE_ATTRIBUTES_CONTRADICT,
            message=f"{FIELD}.attributes: {why}",
        )
    return None


def claim_templates(observed: Observed, caches: Caches) -> Observed:
    """With the set's templates, and the class to make one by: a template that was made wrong stays wrong."""
    ask = device_ask(observed.me.spec)
    device_class = None if ask is None else class_named(ask, caches)
    if ask is not None and device_class is not None and device_class.all_wanted(ask) is None:
        device_class = None
    return replace(
        observed,
        device_class=device_class,
        claim_templates=caches.owned(RESOURCE_CLAIM_TEMPLATES, observed.me.owner.uid),
        hold_devices=frozenset() if ask is None else _hold_devices(observed, caches),
    )


def _hold_devices(observed: Observed, caches: Caches) -> frozenset[str]:
    """The group of the move that is under way, if it has gone and its claims are still allocated: they are
    given back some time after its pods are gone.
    """
    move, namespace = Rebalance.of(observed.me.manifest).current, observed.me.owner.namespace
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


def new_template(observed: Observed, demand: Demand) -> list[Create]:
    """The claim template of the current revision, where it is not there. It is for groups that get their pods
    in this very plan: one that is refused again at every look would count as a new failure each time.
    """
    me, revision = observed.me, demand.revision
    held = {template["metadata"]["name"] for template in observed.claim_templates}
    if observed.device_class is None or template_name(me.owner, revision) in held:
        return []
    wanted = claim_template(me.owner, me.spec, revision, observed.device_class)
    return [] if wanted is None else [Create(manifest=wanted)]


def old_templates(observed: Observed, demand: Demand) -> list[Delete]:
    """The claim templates of revisions that no group has and none will have."""
    owner = observed.me.owner
    revisions = {demand.revision, *(group.revision for group in demand.groups)}
    used = {template_name(owner, revision) for revision in revisions}
    return [
        Delete(ref=RESOURCE_CLAIM_TEMPLATES.ref_to(template), uid=template["metadata"]["uid"])
        for template in observed.claim_templates
        if template["metadata"]["name"] not in used
    ]


def gives_back(claim: Manifest, caches: Caches) -> bool:
    """Whether a resource claim that changed holds no devices, or is gone."""
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
