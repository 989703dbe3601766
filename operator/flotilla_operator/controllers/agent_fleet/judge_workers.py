"""The conditions of a fleet's workers: whether those of each revision run, and what is exchanged."""

from flotilla_operator.controllers.agent_fleet.facts import Facts
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.agent_fleet.rollout import OlderReason, RevisionWorkers
from flotilla_operator.controllers.chains import Finding, informs, right
from flotilla_operator.controllers.conditions import MendedBy, Truth
from flotilla_operator.controllers.missing import finding_of
from flotilla_operator.objects.times import timestamp

WHY_THEY_LEAVE = {
    OlderReason.NONE_LEFT: "none of its tasks is left",
    OlderReason.DEADLINE_PASSED: "spec.update.deadlineSeconds has passed",
    OlderReason.NEVER_READY: "no worker of it becomes ready",
    OlderReason.TOO_MANY: "newer ones have workers of their own",
    OlderReason.BEFORE_REVISIONS: "they are of a release that knew no revisions",
}


def the_workers_lack_a_class_or_headers(facts: Facts) -> Finding | None:
    """A class of the workers' pods is missing, or the secret with the headers of their traces."""
    return finding_of(facts.observed.missing.workers)


def workers_lack_an_address(facts: Facts) -> Finding | None:
    """Workers were never made, because they would not know what to call."""
    observed = facts.observed
    if observed.wiring.complete or facts.decision.rollout.revision in observed.workers:
        return None
    message = (
        "the workers start once every model, index and tool can be called and the queue can be used; "
        "see ModelsReady, IndexesReady, ToolsReady and QueueReady"
    )
    return Finding(reason=Reason.WAITS_FOR_MODELS_AND_INDEXES, message=message)


def no_worker_is_needed(facts: Facts) -> Finding | None:
    """There is no task."""
    needed = facts.decision.worker_pods.wanted
    return None if needed else right(Reason.NO_TASKS, "no worker is needed now")


def workers_fail(facts: Facts) -> Finding | None:
    """Workers are needed, none of the revision in force runs, and time alone does not mend that."""
    newest = facts.decision.worker_pods.newest
    workers = facts.observed.workers.get(facts.decision.rollout.revision)
    if not newest.wanted or workers is None or workers.has_ready:
        return None
    troubles = [pod.trouble for pod in workers.pods if pod.hopeless]
    if not troubles:
        return None
    message = f"{_workers(facts)}; {troubles[0]}"
    return Finding(reason=Reason.WORKERS_FAIL, message=message, mended_by=MendedBy.PERSON)


def no_worker_is_ready(facts: Facts) -> Finding | None:
    """Workers of a revision are needed and none of it runs."""
    for revision, wanted in facts.decision.worker_pods.by_revision:
        workers = facts.observed.workers.get(revision)
        if wanted and not _ready(workers):
            pods = () if workers is None else workers.pods
            trouble = next((f"; {pod.trouble}" for pod in pods if pod.trouble), "")
            return Finding(reason=Reason.WORKERS_STARTING, message=f"{_workers(facts)}{trouble}")
    return None


def a_worker_is_ready(facts: Facts) -> Finding:
    """At least one worker of each revision runs its tasks."""
    return right(Reason.WORKERS_AVAILABLE, _workers(facts))


def gateways_give_an_older_revision(facts: Facts) -> Finding | None:
    """Gateways of the old configuration are left, so new tasks may still get the revision before."""
    if not facts.decision.rollout.older or facts.observed.gateways_are_new:
        return None
    revision = facts.decision.rollout.revision
    message = f"gateways are replaced, so that they give new tasks the revision {revision}"
    return informs(Truth.TRUE, Reason.UPDATING, message)


def tasks_of_older_revisions_are_left(facts: Facts) -> Finding | None:
    """Tasks go on with the revision of their submission."""
    kept = facts.decision.rollout.kept
    if not kept:
        return None
    told = "; ".join(
        f"{_tasks(one.tasks)} of revision {one.revision} until {timestamp(one.until)}" for one in kept
    )
    message = f"workers of older revisions run their tasks: {told}"
    return informs(Truth.TRUE, Reason.UPDATING, message)


def older_workers_leave(facts: Facts) -> Finding | None:
    """The tasks of older revisions go over to the workers of the revision in force."""
    older = facts.decision.rollout.older
    if not older:
        return None
    told = "; ".join(
        f"{one.shown_as}: {WHY_THEY_LEAVE[one.reason]}{f' ({one.message})' if one.message else ''}"
        for one in older
        if not one.is_kept
    )
    return informs(Truth.TRUE, Reason.HANDING_OVER, f"the workers of older revisions leave: {told}")


def no_revision_is_exchanged(facts: Facts) -> Finding:
    """All workers are of the revision in force."""
    return informs(Truth.TRUE, Reason.SETTLED)


def _ready(workers: RevisionWorkers | None) -> int:
    return 0 if workers is None else workers.deployment.ready_replicas


def _tasks(count: int | None) -> str:
    return "an unknown number of tasks" if count is None else f"{count} task{'' if count == 1 else 's'}"


def _workers(facts: Facts) -> str:
    (revision, wanted), *older = facts.decision.worker_pods.by_revision
    workers = facts.observed.workers
    told = [f"{_ready(workers.get(revision))} of {wanted} workers are ready"]
    told += [f"of revision {one} {_ready(workers.get(one))} of {number}" for one, number in older if number]
    return "; ".join(told)
