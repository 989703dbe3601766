"""What is asked of a node autoscaler: for which replicas placeholders are wanted, and what came of it.

How asking has gone is kept in the status, so a new leader does not ask again at once where the last one gave
up. A change of the spec starts over.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from flotilla_operator.api.model_replica_set import NodeProvisioningMode
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.times import timestamp
from flotilla_operator.placement import Group, Placement, Refusal
from flotilla_operator.replicas.demand import Demand
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.intent import IntendedSet
from flotilla_operator.replicas.provisioning import Asked, Placeholder, Provisioning, decide
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_operator.workloads.engine_pod import claim_volumes, stages_of
from flotilla_operator.workloads.group_pods import Pod, created_at, pod_is_over
from flotilla_operator.workloads.placeholder import (
    Shape,
    place_of,
    shape_hash_of,
)

ON_THE_WAY = frozenset({Phase.GATED, Phase.BINDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The decision and the shape that it is about. Without a waiting replica there is no shape."""

    provisioning: Provisioning
    shape: Shape | None = None

    @property
    def pausing(self) -> bool:
        """Whether asking was given up for now."""
        return self.shape is not None and not self.provisioning.standing

    @property
    def reason(self) -> Reason:
        """The reason of the condition that says why replicas wait."""
        return Reason.NODE_PROVISIONING_TIMED_OUT if self.pausing else Reason.NODES_REQUESTED

    @property
    def message(self) -> str:
        """What is asked for, or what did not come and when it is tried again."""
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
    situation: Situation, demand: Demand, placement: Placement | None, starting: int, now: datetime
) -> Asking | None:
    """What to do about the set's refused replicas; None where nothing is or was asked for.

    `starting` replicas get their pods now.
    """
    me, held = situation.me, situation.observed.placeholders
    wish = me.spec.placement.node_provisioning
    if wish is None or wish.mode is NodeProvisioningMode.NONE or me.spec.paused:
        removed = tuple(_placeholder(pod, None) for pod in held)
        return Asking(provisioning=Provisioning(remove=removed)) if removed else None
    refusals = refusals_of(me, placement)
    shape = _shape(refusals[0].group, me, situation.around) if refusals else None
    held_back = placement is None and bool(demand.waiting)
    asked = Asked(
        replicas=len(demand.waiting if held_back else refusals),
        starting=starting + sum(group.lives and group.phase in ON_THE_WAY for group in demand.groups),
        stages=stages_of(me.spec),
        timeout=timedelta(seconds=wish.timeout_seconds),
        held_back=held_back,
    )
    seen = [_placeholder(pod, shape) for pod in held]
    return Asking(provisioning=decide(asked, seen, me.memory.attempts, now), shape=shape)


def due_seconds(asking: Asking | None) -> float:
    """When something must be done even if nothing changes: a time-out, or another try."""
    due = asking.provisioning.look_again_seconds if asking is not None else None
    return math.inf if due is None else due


def refusals_of(me: IntendedSet, placement: Placement | None) -> list[Refusal]:
    """Why the set's waiting replicas have no place."""
    if placement is None:
        return []
    return [refusal for refusal in placement.refusals if refusal.group.owner == me.full_name]


def _shape(group: Group, me: IntendedSet, around: Surroundings) -> Shape:
    return Shape(
        requests=group.requests,
        stages=group.stages,
        node_selector=group.node_selector,
        tolerations=[toleration.manifest() for toleration in me.spec.placement.tolerations],
        products=group.products,
        product_labels=around.policy.product_labels,
        claims=claim_volumes(me.spec),
        pack_within=group.pack_within if group.must_pack else None,
        spread_across=group.spread_across if group.must_spread else None,
    )


def _placeholder(pod: Pod, shape: Shape | None) -> Placeholder:
    fits = shape is None or shape_hash_of(pod) == shape.hash
    return Placeholder(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        place=place_of(pod),
        created_at=created_at(pod),
        node=pod["spec"].get("nodeName"),
        useful=fits and not pod_is_over(pod),
    )
