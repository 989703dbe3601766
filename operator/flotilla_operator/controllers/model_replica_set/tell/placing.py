"""Checks of a set's places: whether every group has one, and if not, what it waits for."""

from flotilla_operator.controllers.chains import Finding, right
from flotilla_operator.controllers.conditions import MendedBy
from flotilla_operator.controllers.failures import MENDED_BY_A_PERSON
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.tell.facts import Facts, replicas
from flotilla_operator.objects.times import timestamp
from flotilla_operator.placement import Refusal
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.trouble import TroubleReason

NO_NODE_EVEN_EMPTY = (
    "a replica would not fit even if nothing ran on the nodes: add larger or matching nodes, or change "
    "spec.accelerator, spec.parallelism or spec.placement"
)
OR_ASK_FOR_NODES = (
    "; with spec.placement.nodeProvisioning, a node autoscaler is asked for nodes that would fit"
)


def backs_off(facts: Facts) -> Finding | None:
    """Replicas have failed, and the next one starts only after a pause."""
    if (backoff := facts.backoff) is None:
        return None
    after = f"after {backoff.failures} failures in a row; last failure: {backoff.message}"
    return Finding(
        reason=Reason.BACKING_OFF,
        message=f"{_waiting(facts)} until {timestamp(backoff.until)} {after}",
        mended_by=MendedBy.PERSON if backoff.reason in MENDED_BY_A_PERSON else MendedBy.TIME,
    )


def has_asked_for_nodes(facts: Facts) -> Finding | None:
    """There is no room, and the node autoscaler was asked. After a time-out a person must act."""
    refusal, asking = facts.refusal, facts.asking
    if refusal is None or asking is None or asking.shape is None:
        return None
    in_vain = asking.pausing and not refusal.fits_when_empty
    return Finding(
        reason=Reason(asking.reason),
        message=f"{_refused(facts, refusal)}; {asking.message}",
        mended_by=MendedBy.PERSON if in_vain else MendedBy.TIME,
    )


def would_not_fit_on_empty_nodes(facts: Facts) -> Finding | None:
    """No node could ever hold a replica."""
    refusal = facts.refusal
    if refusal is None or refusal.fits_when_empty:
        return None
    accelerator = facts.spec.accelerator
    by_resource = accelerator is not None and accelerator.resource is not None
    message = f"{_refused(facts, refusal)}; {NO_NODE_EVEN_EMPTY}{OR_ASK_FOR_NODES if by_resource else ''}"
    return Finding(reason=Reason.NO_NODE_CAN_FIT, message=message, mended_by=MendedBy.PERSON)


def waits_for_room(facts: Facts) -> Finding | None:
    """A replica fits once others give room back."""
    refusal = facts.refusal
    if refusal is None:
        return None
    return Finding(reason=Reason.INSUFFICIENT_CAPACITY, message=_refused(facts, refusal))


def lacks_what_it_names(facts: Facts) -> Finding | None:
    """Replicas wait for something that the spec names and that is missing."""
    if not facts.waiting or not facts.missing:
        return None
    message = f"{_waiting(facts)}: the condition SpecValid says what to correct"
    return Finding(reason=facts.missing[0].reason, message=message)


def waits_while_paused(facts: Facts) -> Finding | None:
    """Replicas wait, and nothing is missing but leave to create them."""
    message = "spec.paused is true: the operator creates no replica"
    return Finding(reason=Reason.PAUSED, message=message) if facts.waiting else None


def the_scheduler_binds_no_pod(facts: Facts) -> Finding | None:
    """The scheduler says why it does not bind a pod that the operator has not bound to a node."""
    unbound = [group for group in facts.live if group.phase is Phase.BINDING]
    said = [member.not_bound_because for group in unbound for member in group.members]
    if not any(said) or any(group.pinned for group in unbound):
        return None
    return Finding(reason=TroubleReason.UNSCHEDULABLE, message=next(filter(None, said)))


def is_left_to_the_scheduler(facts: Facts) -> Finding | None:
    """Replicas without accelerators get their nodes from the scheduler alone."""
    return right(Reason.LEFT_TO_SCHEDULER) if facts.spec.accelerator is None else None


def all_are_placed(facts: Facts) -> Finding:
    """Every group has its nodes."""
    return right(Reason.ALL_PLACED)


def _refused(facts: Facts, refusal: Refusal) -> str:
    group = refusal.group
    asked = f"{group.wanted} {group.accelerator} on one node"
    if group.stages > 1:
        asked = f"{group.stages} stages with {group.wanted} {group.accelerator} each"
    return f"{_waiting(facts)} for {asked}: {refusal.message}{_of_taints(refusal)}"


def _of_taints(refusal: Refusal) -> str:
    """Return the advice for a replica that taints keep away; empty without one."""
    if (taint := refusal.frequent_taint) is None:
        return ""
    others = len(refusal.taints) - 1
    and_others = "" if not others else " and 1 other" if others == 1 else f" and {others} others"
    return (
        f"; the taint {taint}{and_others} can be tolerated in spec.placement.tolerations, or for all sets "
        "with an accelerator in the chart's placement.tolerations"
    )


def _waiting(facts: Facts) -> str:
    return f"{replicas(facts.waiting)} {'waits' if facts.waiting == 1 else 'wait'}"
