"""The progress of the wanted build, computed from its Jobs alone.

Every attempt starts from the beginning with its own run id, because files that an earlier attempt left in the
workspace cannot be trusted. A run id can return: the spec goes back to an earlier state after the Jobs that
counted the attempts are gone. The plan step then clears the old files. Starting again is cheap, because
unchanged documents that are already in the index are not embedded again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from flotilla_operator.controllers.vector_index.jobs import JobState, StepJob
from flotilla_operator.workloads.vector_index.steps import WantedBuild
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport

RETRY_BASE = timedelta(seconds=15)
RETRY_LIMIT = timedelta(minutes=10)
# Another attempt would fail as well: only other documents or another limit in the spec can help.
NOT_REPEATED = frozenset({BuildReason.TOO_MANY_DEAD_LETTERS})


class Stage(StrEnum):
    """The state of the build's current step."""

    START = "Start"  # the step's Job does not exist yet
    RUN = "Run"  # the step's Job is running
    FAILED = "Failed"
    DONE = "Done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The current step of the wanted build and its state; `build` carries the attempt."""

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
        """Whether the operator tries a failed build again by itself."""
        return self.report is None or self.report.reason not in NOT_REPEATED

    def retry_at(self, now: datetime) -> datetime | None:
        """When a failed build is tried again; None when it is not."""
        if self.stage is not Stage.FAILED or not self.repeats:
            return None
        wait = min(RETRY_LIMIT, RETRY_BASE * int(2 ** min(self.build.attempt, 10)))
        return self.failed_at + wait if self.failed_at is not None else now

    @property
    def next_attempt(self) -> "Progress":
        """The start of the next attempt."""
        build = replace(self.build, attempt=self.build.attempt + 1)
        return Progress(build=build, stage=Stage.START, step=BuildStep.PLAN)


def progress_of(wanted: WantedBuild, jobs: Sequence[StepJob]) -> Progress:
    """The progress of a build, from all Jobs of the index."""
    attempts = [job.runs.attempt for job in jobs if job.runs.build == wanted.id]
    build = replace(wanted, attempt=max(attempts, default=0))
    by_run = {job.runs: job for job in jobs}
    plan, shards, promote = (by_run.get(build.step_run(step)) for step in BuildStep)
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
