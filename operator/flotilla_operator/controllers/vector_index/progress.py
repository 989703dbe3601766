"""How far the wanted build is: one value out of a closed set, from its Jobs alone.

Every attempt starts over, since what an earlier one left in the workspace cannot be trusted: it has a run id
of its own, and where an id returns (the spec went back to what it was, and the Jobs that counted its attempts
are gone), the plan is another Job's and clears what is there. That is cheap, because documents that are in
the index unchanged are not embedded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from flotilla_operator.controllers.vector_index.jobs import JobState, StepJob
from flotilla_operator.workloads.vector_index.build import WantedBuild
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport

RETRY_BASE = timedelta(seconds=15)
RETRY_LIMIT = timedelta(minutes=10)
# Only other documents or another rule can help; the annotation and the spec ask for those.
NOT_REPEATED = frozenset({BuildReason.TOO_MANY_DEAD_LETTERS})


class Stage(StrEnum):
    """What is to be done next, or is being done."""

    START = "Start"  # the step's Job is to be made
    RUN = "Run"  # the step's Job runs
    FAILED = "Failed"
    DONE = "Done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the wanted build stands; `build` carries the attempt."""

    build: WantedBuild
    stage: Stage
    step: BuildStep
    shards: int = 0
    shards_done: int = 0
    planned: StepReport | None = None
    report: StepReport | None = None
    failed_at: datetime | None = None
    trouble: str | None = None

    @property
    def repeats(self) -> bool:
        """Whether the operator tries again by itself."""
        return self.report is None or self.report.reason not in NOT_REPEATED

    def retry_at(self, now: datetime) -> datetime | None:
        """When a failed build is tried again."""
        if self.stage is not Stage.FAILED or not self.repeats:
            return None
        wait = min(RETRY_LIMIT, RETRY_BASE * int(2 ** min(self.build.attempt, 10)))
        return self.failed_at + wait if self.failed_at is not None else now

    @property
    def next_attempt(self) -> "Progress":
        """The beginning of another try."""
        build = replace(self.build, attempt=self.build.attempt + 1)
        return Progress(build=build, stage=Stage.START, step=BuildStep.PLAN)


def progress_of(wanted: WantedBuild, jobs: Sequence[StepJob]) -> Progress:
    """Where the build stands."""
    mine = [job for job in jobs if job.run.rpartition("-")[0] == wanted.id]
    attempt = max((job.attempt for job in mine), default=0)
    build = replace(wanted, attempt=attempt)
    run = [job for job in mine if job.run == build.run]
    by_step = {job.step: job for job in run if job.step is not BuildStep.PROMOTE}
    promotions = [job for job in run if job.step is BuildStep.PROMOTE]
    promote = next((job for job in promotions if job.name.endswith(f"-{wanted.promotion}")), None)
    plan, shards = by_step.get(BuildStep.PLAN), by_step.get(BuildStep.SHARDS)
    if plan is None and shards is None and promote is None:
        return Progress(build=build, stage=Stage.START, step=BuildStep.PLAN)
    if plan is not None and (undone := _undone(build, plan)) is not None:
        return undone
    planned = plan.report if plan is not None else None
    count = planned.shards if planned is not None else shards.completions if shards is not None else 0
    if planned is None and shards is None and promote is None:
        ended_at = plan.ended_at if plan is not None else None
        return Progress(build=build, stage=Stage.FAILED, step=BuildStep.PLAN, failed_at=ended_at)
    whole = Progress(build=build, stage=Stage.START, step=BuildStep.SHARDS, shards=count, planned=planned)
    if count and promote is None:
        if shards is None:
            return whole
        if (undone := _undone(build, shards)) is not None:
            return replace(undone, shards=count, shards_done=shards.done, planned=planned)
    whole = replace(whole, step=BuildStep.PROMOTE, shards_done=count)
    if promote is None:
        return whole
    if (undone := _undone(build, promote)) is not None:
        return replace(undone, shards=count, shards_done=count, planned=planned)
    return replace(whole, stage=Stage.DONE, report=promote.report)


def _undone(build: WantedBuild, job: StepJob) -> Progress | None:
    """The progress at a Job that is not complete, None when it is."""
    if job.state is JobState.COMPLETE:
        return None
    stage = Stage.RUN if job.state is JobState.RUNNING else Stage.FAILED
    return Progress(
        build=build,
        stage=stage,
        step=job.step,
        report=job.report if stage is Stage.FAILED else None,
        failed_at=job.ended_at,
        trouble=job.trouble,
    )
