"""Pure: nodes and replica groups in, bindings with their explanation out."""

from flotilla_operator.placement.groups import Claim, Group, Policy, Snapshot
from flotilla_operator.placement.outcome import Binding, Placement, Refusal, RefusalReason, Score, score
from flotilla_operator.placement.plan import place
from flotilla_operator.placement.topology import Node, Taint, Toleration, Topology

__all__ = [
    "Binding",
    "Claim",
    "Group",
    "Node",
    "Placement",
    "Policy",
    "Refusal",
    "RefusalReason",
    "Score",
    "Snapshot",
    "Taint",
    "Toleration",
    "Topology",
    "place",
    "score",
]
