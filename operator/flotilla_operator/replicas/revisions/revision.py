"""Judges the newest revision from what its groups and the routers show."""

from datetime import datetime

from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.replicas.asking import Asking
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.outlook import Outlook
from flotilla_operator.replicas.revisions.evidence import Evidence
from flotilla_operator.replicas.revisions.rollout import Rollout, judged


def judged_revision(outlook: Outlook, load: RouterLoad, asking: Asking | None, now: datetime) -> Rollout:
    """Return the judged rollout to remember. While the set is paused, no time passes for it."""
    me = outlook.me
    evidence = Evidence(
        revision=me.newest_revision,
        wanted=me.replicas,
        groups=outlook.demand.groups,
        update=me.spec.update,
        attainment=None if me.spec.slo is None else me.spec.slo.attainment,
        answers=load.answers,
        answers_known=load.of_all,
        can_go_back=me.facts.can_go_back,
        paused=me.spec.paused,
        waits_for_room=waits_for_room(outlook, asking, now),
    )
    return judged(me.memory.rollout, evidence, now)


def waits_for_room(outlook: Outlook, asking: Asking | None, now: datetime) -> bool:
    """Whether groups cannot start for lack of room of any kind, which is not the revision's fault.

    A group that fits on no existing node also counts while a node autoscaler may still bring a larger one. It
    no longer counts once the autoscaler was asked without success.
    """
    demand, refusals = outlook.demand, outlook.refusals
    if demand.waiting and demand.backoff is not None and demand.backoff.holds(now):
        return demand.backoff.reason == WriteReason.QUOTA_EXCEEDED
    refused = outlook.me.memory.refusal
    if refused is not None and refused.reason is WriteReason.QUOTA_EXCEEDED:
        return True
    if refusals:
        requested = asking is not None and asking.shape is not None and not asking.pausing
        return requested or all(refusal.fits_when_empty for refusal in refusals)
    unbound = [group for group in demand.groups if group.lives and group.phase is Phase.BINDING]
    return not any(group.pinned for group in unbound) and any(
        member.lacks_resources for group in unbound for member in group.members
    )
