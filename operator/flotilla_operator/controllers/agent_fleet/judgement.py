"""The conditions of a fleet: what it rests on, what it consists of.

Models and indexes that are missing or not served yet are Reconciling: they may appear without anybody
touching the fleet. A secret that is missing and a model of the wrong task are Stalled: a person must act.
"""

from collections.abc import Sequence

from flotilla_operator.api.agent_fleet import AgentFleetSpec, RedisMode
from flotilla_operator.controllers.agent_fleet.reasons import ConditionType, Reason
from flotilla_operator.controllers.agent_fleet.seen import Observed, Problem
from flotilla_operator.controllers.conditions import (
    SPEC_VALID,
    Condition,
    MendedBy,
    Truth,
    with_summary,
)
from flotilla_operator.controllers.ignored_fields import ignored_fields
from flotilla_operator.workloads import agent_fleet as workloads


def conditions(observed: Observed) -> list[Condition]:
    """All conditions, with the summary."""
    shown = [
        spec_valid(observed),
        models_ready(observed),
        indexes_ready(observed),
        queue_ready(observed),
        gateway_ready(observed),
        workers_ready(observed),
    ]
    if observed.spec.paused:
        shown.append(
            Condition(
                type=ConditionType.PAUSED,
                status=Truth.TRUE,
                reason=Reason.SPEC_PAUSED,
                message="spec.paused is true: nothing is changed",
                counts=False,
            )
        )
    return with_summary(shown)


def spec_valid(observed: Observed) -> Condition:
    """The spec can be acted on; what a newer release added to it is named and left out."""
    if ignored := ignored_fields(AgentFleetSpec, observed.manifest["spec"], "spec"):
        names = ", ".join(ignored)
        message = f"this operator does not know and leaves out {names}; upgrade it to act on them"
        return _right(SPEC_VALID, Reason.FIELDS_IGNORED, message)
    return _right(SPEC_VALID, Reason.VALID)


def models_ready(observed: Observed) -> Condition:
    """Every model can be called."""
    if observed.problems.models:
        return _wrong(ConditionType.MODELS_READY, observed.problems.models)
    names = ", ".join(model.name for model in observed.wiring.models)
    return _right(ConditionType.MODELS_READY, Reason.MODELS_AVAILABLE, names)


def indexes_ready(observed: Observed) -> Condition:
    """Every index can be searched."""
    if observed.problems.indexes:
        return _wrong(ConditionType.INDEXES_READY, observed.problems.indexes)
    if not observed.spec.indexes:
        return _right(ConditionType.INDEXES_READY, Reason.NO_INDEXES, "the fleet names no index")
    names = ", ".join(index.name for index in observed.wiring.indexes)
    return _right(ConditionType.INDEXES_READY, Reason.INDEXES_SERVED, names)


def queue_ready(observed: Observed) -> Condition:
    """Redis takes tasks."""
    if observed.problems.queue:
        return _wrong(ConditionType.QUEUE_READY, observed.problems.queue)
    part, gateway = workloads.redis(observed.owner), workloads.gateway(observed.owner)
    if observed.password_lost_at is not None:
        message = (
            f"the Secret {part.name} with the password of Redis was missing; it is made anew, and Redis and "
            "its clients start again with it"
        )
        return _wrong(ConditionType.QUEUE_READY, [Problem(reason=Reason.PASSWORD_LOST, message=message)])
    if observed.spec.queue.redis.mode is RedisMode.MANAGED:
        if observed.ready_replicas("StatefulSet", part.name):
            return _right(ConditionType.QUEUE_READY, Reason.REDIS_AVAILABLE)
        claim = observed.live.get(("PersistentVolumeClaim", part.name), {})
        phase = (claim.get("status") or {}).get("phase", "Pending")
        message = f"StatefulSet {part.name} is not ready (its claim {part.name} is {phase})"
        return _wrong(ConditionType.QUEUE_READY, [Problem(reason=Reason.REDIS_STARTING, message=message)])
    if observed.figures is not None:
        return _right(ConditionType.QUEUE_READY, Reason.REDIS_AVAILABLE)
    if not observed.ready_replicas("Deployment", gateway.name):
        message = "known as soon as a gateway is ready"
        return _wrong(ConditionType.QUEUE_READY, [Problem(reason=Reason.REDIS_STARTING, message=message)])
    message = "no gateway reaches the Redis of spec.queue.redis.urlSecretRef; see the gateways' logs"
    return _wrong(ConditionType.QUEUE_READY, [Problem(reason=Reason.REDIS_UNREACHABLE, message=message)])


def gateway_ready(observed: Observed) -> Condition:
    """Somebody takes tasks in."""
    if observed.problems.gateway:
        return _wrong(ConditionType.GATEWAY_READY, observed.problems.gateway)
    ready = observed.ready_replicas("Deployment", workloads.gateway(observed.owner).name)
    message = f"{ready} of {observed.spec.gateway.replicas} gateway pods are ready"
    if not ready:
        return _wrong(ConditionType.GATEWAY_READY, [Problem(reason=Reason.GATEWAY_STARTING, message=message)])
    return _right(ConditionType.GATEWAY_READY, Reason.GATEWAY_AVAILABLE, message)


def workers_ready(observed: Observed) -> Condition:
    """Somebody runs tasks, or there is none to run."""
    name = workloads.workers(observed.owner).name
    if not observed.wiring.complete and ("Deployment", name) not in observed.live:
        message = "workers start when every model and index is known"
        return _wrong(
            ConditionType.WORKERS_READY,
            [Problem(reason=Reason.WAITS_FOR_MODELS_AND_INDEXES, message=message)],
        )
    ready, wanted = observed.ready_replicas("Deployment", name), observed.decision.wanted
    message = f"{ready} of {wanted} workers are ready"
    if wanted == 0:
        return _right(ConditionType.WORKERS_READY, Reason.NO_TASKS, "no worker is needed now")
    if not ready:
        return _wrong(ConditionType.WORKERS_READY, [Problem(reason=Reason.WORKERS_STARTING, message=message)])
    return _right(ConditionType.WORKERS_READY, Reason.WORKERS_AVAILABLE, message)


def _right(condition_type: str, reason: Reason, message: str = "") -> Condition:
    return Condition(type=condition_type, status=Truth.TRUE, reason=reason, message=message)


def _wrong(condition_type: str, problems: Sequence[Problem]) -> Condition:
    """What a person must mend comes first; the message tells all."""
    first = min(problems, key=lambda problem: problem.mended_by is not MendedBy.PERSON)
    others = [problem.message for problem in problems if problem is not first]
    return Condition(
        type=condition_type,
        status=Truth.FALSE,
        reason=first.reason,
        message="; ".join([first.message, *others]),
        mended_by=first.mended_by,
    )
