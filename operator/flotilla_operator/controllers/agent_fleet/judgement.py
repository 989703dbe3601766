"""The conditions of a fleet: one for each thing that it needs, and one for each of its parts.

Each is a chain of checks. A model or an index that is missing or not ready makes the fleet Reconciling,
because it may appear without an edit of the fleet. A missing secret or a model with the wrong task makes it
Stalled: a person must act.
"""

from dataclasses import dataclass

from flotilla_operator.api.agent_fleet import AgentFleetSpec, RedisMode
from flotilla_operator.controllers.agent_fleet.contexts import UNSTATED_CONTEXT_TOKENS
from flotilla_operator.controllers.agent_fleet.decide import Decision
from flotilla_operator.controllers.agent_fleet.password import PasswordReason
from flotilla_operator.controllers.agent_fleet.reasons import ConditionType, Reason
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.chains import Chain, Finding, informs, right
from flotilla_operator.controllers.conditions import SPEC_VALID, Condition, MendedBy, Truth, with_summary
from flotilla_operator.controllers.ignored_fields import ignored_fields, told_of
from flotilla_operator.controllers.missing import finding_of
from flotilla_operator.objects.resources import DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS
from flotilla_operator.workloads import agent_fleet as workloads


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The input of the conditions: what was observed, and what was decided."""

    observed: Observed
    decision: Decision

    @property
    def managed(self) -> bool:
        return self.observed.spec.queue.redis.mode is RedisMode.MANAGED

    @property
    def ready_gateways(self) -> int:
        name = workloads.gateway(self.observed.owner).name
        return self.observed.ready_replicas(DEPLOYMENTS.kind, name)

    @property
    def ready_workers(self) -> int:
        name = workloads.workers(self.observed.owner).name
        return self.observed.ready_replicas(DEPLOYMENTS.kind, name)


def has_unknown_fields(facts: Facts) -> Finding | None:
    """Fields that only a newer release knows are ignored; the spec is valid all the same."""
    ignored = ignored_fields(AgentFleetSpec, facts.observed.manifest["spec"], "spec")
    return right(Reason.FIELDS_IGNORED, told_of(ignored)) if ignored else None


def is_valid(facts: Facts) -> Finding:
    """The operator can act on the spec."""
    return right(Reason.VALID)


def a_model_cannot_be_called(facts: Facts) -> Finding | None:
    """A model is missing, is not ready or has another task."""
    return finding_of(facts.observed.missing.models)


def models_can_be_called(facts: Facts) -> Finding:
    """The agents can call every model of the spec."""
    wiring = facts.observed.wiring
    names = ", ".join(model.name for model in wiring.models)
    assumed = ", ".join(f"spec.models[{role}].contextTokens" for role in wiring.assumed_contexts)
    if not assumed:
        return right(Reason.MODELS_AVAILABLE, f"the agents can call {names}")
    message = (
        f"the agents can call {names}; nothing says how many tokens a prompt and its answer may have, so it "
        f"is {UNSTATED_CONTEXT_TOKENS} unless the endpoint's list of models says more; set {assumed}"
    )
    return right(Reason.MODELS_AVAILABLE, message)


def an_index_cannot_be_searched(facts: Facts) -> Finding | None:
    """An index is missing, is still built, or has no retriever that is ready."""
    return finding_of(facts.observed.missing.indexes)


def names_no_index(facts: Facts) -> Finding | None:
    """A fleet needs no index."""
    return None if facts.observed.spec.indexes else right(Reason.NO_INDEXES, "spec.indexes names no index")


def indexes_can_be_searched(facts: Facts) -> Finding:
    """The agents can search every index of the spec."""
    names = ", ".join(index.name for index in facts.observed.wiring.indexes)
    return right(Reason.INDEXES_SERVED, f"the agents can search {names}")


def the_queue_lacks_what_it_names(facts: Facts) -> Finding | None:
    """The secret with the URL of the user's Redis is missing, or a class of the managed one's pod."""
    return finding_of(facts.observed.missing.queue)


def the_password_was_lost(facts: Facts) -> Finding | None:
    """Nobody can read the password of the running Redis any more."""
    if facts.decision.password.reason is not PasswordReason.LOST:
        return None
    message = (
        f"the Secret {workloads.redis(facts.observed.owner).name}, which holds the password of Redis, was "
        "lost; the operator makes a new password and restarts Redis, the gateways and the workers with it"
    )
    return Finding(reason=Reason.PASSWORD_LOST, message=message)


def our_redis_is_not_ready(facts: Facts) -> Finding | None:
    """The pod of the managed Redis has not started, often because its claim waits."""
    observed, name = facts.observed, workloads.redis(facts.observed.owner).name
    if not facts.managed or observed.ready_replicas(STATEFUL_SETS.kind, name):
        return None
    claim = observed.part(PERSISTENT_VOLUME_CLAIMS.kind, name)
    phase = (claim.phase if claim is not None else None) or "Pending"
    message = f"the pod of StatefulSet {name} is not ready; its PersistentVolumeClaim {name} is {phase}"
    return Finding(reason=Reason.REDIS_STARTING, message=message)


def no_gateway_can_say(facts: Facts) -> Finding | None:
    """Only a gateway knows whether the user's Redis answers."""
    if facts.managed or facts.observed.figures is not None or facts.ready_gateways:
        return None
    message = "no gateway pod is ready yet; a ready gateway reports whether Redis answers"
    return Finding(reason=Reason.REDIS_STARTING, message=message)


