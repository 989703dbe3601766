"""A placeholder: a pod that does nothing and asks for what one stage of a waiting replica will ask for.

A node autoscaler brings nodes only for pods that nothing can hold, and engine pods are no such pods: they are
created when their nodes are there, pinned to them. So placeholders ask in their stead. Their priority is
below every replica's, which therefore preempts them, and above the -10 under which Cluster Autoscaler ignores
a pod; they preempt nobody and end at once. They run the runtime's image, which a node of replicas needs
anyway, and mount the claims of the replica, since a volume can stand in one zone alone. As long as they are
there the autoscaler must not take their node away: the first node of a replica of two waits for the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flotilla_operator.placement.quantities import CPU, Amounts
from flotilla_operator.workloads.engine_pod import DO_NOT_DISRUPT
from flotilla_operator.workloads.hashing import stable_hash
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Child, Manifest, Owner
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
class Place:
    """Which of the set's placeholders: the slot stands for one replica, the stage for a pod of it."""

    slot: int
    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a waiting replica asks of nodes, as its placeholders say it.

    `products` are the values that one of the `product_labels` of a node must have. `pack_within` and
    `spread_across` are given where they are a must.
    """

    requests: Amounts
    stages: int = 1
    node_selector: Mapping[str, str]
    tolerations: Sequence[Manifest]
    products: frozenset[str]
    product_labels: tuple[str, ...]
    claims: Sequence[Manifest] = ()
    pack_within: str | None = None
    spread_across: str | None = None

    @property
    def hash(self) -> str:
        """Names the shape: placeholders of another one are of no use."""
        return stable_hash(
            [
                dict(self.requests),
                self.stages,
                dict(self.node_selector),
                list(self.tolerations),
                sorted(self.products),
                list(self.product_labels),
                list(self.claims),
                self.pack_within,
                self.spread_across,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """What a placeholder is beside its shape: nothing that a node is chosen by."""

    images: Images
    priority_class: str
    labels: Mapping[str, str]
    pull_secrets: Sequence[str] = ()


def placeholders(owner: Owner) -> Child:
    """The placeholders of a set as one part."""
    return Child(owner=owner, component=COMPONENT, suffix="placeholder")


def is_placeholder(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is a placeholder of some set, and so holds nothing against a replica."""
    return LABEL_SLOT in (pod["metadata"].get("labels") or {})


def place_of(pod: Mapping[str, Any]) -> Place:
    """The place that a placeholder stands for."""
    metadata = pod["metadata"]
    stage = (metadata.get("annotations") or {}).get(ANNOTATION_STAGE, "0")
    return Place(slot=int(metadata["labels"][LABEL_SLOT]), stage=int(stage))


def shape_hash_of(pod: Mapping[str, Any]) -> str:
    """The shape that a placeholder was made in."""
    return str((pod["metadata"].get("annotations") or {}).get(ANNOTATION_SHAPE, ""))


def placeholder_pod(owner: Owner, name: str, place: Place, shape: Shape, dress: Dress) -> Manifest:
    """The pod of one place."""
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
        volumes=shape.claims,
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
    """As a container says it; with limits, since devices need them and quotas may."""
    said = {
        resource: f"{value}m" if resource == CPU else str(value)
        for resource, value in sorted(requests.items())
        if resource != PODS and value
    }
    return {"requests": said, "limits": dict(said)}


def _scheduling(owner: Owner, place: Place, shape: Shape) -> Manifest:
    wishes: Manifest = {}
    if shape.node_selector:
        wishes["nodeSelector"] = dict(shape.node_selector)
    if shape.tolerations:
        wishes["tolerations"] = list(shape.tolerations)
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


def _product_terms(shape: Shape) -> list[Manifest]:
    """One alternative for each label that may name the product."""
    return [
        {"matchExpressions": [{"key": label, "operator": "In", "values": sorted(shape.products)}]}
        for label in shape.product_labels
    ]


def _spread(owner: Owner, label: str, stages: int) -> Manifest:
    """Beside the replicas that stand already, since those are what the waiting one is to be apart from."""
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
