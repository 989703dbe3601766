"""Placeholders between what was observed and what is written: reads them, asks `provisioning`, makes them.

What became of asking is kept in the status, so a new leader does not ask at once again where the last one
gave up. A change of the spec begins anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.api.model_replica_set import NodeProvisioningMode
from flotilla_operator.cluster.resources import PODS
from flotilla_operator.cluster.writes import Create, Delete, Manifest, Write
from flotilla_operator.controllers.conditions import parsed_timestamp, timestamp
from flotilla_operator.controllers.model_replica_set.demand import Demand
from flotilla_operator.controllers.model_replica_set.life import Phase, Pod, created_at, pod_is_over
from flotilla_operator.controllers.model_replica_set.provisioning import (
    Asked,
    Attempts,
    Placeholder,
    Provisioning,
    decide,
)
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Observed, SetSeen, Surroundings
from flotilla_operator.placement import Group, Placement, Refusal
from flotilla_operator.workloads.engine_pod import claim_volumes, stages_of
from flotilla_operator.workloads.hashing import stable_hash
from flotilla_operator.workloads.placeholder import (
    Dress,
    Place,
    Shape,
    place_of,
    placeholder_pod,
    placeholders,
    shape_hash_of,
)

NAME_LENGTH = 8
ON_THE_WAY = frozenset({Phase.GATED, Phase.BINDING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The decision with the shape that it is about; without a replica that waits there is no shape."""

    provisioning: Provisioning
    shape: Shape | None = None

    @property
    def pausing(self) -> bool:
        """Whether it was given up for now."""
        return self.shape is not None and not self.provisioning.standing

    @property
    def reason(self) -> Reason:
        """Of the condition that says why replicas wait."""
        return Reason.NODE_PROVISIONING_TIMED_OUT if self.pausing else Reason.NODES_REQUESTED

    @property
    def message(self) -> str:
        """What is asked for, or what did not come and when it is tried again."""
        done = self.provisioning
        if not self.pausing:
            verb = "pod asks" if done.standing == 1 else "pods ask"
            return f"{done.standing} placeholder {verb} the node autoscaler for nodes, {done.bound} have one"
        again = timestamp(done.attempts.retry_at) if done.attempts.retry_at is not None else "once"
        return (
            f"{done.attempts.last_timeout}; look at the limits of the autoscaler's node pools; "
            f"it is asked again at {again}"
        )

    @property
    def status(self) -> dict[str, Any] | None:
        """As the set's status shows and keeps it."""
        done = self.provisioning
        if not done.standing and not done.attempts.timeouts:
            return None
        retry_at = done.attempts.retry_at
        return {
            "placeholders": done.standing,
            "bound": done.bound,
            "timeouts": done.attempts.timeouts,
            "lastTimeout": done.attempts.last_timeout or None,
            "retryTime": timestamp(retry_at) if retry_at is not None else None,
        }


def ask_for_nodes(
    observed: Observed, demand: Demand, placement: Placement | None, starting: int, now: datetime
) -> Asking | None:
    """What to do about the set's refused replicas; `starting` ones get their pods in this plan. None where
    nothing is or was ever asked for.
    """
    me, held = observed.me, observed.placeholders
    wish = me.spec.placement.node_provisioning
    if wish is None or wish.mode is NodeProvisioningMode.NONE or me.spec.paused:
        removed = tuple(_placeholder(pod, None) for pod in held)
        return Asking(provisioning=Provisioning(remove=removed)) if removed else None
    refusals = refusals_of(me, placement)
    shape = _shape(refusals[0].group, me, observed.around) if refusals else None
    held_back = placement is None and bool(demand.waiting)
    asked = Asked(
        replicas=len(demand.waiting if held_back else refusals),
        starting=starting + sum(group.lives and group.phase in ON_THE_WAY for group in demand.groups),
        stages=stages_of(me.spec),
        timeout=timedelta(seconds=wish.timeout_seconds),
        held_back=held_back,
    )
    seen = [_placeholder(pod, shape) for pod in held]
    return Asking(provisioning=decide(asked, seen, _attempts(me.manifest), now), shape=shape)


def due_seconds(asking: Asking | None) -> float:
    """When something is due even if nothing changes: a time-out, or another try."""
    due = asking.provisioning.look_again_seconds if asking is not None else None
    return math.inf if due is None else due


def placeholder_writes(asking: Asking | None, observed: Observed, now: datetime) -> Sequence[Write]:
    """Placeholders that go, then those that come."""
    if asking is None:
        return ()
    me = observed.me
    removed = [
        Delete(ref=PODS.ref(me.owner.namespace, one.name), uid=one.uid, grace_period_seconds=0)
        for one in asking.provisioning.remove
    ]
    if asking.shape is None:
        return removed
    dress = Dress(
        images=observed.around.images,
        priority_class=observed.around.placeholder_priority_class,
        labels=me.spec.pod.labels,
        pull_secrets=[secret.name for secret in me.spec.pod.image_pull_secrets],
    )
    created = [
        Create(manifest=placeholder_pod(me.owner, _name(me, place, now), place, asking.shape, dress))
        for place in asking.provisioning.create
    ]
    return [*removed, *created]


def refusals_of(me: SetSeen, placement: Placement | None) -> list[Refusal]:
    """Why the set's waiting replicas have no place."""
    owner = f"{me.owner.namespace}/{me.owner.name}"
    return [refusal for refusal in placement.refusals if refusal.group.owner == owner] if placement else []


def _name(me: SetSeen, place: Place, now: datetime) -> str:
    """One that no placeholder had lately, since a pod may be going while its successor comes."""
    suffix = stable_hash([me.owner.uid, now.isoformat(), place.slot, place.stage], length=NAME_LENGTH)
    return f"{placeholders(me.owner).name}-{suffix}"


def _shape(group: Group, me: SetSeen, around: Surroundings) -> Shape:
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


def _attempts(manifest: Manifest) -> Attempts:
    """What the status remembers of this very spec."""
    status = manifest.get("status") or {}
    held = (status.get("placement") or {}).get("nodeProvisioning")
    if not held or status.get("observedGeneration") != manifest["metadata"].get("generation"):
        return Attempts()
    retry = held.get("retryTime")
    return Attempts(
        timeouts=held.get("timeouts", 0),
        last_timeout=held.get("lastTimeout", ""),
        retry_at=parsed_timestamp(retry) if retry else None,
    )