def their_redis_does_not_answer(facts: Facts) -> Finding | None:
    """Gateways run, and none reports the figures that it reads from the user's Redis."""
    if facts.managed or facts.observed.figures is not None:
        return None
    message = (
        "no gateway reports that Redis answers; check the URL in the Secret of "
        "spec.queue.redis.urlSecretRef, and see the logs of the gateway pods"
    )
    return Finding(reason=Reason.REDIS_UNREACHABLE, message=message)


def redis_takes_tasks(facts: Facts) -> Finding:
    """Redis can hold the fleet's tasks."""
    return right(Reason.REDIS_AVAILABLE)


def the_gateway_lacks_what_it_names(facts: Facts) -> Finding | None:
    """A secret with the callers' keys or the certificate is missing or empty, or a class of the pods is."""
    missing = facts.observed.missing
    return finding_of((*missing.gateway, *missing.certificate))


def the_certificate_cannot_be_used(facts: Facts) -> Finding | None:
    """A gateway could not load its certificate; one that has loaded another before still serves that."""
    problem = facts.observed.certificate_problem
    if problem is None:
        return None
    return Finding(
        reason=Reason.CERTIFICATE_UNUSABLE,
        message=f"{problem}; {_gateways(facts)}",
        mended_by=MendedBy.PERSON,
    )


def no_gateway_is_ready(facts: Facts) -> Finding | None:
    """No gateway pod accepts tasks."""
    if facts.ready_gateways:
        return None
    return Finding(reason=Reason.GATEWAY_STARTING, message=_gateways(facts))


def a_gateway_is_ready(facts: Facts) -> Finding:
    """At least one gateway pod accepts tasks."""
    return right(Reason.GATEWAY_AVAILABLE, _gateways(facts))


def the_workers_lack_a_class(facts: Facts) -> Finding | None:
    """A class of the workers' pods is missing."""
    return finding_of(facts.observed.missing.workers)


def workers_lack_an_address(facts: Facts) -> Finding | None:
    """Workers were never made, because they would not know what to call."""
    observed = facts.observed
    made = observed.part(DEPLOYMENTS.kind, workloads.workers(observed.owner).name) is not None
    if observed.wiring.complete or made:
        return None
    message = (
        "the workers start once every model and every index has an address and the queue can be used; "
        "see ModelsReady, IndexesReady and QueueReady"
    )
    return Finding(reason=Reason.WAITS_FOR_MODELS_AND_INDEXES, message=message)


def no_worker_is_needed(facts: Facts) -> Finding | None:
    """There is no task."""
    needed = facts.decision.worker_pods.wanted
    return None if needed else right(Reason.NO_TASKS, "no worker is needed now")


def no_worker_is_ready(facts: Facts) -> Finding | None:
    """Workers are needed and none runs."""
    if facts.ready_workers:
        return None
    return Finding(reason=Reason.WORKERS_STARTING, message=_workers(facts))


def a_worker_is_ready(facts: Facts) -> Finding:
    """At least one worker runs tasks."""
    return right(Reason.WORKERS_AVAILABLE, _workers(facts))


def is_paused(facts: Facts) -> Finding:
    """The user has paused the fleet."""
    message = "spec.paused is true: the operator changes no object of this fleet; set it to false to continue"
    return informs(Truth.TRUE, Reason.SPEC_PAUSED, message)


CONDITIONS: tuple[Chain[Facts], ...] = (
    Chain(type=SPEC_VALID, checks=(has_unknown_fields,), otherwise=is_valid),
    Chain(
        type=ConditionType.MODELS_READY, checks=(a_model_cannot_be_called,), otherwise=models_can_be_called
    ),
    Chain(
        type=ConditionType.INDEXES_READY,
        checks=(an_index_cannot_be_searched, names_no_index),
        otherwise=indexes_can_be_searched,
    ),
    Chain(
        type=ConditionType.QUEUE_READY,
        checks=(
            the_queue_lacks_what_it_names,
            the_password_was_lost,
            our_redis_is_not_ready,
            no_gateway_can_say,
            their_redis_does_not_answer,
        ),
        otherwise=redis_takes_tasks,
    ),
    Chain(
        type=ConditionType.GATEWAY_READY,
        checks=(
            the_gateway_lacks_what_it_names,
            the_certificate_cannot_be_used,
            no_gateway_is_ready,
        ),
        otherwise=a_gateway_is_ready,
    ),
    Chain(
        type=ConditionType.WORKERS_READY,
        checks=(
            the_workers_lack_a_class,
            workers_lack_an_address,
            no_worker_is_needed,
            no_worker_is_ready,
        ),
        otherwise=a_worker_is_ready,
    ),
)
# Shown only while it is true.
PAUSED: Chain[Facts] = Chain(type=ConditionType.PAUSED, checks=(), otherwise=is_paused)


def conditions(facts: Facts) -> list[Condition]:
    """All conditions, followed by Ready, Reconciling and Stalled."""
    shown = [chain.condition(facts) for chain in CONDITIONS]
    if facts.decision.paused:
        shown.append(PAUSED.condition(facts))
    return with_summary(shown)


def _gateways(facts: Facts) -> str:
    return f"{facts.ready_gateways} of {facts.observed.spec.gateway.replicas} gateway pods are ready"


def _workers(facts: Facts) -> str:
    return f"{facts.ready_workers} of {facts.decision.worker_pods.wanted} workers are ready"
