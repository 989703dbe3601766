"""Why a node cannot take a group: a visible chain of checks, in the order in which reasons are counted.

The first ones look at the node and at what the group asks of nodes; they hold for every group of the same
shape, so a plan asks them once a shape. The last ones look at what is free and kept at this point of the
plan.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flotilla_operator.placement.groups import Group, Loads, Policy
from flotilla_operator.placement.outcome import RefusalReason
from flotilla_operator.placement.quantities import Amounts
from flotilla_operator.placement.topology import Node, Toleration


@dataclass(frozen=True, slots=True)
class Shape:
    """What a group asks of a node, beside an amount; groups of one set have one shape."""

    node_selector: tuple[tuple[str, str], ...]
    tolerations: tuple[Toleration, ...]
    products: frozenset[str]
    left_out: frozenset[str]

    @classmethod
    def of(cls, group: Group) -> "Shape":
        """The shape of a group."""
        selector = tuple(sorted(group.node_selector.items()))
        return cls(selector, group.tolerations, group.products, group.left_out)


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
    if not shape.products:
        return None
    fits = any(node.labels.get(label) in shape.products for label in policy.product_labels)
    return None if fits else RefusalReason.PRODUCT_MISMATCH


def bind_timed_out(node: Node, shape: Shape, policy: Policy) -> RefusalReason | None:
    """The group was pinned here in vain a short while ago."""
    return RefusalReason.BIND_TIMED_OUT if node.name in shape.left_out else None


LASTING_CHECKS: tuple[NodeCheck, ...] = (selector_mismatch, taint_not_tolerated, product_mismatch)
NODE_CHECKS: tuple[NodeCheck, ...] = (not_ready, cordoned, *LASTING_CHECKS, bind_timed_out)


def first_reason(
    checks: tuple[NodeCheck, ...], node: Node, shape: Shape, policy: Policy
) -> RefusalReason | None:
    """The first reason against a node."""
    return next((reason for check in checks if (reason := check(node, shape, policy))), None)


def insufficient(loads: Loads, position: int, group: Group) -> RefusalReason | None:
    """Too few accelerators are free, or too little of something else."""
    lacking = loads.lacks(position, group.requests)
    if not lacking:
        return None
    if group.accelerator in lacking:
        return RefusalReason.INSUFFICIENT_GPUS
    return RefusalReason.INSUFFICIENT_RESOURCES


def could_hold(node: Node, requests: Amounts) -> bool:
    """Whether the node would have enough if nothing ran on it."""
    allocatable: Mapping[str, int] = node.allocatable
    return all(value <= allocatable.get(resource, 0) for resource, value in requests.items())
