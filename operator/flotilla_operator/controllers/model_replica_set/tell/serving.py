"""Checks of a set's spec, its routers and the replicas that serve."""

from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.autoscaling.from_zero import ZeroReason
from flotilla_operator.controllers.chains import Finding, informs, right
from flotilla_operator.controllers.conditions import MendedBy, Truth
from flotilla_operator.controllers.ignored_fields import told_of
from flotilla_operator.controllers.missing import finding_of
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.tell.facts import Facts, of_trouble, ready_of_wanted


def names_what_is_missing(facts: Facts) -> Finding | None:
    """Something that the spec names does not exist, or the model cannot fit."""
    return finding_of(facts.missing)


def has_a_prefix_that_does_not_count(facts: Facts) -> Finding | None:
    """The shared prefix is left out of the figures. The set serves all the same."""
    ignored = facts.ignored_prefix
    return None if ignored is None else informs(Truth.FALSE, Reason.SHARED_PREFIX_IGNORED, ignored)


def has_unknown_fields(facts: Facts) -> Finding | None:
    """Fields that only a newer release knows are ignored; the spec is valid all the same."""
    return right(Reason.FIELDS_IGNORED, told_of(facts.ignored)) if facts.ignored else None


def is_valid(facts: Facts) -> Finding:
    """The operator can act on the spec."""
    return right(Reason.VALID)


def a_name_of_the_router_is_taken(facts: Facts) -> Finding | None:
    """Other objects hold names that the router's objects need."""
    if not facts.names_taken:
        return None
    message = (
        "these names are taken by objects that this ModelReplicaSet does not own: "
        f"{', '.join(facts.names_taken)}; delete those objects, or give this ModelReplicaSet another name"
    )
    return Finding(reason=Reason.NAME_TAKEN, message=message, mended_by=MendedBy.PERSON)


def no_router_is_ready(facts: Facts) -> Finding | None:
    """No router can take requests."""
    if facts.routers_ready:
        return None
    trouble = facts.router_trouble
    return of_trouble(Reason.ROUTER_STARTING if trouble is None else trouble.reason, _routers(facts))


def a_router_cannot_use_a_replica(facts: Facts) -> Finding | None:
    """A replica gets no requests, because its pod does not say what routers need, or says it of another."""
    if not facts.unusable:
        return None
    told = "; ".join(f"{pod}: {problem}" for pod, problem in sorted(facts.unusable.items()))
    message = f"routers send no requests to these pods: {told}; delete a pod that stays unusable"
    return Finding(reason=Reason.REPLICA_UNUSABLE, message=message[:MESSAGE_LIMIT])


def a_router_is_ready(facts: Facts) -> Finding:
    """At least one router can take requests; trouble of another one is told."""
    return right(Reason.ROUTER_AVAILABLE, _routers(facts))


def a_replica_serves(facts: Facts) -> Finding | None:
    """At least one replica answers."""
    return right(Reason.REPLICAS_AVAILABLE, ready_of_wanted(facts)) if facts.ready else None


def none_is_wanted(facts: Facts) -> Finding | None:
    """The set is scaled to zero, which is as it should be."""
    if facts.wanted:
        return None
    why = "spec.replicas is 0" if facts.scaling is None else "the next request starts a replica"
    return right(Reason.SCALED_TO_ZERO, why)


def a_replica_has_trouble(facts: Facts) -> Finding | None:
    """The trouble of a replica is why not all of them serve."""
    if facts.trouble is None:
        return None
    group, trouble = facts.trouble
    return of_trouble(trouble.reason, f"{ready_of_wanted(facts)}; {group.name}: {trouble.message}")


def replicas_start(facts: Facts) -> Finding:
    """Nothing is wrong with the replicas that do not serve yet."""
    reason = Reason.SCALING if facts.ready else Reason.NO_REPLICA_READY
    return Finding(reason=reason, message=ready_of_wanted(facts))


def autoscaling_has_no_figures(facts: Facts) -> Finding | None:
    """Autoscaling keeps the number, because not every router reports."""
    scaling = facts.scaling
    if scaling is None or scaling.reason is not ZeroReason.NO_FIGURES:
        return None
    kept = (
        "not every router reports its requests, so spec.autoscaling keeps the number of replicas at "
        f"{scaling.wanted}"
    )
    return informs(Truth.FALSE, Reason.NO_FIGURES, f"{kept}; spec.replicas is ignored")


def autoscaling_decides(facts: Facts) -> Finding:
    """Autoscaling sets the number of replicas."""
    assert facts.scaling is not None
    decided = f"spec.autoscaling sets the number of replicas to {facts.scaling.wanted}"
    message = f"{decided} ({facts.scaling.reason}); spec.replicas is ignored"
    return informs(Truth.TRUE, Reason.REPLICAS_IGNORED, message)


def _routers(facts: Facts) -> str:
    ready = f"{facts.routers_ready} of {facts.spec.router.replicas} router pods are ready"
    return ready if facts.router_trouble is None else f"{ready}; {facts.router_trouble.message}"
