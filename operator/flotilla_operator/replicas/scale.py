"""How many replicas autoscaling wants, from what the routers report."""

from collections.abc import Sequence
from datetime import datetime

from flotilla_operator.autoscaling.from_zero import ZeroDecision, ZeroPolicy, ZeroSignals, decide
from flotilla_operator.replicas.facts import RouterLoad, SetFacts
from flotilla_operator.replicas.group import ReplicaGroup


def scale(facts: SetFacts, load: RouterLoad, now: datetime) -> ZeroDecision | None:
    """The decision of autoscaling after the last one; None where `spec.replicas` applies."""
    spec = facts.newest.spec
    if spec.autoscaling is None:
        return None
    policy = ZeroPolicy(
        min_replicas=spec.autoscaling.min_replicas,
        max_replicas=spec.autoscaling.max_replicas,
        scale_to_zero_after_seconds=spec.autoscaling.scale_to_zero_after_seconds,
        start_deadline_seconds=spec.update.progress_deadline_seconds,
    )
    return decide(zero_signals(load, facts.groups, now), policy, current=facts.memory.wanted)


def zero_signals(load: RouterLoad, groups: Sequence[ReplicaGroup], now: datetime) -> ZeroSignals | None:
    """What the routers report, as input of the decision; None when no router answers."""
    if load.waiting is None or load.running is None:
        return None
    return ZeroSignals(
        requests=load.waiting + load.running,
        idle_seconds=load.idle_seconds,
        ready_seconds=ready_seconds(groups, now),
    )


def ready_seconds(groups: Sequence[ReplicaGroup], now: datetime) -> float | None:
    """For how long all replicas have been ready; None when one is not, or there is none."""
    times = [member.ready_since for group in groups for member in group.staying]
    known = [since for since in times if since is not None]
    if not known or len(known) < len(times):
        return None
    return (now - max(known)).total_seconds()
