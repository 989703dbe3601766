"""Why a node cannot take a group: a visible chain of checks, in the order in which reasons are counted.

The first ones look at the node and at what the group asks of nodes; they hold for every group of the same
shape, so a plan asks them once a shape. Next come the nodes that this very group leaves out. The last ones
look at what is free and kept at this point of the plan.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flotilla_operator.placement.groups import Group, Policy
from flotilla_operator.placement.loads import Loads, times_in
from flotilla_operator.placement.outcome import RefusalReason
from flotilla_operator.placement.quantities import Amounts
from flotilla_operator.placement.topology import Node, Toleration


@dataclass(frozen=True, slots=True)
class Shape:
    """What a group asks of a node, beside an amount; groups of one set have one shape."""

    node_selector: tuple[tuple[str, str], ...]
    tolerations: tuple[Toleration, ...]
    products: frozenset[str]
    devices: str | None
    must_labels: frozenset[str]

    @classmethod
    def of(cls, group: Group) -> "Shape":
        """The shape of a group."""
        selector = tuple(sorted(group.node_selector.items()))
        musts = ((group.must_pack, group.pack_within), (group.must_spread, group.spread_across))
        labels = frozenset(label for must, label in musts if must and label is not None)
        devices = group.accelerator if group.products_of_devices else None
        return cls(selector, group.tolerations, group.products, devices, labels)


NodeCheck = Callable[[Node, Shape, Policy], RefusalReason | None]


def not_ready(node: Node, shape: Shape, policy: Policy) -> RefusalReason | None:
    """The kubelet does not report."""
    return None if node.ready else RefusalReason.NODE_NOT_READY


def cordoned(node: Node, shape: Shape, policy: Policy) -> RefusalReason | None:
    """Somebody is about to take the node away."""
    return RefusalReason.CORDONED if node.cordoned else None


def selector_mismatch(node: Node, shape: Shape, policy: Policy) -> RefusalReason | None:
    """The user wants other nodes."""
    fits = all(node.labels.get(key) == value for key, value in shape.node_selector)
    return None if fits else RefusalReason.SELECTOR_MISMATCH


def taint_not_tolerated(node: Node, shape: Shape, policy: Policy) -> RefusalReason | None:
    """The node does not want this pod."""
    for taint in node.taints:
        if taint.keeps_away and not any(t.tolerates(taint) for t in shape.tolerations):
            return RefusalReason.TAINT_NOT_TOLERATED
    return None


def product_mismatch(node: Node, shape: Shape, policy: Policy) -> RefusalReason | None:
    """Another model of accelerator, or none that says what it is."""
    if shape.devices is not None and not node.allocatable.get(shape.devices):
        return RefusalReason.PRODUCT_MISMATCH
    if not shape.products:
        return None
    fits = any(node.labels.get(label) in shape.products for label in policy.product_labels)
    return None if fits else RefusalReason.PRODUCT_MISMATCH


def topology_label_missing(node: Node, shape: Shape, policy: Policy) -> RefusalReason | None:
    """The node does not say in which domain it lies, and the group must know."""
    fits = all(node.label(label) is not None for label in shape.must_labels)
    return None if fits else RefusalReason.TOPOLOGY_LABEL_MISSING


LASTING_CHECKS: tuple[NodeCheck, ...] = (
    selector_mismatch,
    taint_not_tolerated,
    product_mismatch,
    topology_label_missing,
)
NODE_CHECKS: tuple[NodeCheck, ...] = (not_ready, cordoned, *LASTING_CHECKS)


def first_reason(
    checks: tuple[NodeCheck, ...], node: Node, shape: Shape, policy: Policy
) -> RefusalReason | None:
    """The first reason against a node."""
    return next((reason for check in checks if (reason := check(node, shape, policy))), None)


def insufficient(loads: Loads, position: int, group: Group) -> RefusalReason | None:
    """Too few accelerators are free, or too little of something else."""
    if loads.holds(position, group.requests):
        return None
    lacking = loads.lacks(position, group.requests)
    if group.accelerator in lacking:
        return RefusalReason.INSUFFICIENT_GPUS
    return RefusalReason.INSUFFICIENT_RESOURCES


def stages_when_empty(node: Node, requests: Amounts) -> int:
    """How many stages the node could take if nothing ran on it."""
    return times_in(node.allocatable, requests)
