"""How a fleet follows what its gateways report between two reconciles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.autoscaling.revisions import RevisionsDecision, decide_revisions
from flotilla_operator.autoscaling.workers import WorkerMemory
from flotilla_operator.controllers.agent_fleet.decide import (
    Decision,
    current_workers,
    older_of,
    policy_of,
    signals_of,
)
from flotilla_operator.controllers.agent_fleet.executors import decide_executors, executor_facts
from flotilla_operator.controllers.agent_fleet.figures import figures_status
from flotilla_operator.controllers.agent_fleet.observe import certificate_problem_of, figures_of
from flotilla_operator.controllers.agent_fleet.rollout import RevisionWorkers, Rollout, tasks_left
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.steering import FiguresOnly, Steered, Steering
from flotilla_operator.telemetry.measurements import Answered, Target
from flotilla_runtime.contract import FleetStatus

NONE_KNOWN: Final = WorkerMemory()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetNeeds:
    """Numbers of workers and of tool executors that were needed lately."""

    workers: WorkerMemory = NONE_KNOWN
    executors: WorkerMemory = NONE_KNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSteering:
    """Input of the steering loop for one fleet.

    `current` is the number of workers of the revision in force, as its Deployment was told; those of older
    ones are in the rollout.
    """

    uid: str
    targets: Sequence[Target]
    spec: AgentFleetSpec
    rollout: Rollout
    current: int
    taken: RevisionsDecision
    executors: Mapping[str, RevisionWorkers] = field(default_factory=dict)

    @property
    def report(self) -> type[FleetStatus]:
        return FleetStatus

    def step(
        self, answers: Sequence[Answered[FleetStatus] | None], memory: FleetNeeds | None, now: datetime
    ) -> Steered:
        """The number of workers of each revision, and what the status would show of the answers."""
        figures, before = figures_of(answers), memory or FleetNeeds()
        facts = executor_facts(self.spec, figures, self.rollout, self.executors)
        executors, executor_needs = decide_executors(facts, before.executors, now)
        decision, needs = decide_revisions(
            signals_of(figures, self.rollout),
            policy_of(self.spec),
            before.workers,
            revision=self.rollout.revision,
            current=self.current,
            older=older_of(figures, self.rollout),
            now=now,
        )
        shown = None
        if figures is not None:
            problem = certificate_problem_of(answers, self.spec)
            shown = (figures_status(figures, self.spec), tasks_left(figures, self.rollout), problem)
        return Steered(
            decision=replace(decision, executors=executors),
            memory=FleetNeeds(workers=needs, executors=executor_needs),
            figures=shown,
        )


def steering_of(observed: Observed, decision: Decision | None) -> Steering:
    """A fleet that is being deleted is not scaled."""
    if decision is None:
        return FiguresOnly(uid=observed.owner.uid, targets=observed.targets, report=FleetStatus)
    return FleetSteering(
        uid=observed.owner.uid,
        targets=observed.targets,
        spec=observed.spec,
        rollout=decision.rollout,
        current=current_workers(observed),
        taken=decision.worker_pods,
        executors=observed.executors,
    )
