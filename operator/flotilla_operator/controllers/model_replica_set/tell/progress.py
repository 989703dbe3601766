"""Checks of what is in progress: an update, a move, a change of the number of replicas.

All but the last three are of the condition Progressing, which informs and does not affect Ready.
"""

from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.controllers.chains import Finding, informs, right
from flotilla_operator.controllers.conditions import MendedBy, Truth
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.tell.facts import Facts, ready_of_wanted, replicas
from flotilla_operator.replicas.revisions.rollout import Fault, Rollout

REASON_OF = {
    Fault.NOT_READY: Reason.PROGRESS_DEADLINE_EXCEEDED,
    Fault.MISSES_SLO: Reason.MISSES_SLO,
    Fault.FAILED_ANSWERS: Reason.FAILED_ANSWERS,
}
PAUSED = "spec.paused is true: the operator creates and updates nothing"


def is_paused_in_an_update(facts: Facts) -> Finding | None:
    """The user has paused the set while replicas of the old revision are left."""
    if not facts.spec.paused or not facts.turnover.outdated:
        return None
    return informs(Truth.FALSE, Reason.UPDATE_PAUSED, f"{PAUSED}; {_updated(facts)}")


def is_paused(facts: Facts) -> Finding | None:
    """The user has paused the set."""
    return informs(Truth.FALSE, Reason.PAUSED, PAUSED) if facts.spec.paused else None


def the_revision_has_failed(facts: Facts) -> Finding | None:
    """The newest revision is not good; without a rollback it stays in force."""
    if not facts.rollout.message:
        return None
    return informs(Truth.FALSE, *_failed(facts.rollout), mended_by=MendedBy.PERSON)


def a_replica_moves(facts: Facts) -> Finding | None:
    """A rebalancing moves a replica to other nodes."""
    if (move := facts.move) is None:
        return None
    way = f"from {', '.join(move.from_nodes)} to {', '.join(move.to_nodes)}"
    return informs(Truth.TRUE, Reason.REBALANCING, f"{move.group} moves {way}")


def the_update_waits_for_room(facts: Facts) -> Finding | None:
    """A replacement must come first, and there is no room for one more replica."""
    turnover, refusal = facts.turnover, facts.refusal
    if not turnover.surge or refusal is None:
        return None
    what = "update" if turnover.outdated else "move away from cordoned or tainted nodes"
    message = (
        f"the {what} waits, because one more replica does not fit beside the existing {len(facts.live)}: "
        f"{refusal.message}; free or add accelerators, or set spec.update.maxUnavailable to 1"
    )
    return informs(Truth.FALSE, Reason.UPDATE_WAITS_FOR_ROOM, message)


def an_update_runs(facts: Facts) -> Finding | None:
    """Replicas of an old revision are being replaced."""
    if not (outdated := facts.turnover.outdated):
        return None
    return informs(Truth.TRUE, Reason.UPDATING, f"{_updated(facts)}; still to replace: {outdated}")


def nodes_are_emptied(facts: Facts) -> Finding | None:
    """Replicas leave nodes that a person has cordoned or tainted."""
    if not (moving := facts.turnover.moving):
        return None
    message = f"{replicas(moving)} must leave nodes that are cordoned or tainted"
    return informs(Truth.TRUE, Reason.EMPTYING_NODES, message)


def the_number_changes(facts: Facts) -> Finding | None:
    """Replicas are on their way, or on their way out."""
    if facts.ready == facts.wanted == len(facts.live):
        return None
    return informs(Truth.TRUE, Reason.SCALING, ready_of_wanted(facts))


def the_revision_is_on_trial(facts: Facts) -> Finding | None:
    """All replicas are new, and their answers may still roll the update back."""
    if (until := facts.rollout.trial_until(facts.spec.update)) is None:
        return None
    return informs(Truth.TRUE, Reason.ON_TRIAL, facts.rollout.trial_message(until))


def old_pods_terminate(facts: Facts) -> Finding | None:
    """Every wanted replica serves, and pods of the old revision are not gone yet."""
    if not (outdated := facts.rollout.outdated):
        return None
    message = f"{_updated(facts)}; older replicas whose pods are still terminating: {outdated}"
    return informs(Truth.TRUE, Reason.UPDATING, message)


def nothing_is_left_to_do(facts: Facts) -> Finding:
    """The set is as the spec wants it."""
    return informs(Truth.FALSE, Reason.SETTLED)


def runs_another_revision(facts: Facts) -> Finding | None:
    """The newest revision has failed, and the set runs the last good one."""
    if not facts.rollout.failed:
        return None
    reason, message = _failed(facts.rollout)
    return Finding(reason=reason, message=message, mended_by=MendedBy.PERSON)


def all_serve_the_newest_revision(facts: Facts) -> Finding | None:
    """Every wanted replica serves what the spec says."""
    done = facts.ready >= facts.wanted and not facts.turnover.outdated
    return right(Reason.REPLICAS_AVAILABLE) if done else None


def some_serve_an_older_revision(facts: Facts) -> Finding | None:
    """Every wanted replica serves, some of them an older revision."""
    if facts.ready < facts.wanted:
        return None
    message = f"outdated replicas still to replace: {facts.turnover.outdated}"
    return Finding(reason=Reason.UPDATING, message=message)


def _updated(facts: Facts) -> str:
    return f"{facts.turnover.updated} of {facts.wanted} replicas run the new revision"


def _failed(rollout: Rollout) -> tuple[Reason, str]:
    why = f"revision {rollout.revision} has failed: {rollout.message}"
    if not rollout.failed:
        return REASON_OF[rollout.fault or Fault.NOT_READY], f"{why}; correct the spec"
    if rollout.asks_leave:
        return _not_rolled_back(rollout, why)
    fix = "change the spec to try again, or set spec.update.rollback to false to run the failed revision"
    return Reason.ROLLED_BACK, f"{why}; the set runs revision {rollout.good} instead; {fix}"


def _not_rolled_back(rollout: Rollout, why: str) -> tuple[Reason, str]:
    if not rollout.refusal:
        waits = f"the set goes back to revision {rollout.good} once the API server has said that it may"
        return REASON_OF[rollout.fault or Fault.NOT_READY], f"{why}; {waits}"
    told = (
        f"{why}; the set does not go back to revision {rollout.good}, because the API server would refuse "
        f"its spec today: {rollout.refusal}; correct the spec, or let whoever runs the cluster allow that one"
    )
    return Reason.ROLLBACK_REFUSED, told[:MESSAGE_LIMIT]
