"""The condition of a fleet's Redis: ours as its StatefulSet is, the user's as the gateways say."""

from collections.abc import Mapping

from flotilla_operator.controllers.agent_fleet.facts import Facts
from flotilla_operator.controllers.agent_fleet.password import PasswordReason
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.chains import Finding, right
from flotilla_operator.controllers.conditions import MendedBy
from flotilla_operator.controllers.missing import finding_of
from flotilla_operator.objects.resources import PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract

UNFIT: Mapping[str, tuple[Reason, str]] = {
    contract.StoreProblem.TOO_OLD: (
        Reason.REDIS_TOO_OLD,
        "your Redis is older than 7.0; use Redis 7.0 or later, or Valkey",
    ),
    contract.StoreProblem.EVICTS: (
        Reason.REDIS_EVICTS,
        "your Redis removes keys, and tasks with them, when it is full; set its maxmemory-policy to "
        "noeviction",
    ),
    contract.StoreProblem.NO_APPEND_ONLY_FILE: (
        Reason.REDIS_KEEPS_NOTHING,
        "your Redis keeps no append-only file, so a crash of it loses tasks; set its appendonly to yes",
    ),
}


def the_queue_lacks_what_it_names(facts: Facts) -> Finding | None:
    """The secret with the URL of the user's Redis is missing, or a class of the managed one's pod."""
    return finding_of(facts.observed.missing.queue)


def the_password_was_lost(facts: Facts) -> Finding | None:
    """Nobody can read the password of the running Redis any more."""
    if facts.decision.password.reason is not PasswordReason.LOST:
        return None
    owner = facts.observed.owner
    lost = " and ".join(secret.name_of(owner) for secret in facts.decision.password.made)
    message = (
        f"the Secret {lost}, which holds a password of Redis, was lost; the operator makes a new password "
        "and restarts Redis, the gateways and the workers with it"
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


def their_redis_is_unfit(facts: Facts) -> Finding | None:
    """The user's Redis may lose tasks, or cannot run the scripts."""
    figures = facts.observed.figures
    if facts.managed or figures is None or figures.store_problem is None:
        return None
    found = UNFIT.get(figures.store_problem)
    if found is None:
        return None
    reason, message = found
    return Finding(reason=reason, message=message, mended_by=MendedBy.PERSON)


def a_failover_may_repeat_effects(facts: Facts) -> Finding | None:
    """A primary of the user's that is cut off from its replicas takes intents that a failover forgets."""
    figures = facts.observed.figures
    unguarded = contract.StoreProblem.NO_REPLICA_REQUIRED
    if facts.managed or figures is None or figures.store_problem != unguarded:
        return None
    message = (
        "a failover of your Redis may repeat Unsafe calls of tools, because a primary without replicas takes "
        "writes; set its min-replicas-to-write to 1 or more"
    )
    return right(Reason.REDIS_MAY_REPEAT_EFFECTS, message)


def nothing_limits_submissions(facts: Facts) -> Finding | None:
    """The user's Redis takes tasks until its machine is full."""
    figures = facts.observed.figures
    if facts.managed or figures is None or figures.store_problem != contract.StoreProblem.NO_LIMIT:
        return None
    message = (
        "nothing limits how much the tasks take of your Redis; set its maxmemory, or spec.queue.maxStoredMiB"
    )
    return right(Reason.REDIS_WITHOUT_LIMIT, message)


def redis_takes_tasks(facts: Facts) -> Finding:
    """Redis can hold the fleet's tasks."""
    return right(Reason.REDIS_AVAILABLE)
