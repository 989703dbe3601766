"""Why a node cannot take a group: a tuple of checks, in the order in which the reasons are counted.

The first checks look only at the node and at what the group asks of nodes. Their answer is the same for every
group with the same constraints, so a plan runs them once for those. The next check finds the nodes that this
group leaves out. The last ones look at the capacity that is free or reserved at this point of the plan.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flotilla_operator.objects.quantities import Amounts
from flotilla_operator.placement.groups import Group, Policy
from flotilla_operator.placement.loads import Free, times_in
from flotilla_operator.placement.outcome import RefusalReason
from flotilla_operator.placement.topology import Node, Taint, Toleration


@dataclass(frozen=True, slots=True)
class NodeConstraints:
    """Constraints of a group on a node apart from amounts. All groups of one set have the same."""

    node_selector: tuple[tuple[str, str], ...]
    tolerations: tuple[Toleration, ...]
    products: frozenset[str]
    devices: str | None
    must_labels: frozenset[str]

    @classmethod
    def of(cls, group: Group) -> "NodeConstraints":
        """The constraints of a group."""
        selector = tuple(sorted(group.node_selector.items()))
        musts = ((group.must_pack, group.pack_within), (group.must_spread, group.spread_across))
        labels = frozenset(label for must, label in musts if must and label is not None)
        devices = group.accelerator if group.products_of_devices else None
        return cls(selector, group.tolerations, group.products, devices, labels)


NodeCheck = Callable[[Node, NodeConstraints, Policy], RefusalReason | None]


def not_ready(node: Node, constraints: NodeConstraints, policy: Policy) -> RefusalReason | None:
    """The kubelet does not report the node as ready."""
    return None if node.ready else RefusalReason.NODE_NOT_READY


def cordoned(node: Node, constraints: NodeConstraints, policy: Policy) -> RefusalReason | None:
    """The node is cordoned, so it is about to be emptied."""
    return RefusalReason.CORDONED if node.cordoned else None


def selector_mismatch(node: Node, constraints: NodeConstraints, policy: Policy) -> RefusalReason | None:
    """The group's node selector does not match the node's labels."""
    fits = all(node.labels.get(key) == value for key, value in constraints.node_selector)
    return None if fits else RefusalReason.SELECTOR_MISMATCH


def untolerated(node: Node, constraints: NodeConstraints) -> tuple[Taint, ...]:
    """The node's taints that keep the group away."""
    away = (taint for taint in node.taints if taint.keeps_away)
    return tuple(taint for taint in away if not any(t.tolerates(taint) for t in constraints.tolerations))


def taint_not_tolerated(node: Node, constraints: NodeConstraints, policy: Policy) -> RefusalReason | None:
    """The node has a taint that the group does not tolerate."""
    return RefusalReason.TAINT_NOT_TOLERATED if untolerated(node, constraints) else None


def product_mismatch(node: Node, constraints: NodeConstraints, policy: Policy) -> RefusalReason | None:
    """The node's accelerator is of another product, or the node does not name its product."""
    if constraints.devices is not None and not node.allocatable.get(constraints.devices):
        return RefusalReason.PRODUCT_MISMATCH
    if not constraints.products:
        return None
    fits = any(node.labels.get(label) in constraints.products for label in policy.product_labels)
    return None if fits else RefusalReason.PRODUCT_MISMATCH


def topology_label_missing(node: Node, constraints: NodeConstraints, policy: Policy) -> RefusalReason | None:
    """The node lacks a topology label that the group requires."""
    fits = all(node.label(label) is not None for label in constraints.must_labels)
    return None if fits else RefusalReason.TOPOLOGY_LABEL_MISSING


CHECKS_BESIDE_TAINTS: tuple[NodeCheck, ...] = (selector_mismatch, product_mismatch, topology_label_missing)
LASTING_CHECKS: tuple[NodeCheck, ...] = (
    selector_mismatch,
    taint_not_tolerated,
    product_mismatch,
    topology_label_missing,
)
NODE_CHECKS: tuple[NodeCheck, ...] = (not_ready, cordoned, *LASTING_CHECKS)


def first_reason(
    checks: tuple[NodeCheck, ...], node: Node, constraints: NodeConstraints, policy: Policy
) -> RefusalReason | None:
    """The reason of the first check that refuses the node; None when all pass."""
    return next((reason for check in checks if (reason := check(node, constraints, policy))), None)


def insufficient(loads: Free, position: int, group: Group) -> RefusalReason | None:
    """The node has too few free accelerators, or too little of another resource."""
    if loads.holds(position, group.requests):
        return None
    lacking = loads.lacks(position, group.requests)
    if group.accelerator in lacking:
        return RefusalReason.INSUFFICIENT_GPUS
    return RefusalReason.INSUFFICIENT_RESOURCES


def stages_when_empty(node: Node, requests: Amounts) -> int:
    """How many stages the node could take if nothing ran on it."""
    return times_in(node.allocatable, requests)


def only_taints(
    node: Node, constraints: NodeConstraints, requests: Amounts, policy: Policy
) -> tuple[Taint, ...]:
    """The taints that keep a stage from a node which could take it if they were tolerated and nothing ran.

    There are none for nodes that are of no use anyway, such as the control plane's.
    """
    if not stages_when_empty(node, requests):
        return ()
    if first_reason(CHECKS_BESIDE_TAINTS, node, constraints, policy) is not None:
        return ()
    return untolerated(node, constraints)
