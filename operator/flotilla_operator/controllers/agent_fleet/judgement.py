"""The conditions of a fleet: one for each thing that it needs, and one for each of its parts.

Each is a chain of checks. A model or an index that is missing or not ready makes the fleet Reconciling,
because it may appear without an edit of the fleet. A missing secret or a model with the wrong task makes it
Stalled: a person must act.
"""

from flotilla_operator.api.agent_fleet import AgentFleetSpec, AuthMode
from flotilla_operator.controllers.agent_fleet.contexts import UNSTATED_CONTEXT_TOKENS
from flotilla_operator.controllers.agent_fleet.facts import Facts
from flotilla_operator.controllers.agent_fleet.figures import bottleneck, completed_tasks, judged_tasks
from flotilla_operator.controllers.agent_fleet.judge_queue import (
    a_failover_may_repeat_effects,
    no_gateway_can_say,
    nothing_limits_submissions,
    our_redis_is_not_ready,
    redis_takes_tasks,
    the_password_was_lost,
    the_queue_lacks_what_it_names,
    their_redis_does_not_answer,
    their_redis_is_unfit,
)
from flotilla_operator.controllers.agent_fleet.judge_tools import (
    a_tool_cannot_be_called,
    names_no_tool,
    no_executor_is_ready,
    the_executors_lack_a_class,
    the_image_lacks_a_function,
    tools_can_be_called,
    workers_cannot_use_a_tool,
)
from flotilla_operator.controllers.agent_fleet.judge_workers import (
    a_worker_is_ready,
    gateways_give_an_older_revision,
    no_revision_is_exchanged,
    no_worker_is_needed,
    no_worker_is_ready,
    older_workers_leave,
    tasks_of_older_revisions_are_left,
    the_workers_lack_a_class_or_headers,
    workers_fail,
    workers_lack_an_address,
)
from flotilla_operator.controllers.agent_fleet.reasons import ConditionType, Reason
from flotilla_operator.controllers.chains import Chain, Finding, informs, right
from flotilla_operator.controllers.conditions import SPEC_VALID, Condition, MendedBy, Truth, with_summary
from flotilla_operator.controllers.ignored_fields import ignored_fields, told_of
from flotilla_operator.controllers.missing import finding_of
from flotilla_runtime import contract


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


def tokens_are_sent_in_clear(facts: Facts) -> Finding | None:
    """The gateway takes tokens or keys over plain HTTP; what is between it and its callers can read them."""
    gateway = facts.observed.spec.gateway
    if gateway.tls is not None or gateway.auth.mode is AuthMode.NONE:
        return None
    message = (
        f"{_gateways(facts)}; callers send their tokens over plain HTTP, where others may read them; set "
        "spec.gateway.tls, unless your network encrypts"
    )
    return right(Reason.TOKENS_IN_CLEAR, message)


def a_gateway_is_ready(facts: Facts) -> Finding:
    """At least one gateway pod accepts tasks."""
    return right(Reason.GATEWAY_AVAILABLE, _gateways(facts))


def nobody_says_how_long_tasks_take(facts: Facts) -> Finding | None:
    """No gateway reports figures."""
    if facts.observed.figures is not None:
        return None
    return informs(Truth.UNKNOWN, Reason.NO_FIGURES, f"no gateway reports whether {_promise(facts)}")


def no_task_has_ended(facts: Facts) -> Finding | None:
    """There is nothing to judge."""
    figures = facts.observed.figures
    assert figures is not None
    if judged_tasks(figures):
        return None
    return informs(Truth.UNKNOWN, Reason.NO_TASKS, "no task has ended in the last hour")


def _promise(facts: Facts) -> str:
    slo = facts.observed.spec.slo
    assert slo is not None
    return (
        f"{slo.percentile:g} % of the tasks take at most {slo.task_seconds:g} s, and "
        f"{100 * slo.success_rate:g} % succeed"
    )


