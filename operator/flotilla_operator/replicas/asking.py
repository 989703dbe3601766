"""Requests to a node autoscaler: the replicas that placeholders are wanted for, and the results.

How asking has gone is kept in the status, so a new leader does not ask again at once where the last one gave
up. A change of the spec starts over.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from flotilla_operator.api.model_replica_set import NodeProvisioningMode
from flotilla_operator.objects.times import timestamp
from flotilla_operator.placement import Group
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.outlook import Outlook
from flotilla_operator.replicas.provisioning import Placeholder, Provisioning, Unplaced, decide
from flotilla_operator.replicas.shape import PlaceholderShape

ON_THE_WAY = frozenset({Phase.GATED, Phase.BINDING})


class AskingReason(StrEnum):
    """Why replicas wait for which nodes are or were asked."""

    NODES_REQUESTED = "NodesRequested"
    TIMED_OUT = "NodeProvisioningTimedOut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The decision and the shape that it is about. Without a waiting replica there is no shape."""

    provisioning: Provisioning
    shape: PlaceholderShape | None = None

    @property
    def pausing(self) -> bool:
        """Whether asking was given up for now."""
        return self.shape is not None and not self.provisioning.standing

    @property
    def reason(self) -> AskingReason:
        """Why replicas wait."""
        return AskingReason.TIMED_OUT if self.pausing else AskingReason.NODES_REQUESTED

    @property
    def message(self) -> str:
        """Say how many placeholders ask for nodes, or what did not come and when the operator asks again."""
        done = self.provisioning
        if not self.pausing:
            verb = "pod asks" if done.standing == 1 else "pods ask"
            bound = f"{done.bound} of {done.standing} found a node"
            return f"{done.standing} placeholder {verb} the node autoscaler for nodes; {bound}"
        again = timestamp(done.attempts.retry_at) if done.attempts.retry_at is not None else "once"
        return (
            f"{done.attempts.last_timeout}; check the limits of the node autoscaler's node pools; "
            f"the operator asks again at {again}"
        )


def ask_for_nodes(
    outlook: Outlook, held: Sequence[Placeholder], starting: int, now: datetime
) -> Asking | None:
    """Decide about placeholders for the set's refused replicas; None where nothing is or was asked for.

    `held` are the placeholders that exist. `starting` replicas get their pods now.
    """
    me, demand = outlook.me, outlook.demand
    wish = me.spec.placement.node_provisioning
    if wish is None or wish.mode is NodeProvisioningMode.NONE or me.spec.paused:
        return Asking(provisioning=Provisioning(remove=tuple(held))) if held else None
    refusals = outlook.refusals
    shape = _shape(refusals[0].group, outlook) if refusals else None
    held_back = outlook.placement is None and bool(demand.waiting)
    unplaced = Unplaced(
        replicas=len(demand.waiting if held_back else refusals),
        starting=starting + sum(group.lives and group.phase in ON_THE_WAY for group in demand.groups),
        stages=me.stages,
        timeout=timedelta(seconds=wish.timeout_seconds),
        held_back=held_back,
    )
    seen = [_of_this_shape(placeholder, shape) for placeholder in held]
    return Asking(provisioning=decide(unplaced, seen, me.memory.attempts, now), shape=shape)


def due_seconds(asking: Asking | None) -> float:
    """When something must be done even if nothing changes: a time-out, or another try."""
    due = asking.provisioning.look_again_seconds if asking is not None else None
    return math.inf if due is None else due


def _shape(group: Group, outlook: Outlook) -> PlaceholderShape:
    form = outlook.me.intent.form
    return PlaceholderShape(
        requests=group.requests,
        stages=group.stages,
        node_selector=group.node_selector,
        tolerations=form.tolerations,
        products=group.products,
        product_labels=outlook.around.policy.product_labels,
        claims=form.claims,
        pack_within=group.pack_within if group.must_pack else None,
        spread_across=group.spread_across if group.must_spread else None,
        runtime_class=form.spec.pod.runtime_class_name,
    )


def _of_this_shape(placeholder: Placeholder, shape: PlaceholderShape | None) -> Placeholder:
    fits = shape is None or placeholder.shape == shape.hash
    return placeholder if fits else replace(placeholder, useful=False)
