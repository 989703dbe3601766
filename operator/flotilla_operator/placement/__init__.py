"""Placement: takes nodes and replica groups, returns bindings and refusals with their explanation.

Every function here is pure. It takes the time as an argument and never talks to the API server.
"""

from flotilla_operator.placement.groups import Claim, Group, Policy, Snapshot, Standing
from flotilla_operator.placement.outcome import Binding, PlacementPlan, Refusal, RefusalReason
from flotilla_operator.placement.plan import place
from flotilla_operator.placement.rebalance import ProposedMove, Rebalancing, Settled, rebalance
from flotilla_operator.placement.score import Domain, Score, score
from flotilla_operator.placement.topology import Node, Taint, Toleration, Topology

__all__ = [
    "Binding",
    "Claim",
    "Domain",
    "Group",
    "Node",
    "PlacementPlan",
    "Policy",
    "ProposedMove",
    "Rebalancing",
    "Refusal",
    "RefusalReason",
    "Score",
    "Settled",
    "Snapshot",
    "Standing",
    "Taint",
    "Toleration",
    "Topology",
    "place",
    "rebalance",
    "score",
]
