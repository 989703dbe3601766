"""How many tool executors each revision of a fleet has, and which go. Pure.

They are scaled like workers, on the calls that wait for them and that they run. The executors of a revision
live while its workers do: those of an older one keep a pod that has started until its tasks are done. They
go when they are not needed any more and no call is left for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flotilla_operator.api.agent_fleet import AgentFleetSpec, ToolExecutors
from flotilla_operator.autoscaling.revisions import Older, RevisionsDecision, decide_revisions
from flotilla_operator.autoscaling.workers import WorkerMemory, WorkerPolicy, WorkerSignals
from flotilla_operator.controllers.agent_fleet.rollout import RevisionWorkers, Rollout
from flotilla_operator.workloads.agent_fleet import has_executors
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorFacts:
    """Input of the number of executors; `replicas` are the numbers wanted so far, by revision."""

    spec: AgentFleetSpec
    figures: contract.FleetStatus | None
    rollout: Rollout
    replicas: Mapping[str, int]


def executor_facts(
    spec: AgentFleetSpec,
    figures: contract.FleetStatus | None,
    rollout: Rollout,
    executors: Mapping[str, RevisionWorkers],
) -> ExecutorFacts:
    """The same, from the Deployments of the executors."""
    replicas = {revision: one.deployment.replicas for revision, one in executors.items()}
    return ExecutorFacts(spec=spec, figures=figures, rollout=rollout, replicas=replicas)


def executor_policy(spec: AgentFleetSpec) -> WorkerPolicy:
    """The fleet's `toolExecutors`; without, what older revisions still get."""
    wanted = spec.tool_executors or ToolExecutors()
    is_used = has_executors(spec)
    return WorkerPolicy(
        min_replicas=wanted.min_replicas if is_used else 0,
        max_replicas=wanted.max_replicas,
        concurrency=wanted.concurrency,
    )


def decide_executors(
    facts: ExecutorFacts, memory: WorkerMemory, now: datetime
) -> tuple[RevisionsDecision | None, WorkerMemory]:
    """The numbers, and what to remember; None for a fleet whose workers run its tools."""
    if not has_executors(facts.spec) and not facts.replicas:
        return None, WorkerMemory()
    revision = facts.rollout.revision
    return decide_revisions(
        _signals(facts, revision),
        executor_policy(facts.spec),
        memory,
        revision=revision,
        current=facts.replicas.get(revision, 0),
        older=_older(facts),
        now=now,
    )


def is_current(decision: RevisionsDecision | None, facts: ExecutorFacts) -> bool:
    """Whether a decision was made for this spec and these revisions."""
    if decision is None:
        return not has_executors(facts.spec) and not facts.replicas
    older = {one.revision for one in _older(facts)}
    return (decision.policy, decision.revision) == (executor_policy(facts.spec), facts.rollout.revision) and (
        set(decision.older) == older
    )


def requests_of(figures: contract.FleetStatus | None, revision: str) -> int | None:
    """The calls of a revision that wait for an executor or that one runs; None while nobody says."""
    if figures is None:
        return None
    found = figures.tool_requests.revisions.get(revision)
    return 0 if found is None else found.waiting + found.running


def executors_to_delete(
    spec: AgentFleetSpec,
    figures: contract.FleetStatus | None,
    rollout: Rollout,
    executors: Mapping[str, RevisionWorkers],
) -> list[RevisionWorkers]:
    """The executors that no workers need any more, and for which no call is left."""
    needed = {one.revision for one in rollout.kept}
    if has_executors(spec):
        needed.add(rollout.revision)
    return [
        one
        for revision, one in sorted(executors.items())
        if revision not in needed and requests_of(figures, revision) == 0
    ]


def _signals(facts: ExecutorFacts, revision: str) -> WorkerSignals | None:
    if facts.figures is None:
        return None
    found = facts.figures.tool_requests.revisions.get(revision, contract.ToolRequestsOfRevision())
    return WorkerSignals(waiting=found.waiting, in_flight=found.running)


def _older(facts: ExecutorFacts) -> Sequence[Older]:
    """The executors of revisions with own workers, the oldest first. One that has started stays."""
    older = []
    for one in reversed(facts.rollout.kept):
        if (current := facts.replicas.get(one.revision)) is not None:
            requests = requests_of(facts.figures, one.revision)
            kept = None if requests is None else max(requests, min(1, current))
            older.append(Older(revision=one.revision, current=current, tasks=kept))
    return older
