"""How many replicas autoscaling wants, from what the routers report."""

from collections.abc import Sequence
from datetime import datetime

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.autoscaling.from_zero import ZeroDecision, ZeroPolicy, ZeroSignals, decide
from flotilla_operator.replicas.facts import RouterLoad, SetFacts
from flotilla_operator.replicas.group import ReplicaGroup


def policy_of(spec: ModelReplicaSetSpec) -> ZeroPolicy | None:
    """The set's policy; None where `spec.replicas` applies."""
    if spec.autoscaling is None:
        return None
    return ZeroPolicy(
        min_replicas=spec.autoscaling.min_replicas,
        max_replicas=spec.autoscaling.max_replicas,
        scale_to_zero_after_seconds=spec.autoscaling.scale_to_zero_after_seconds,
        start_deadline_seconds=spec.update.progress_deadline_seconds,
    )


def scale(facts: SetFacts, last: ZeroDecision | None) -> ZeroDecision | None:
    """The decision that a reconcile goes by; None where `spec.replicas` applies.

    It is the last one of the steering loop. If the spec or the number in force has changed since, it is made
    again from the same signals.
    """
    policy, current = policy_of(facts.newest.spec), facts.memory.wanted
    if policy is None:
        return None
    if last is not None and (last.policy, last.current) == (policy, current):
        return last
    return decide(last.signals if last is not None else None, policy, current=current)


def zero_signals(load: RouterLoad, ready_since: datetime | None, now: datetime) -> ZeroSignals | None:
    """Return the routers' figures as input of the decision; None when no router answers."""
    if load.waiting is None or load.running is None:
        return None
    return ZeroSignals(
        requests=load.waiting + load.running,
        idle_seconds=load.idle_seconds,
        ready_seconds=None if ready_since is None else (now - ready_since).total_seconds(),
    )


def all_ready_since(groups: Sequence[ReplicaGroup]) -> datetime | None:
    """Since when all replicas have been ready; None when one is not, or there is none."""
    times = [member.ready_since for group in groups for member in group.staying]
    known = [since for since in times if since is not None]
    return max(known) if known and len(known) == len(times) else None
