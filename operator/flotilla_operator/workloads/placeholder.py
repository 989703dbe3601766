"""A placeholder: an idle pod with the resource requests of one stage of a waiting replica.

A node autoscaler adds nodes only for unschedulable pods. Engine pods are never that: they are created when
their nodes exist, pinned to them. So placeholders request the nodes in their place. Their priority is below
that of every replica, so replicas preempt them, and above the -10 below which Cluster Autoscaler ignores
pods. They preempt no other pods and end at once.

They run the runtime's image, which nodes with replicas need anyway, and mount the claims of the replica,
because a volume can exist in only one zone. While placeholders exist, the autoscaler must not remove their
nodes: for a replica of two pods, the first node waits until the second one exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.quantities import CPU, Amounts
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.replicas.provisioning import Placeholder, PlaceholderId
from flotilla_operator.replicas.shape import PlaceholderShape
from flotilla_operator.workloads.engine_pod import DO_NOT_DISRUPT
from flotilla_operator.workloads.group_pods import created_at, pod_is_over
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.objects import PodParts, container, pod_spec
from flotilla_runtime import contract

COMPONENT = "placeholder"
PRIORITY = -5  # of the chart's PriorityClass
LABEL_SLOT = f"{contract.DOMAIN}/placeholder"
ANNOTATION_STAGE = f"{contract.DOMAIN}/placeholder-stage"
ANNOTATION_SHAPE = f"{contract.DOMAIN}/placeholder-shape"
PODS = "pods"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
SLEEP = ["sleep", "infinity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """The parts of a placeholder that do not affect the choice of its node."""

    images: Images
    priority_class: str
    labels: Mapping[str, str]
    pull_secrets: Sequence[str] = ()


def placeholders(owner: Owner) -> Child:
    """The placeholders of a set as one part."""
    return Child(owner=owner, component=COMPONENT, suffix="placeholder")


def is_placeholder(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is a placeholder of any set; replicas can take its room."""
    return LABEL_SLOT in (pod["metadata"].get("labels") or {})


def placeholder_of(pod: Mapping[str, Any]) -> Placeholder:
    """Read a placeholder from its pod."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    stage = annotations.get(ANNOTATION_STAGE, "0")
    return Placeholder(
        name=metadata["name"],
        uid=metadata["uid"],
        id=PlaceholderId(slot=int(metadata["labels"][LABEL_SLOT]), stage=int(stage)),
        created_at=created_at(pod),
        node=pod["spec"].get("nodeName"),
        shape=str(annotations.get(ANNOTATION_SHAPE, "")),
        useful=not pod_is_over(pod),
    )


def placeholder_pod(
    owner: Owner, name: str, place: PlaceholderId, shape: PlaceholderShape, dress: Dress
) -> Manifest:
    """The placeholder pod of one place."""
    part = placeholders(owner)
    sleeper = container(
        COMPONENT,
        dress.images.runtime,
        pull_policy=dress.images.pull_policy,
        command=SLEEP,
        resources=_resources(shape.requests),
    )
    parts = PodParts(
        containers=[sleeper],
        volumes=[dict(claim) for claim in shape.claims],
        termination_grace_seconds=0,
        image_pull_secrets=(*dress.images.pull_secrets, *dress.pull_secrets),
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **part.metadata(),
            "name": name,
            "labels": {**dress.labels, **part.labels, LABEL_SLOT: str(place.slot)},
            "annotations": {
                **DO_NOT_DISRUPT,
                ANNOTATION_STAGE: str(place.stage),
                ANNOTATION_SHAPE: shape.hash,
            },
        },
        "spec": {
            **pod_spec(parts),
            "priorityClassName": dress.priority_class,
            **_scheduling(owner, place, shape),
        },
    }


def _resources(requests: Amounts) -> Manifest:
    """The container's resources; with limits, because devices need them and quotas may require them."""
    said = {
        resource: f"{value}m" if resource == CPU else str(value)
        for resource, value in sorted(requests.items())
        if resource != PODS and value
    }
    return {"requests": said, "limits": dict(said)}


def _scheduling(owner: Owner, place: PlaceholderId, shape: PlaceholderShape) -> Manifest:
    wishes: Manifest = {}
    if shape.node_selector:
        wishes["nodeSelector"] = dict(shape.node_selector)
    if shape.tolerations:
        wishes["tolerations"] = list(shape.tolerations)
    if shape.runtime_class is not None:
        wishes["runtimeClassName"] = shape.runtime_class
    affinity: Manifest = {}
    if shape.products:
        affinity["nodeAffinity"] = {REQUIRED: {"nodeSelectorTerms": _product_terms(shape)}}
    if shape.pack_within is not None:
        together = {**placeholders(owner).selector, LABEL_SLOT: str(place.slot)}
        term = {"topologyKey": shape.pack_within, "labelSelector": {"matchLabels": together}}
        affinity["podAffinity"] = {REQUIRED: [term]}
    if affinity:
        wishes["affinity"] = affinity
    if shape.spread_across is not None:
        wishes["topologySpreadConstraints"] = [_spread(owner, shape.spread_across, shape.stages)]
    return wishes


def _product_terms(shape: PlaceholderShape) -> list[Manifest]:
    """One node selector term for each label that can hold the product."""
    return [
        {"matchExpressions": [{"key": label, "operator": "In", "values": sorted(shape.products)}]}
        for label in shape.product_labels
    ]


def _spread(owner: Owner, label: str, stages: int) -> Manifest:
    """The topology spread. It also counts existing replicas: the waiting one must be apart from them."""
    ours = {
        key: value for key, value in placeholders(owner).selector.items() if key != contract.LABEL_COMPONENT
    }
    either = {"key": contract.LABEL_COMPONENT, "operator": "In", "values": ["engine", COMPONENT]}
    return {
        "maxSkew": stages,
        "topologyKey": label,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": ours, "matchExpressions": [either]},
    }