def tasks_miss_the_slo(facts: Facts) -> Finding | None:
    """Tasks of the last hour took too long, or too many of them failed."""
    figures, slo = facts.observed.figures, facts.observed.spec.slo
    assert figures is not None
    assert slo is not None
    missed = []
    took = contract.percentile(figures.took_ticks, slo.percentile / 100)
    if took is not None and took > slo.task_seconds:
        missed.append(
            f"{slo.percentile:g} % of the tasks of the last hour took up to {took:.3g} s, and "
            f"spec.slo.taskSeconds is {slo.task_seconds:g}"
        )
    rate = completed_tasks(figures) / judged_tasks(figures)
    if rate < slo.success_rate:
        missed.append(
            f"{100 * rate:.3g} % of them succeeded, and spec.slo.successRate is {slo.success_rate:g}"
        )
    if not missed:
        return None
    where = bottleneck(figures, facts.observed.spec)
    return informs(Truth.FALSE, Reason.SLO_MISSED, f"{'; '.join(missed)}; status.bottleneck is {where}")


def tasks_keep_the_slo(facts: Facts) -> Finding:
    """Tasks of the last hour were fast enough, and enough of them succeeded."""
    return informs(Truth.TRUE, Reason.SLO_KEPT, f"{_promise(facts)}, over the last hour")


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
        type=ConditionType.TOOLS_READY,
        checks=(
            a_tool_cannot_be_called,
            the_image_lacks_a_function,
            the_executors_lack_a_class,
            no_executor_is_ready,
            workers_cannot_use_a_tool,
            names_no_tool,
        ),
        otherwise=tools_can_be_called,
    ),
    Chain(
        type=ConditionType.QUEUE_READY,
        checks=(
            the_queue_lacks_what_it_names,
            the_password_was_lost,
            our_redis_is_not_ready,
            no_gateway_can_say,
            their_redis_does_not_answer,
            their_redis_is_unfit,
            a_failover_may_repeat_effects,
            nothing_limits_submissions,
        ),
        otherwise=redis_takes_tasks,
    ),
    Chain(
        type=ConditionType.GATEWAY_READY,
        checks=(
            the_gateway_lacks_what_it_names,
            the_certificate_cannot_be_used,
            no_gateway_is_ready,
            tokens_are_sent_in_clear,
        ),
        otherwise=a_gateway_is_ready,
    ),
    Chain(
        type=ConditionType.WORKERS_READY,
        checks=(
            the_workers_lack_a_class_or_headers,
            workers_lack_an_address,
            no_worker_is_needed,
            workers_fail,
            no_worker_is_ready,
        ),
        otherwise=a_worker_is_ready,
    ),
    Chain(
        type=ConditionType.PROGRESSING,
        checks=(gateways_give_an_older_revision, tasks_of_older_revisions_are_left, older_workers_leave),
        otherwise=no_revision_is_exchanged,
    ),
)
# Shown only with an SLO.
MEETING_SLO: Chain[Facts] = Chain(
    type=ConditionType.MEETING_SLO,
    checks=(nobody_says_how_long_tasks_take, no_task_has_ended, tasks_miss_the_slo),
    otherwise=tasks_keep_the_slo,
)
# Shown only while it is true.
PAUSED: Chain[Facts] = Chain(type=ConditionType.PAUSED, checks=(), otherwise=is_paused)


def conditions(facts: Facts) -> list[Condition]:
    """All conditions, followed by Ready, Reconciling and Stalled."""
    shown = [chain.condition(facts) for chain in CONDITIONS]
    if facts.observed.spec.slo is not None:
        shown.append(MEETING_SLO.condition(facts))
    if facts.decision.paused:
        shown.append(PAUSED.condition(facts))
    return with_summary(shown)


def _gateways(facts: Facts) -> str:
    return f"{facts.ready_gateways} of {facts.observed.spec.gateway.replicas} gateway pods are ready"
