"""Decides the next step of a build. Pure.

The Jobs of other builds are deleted first. Then the steps of the wanted build run one after the other. A
failed build is tried again after a pause; meanwhile the live generation stays live.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flotilla_operator.controllers.chains import first_finding
from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.controllers.secret_reader import LOOK_MISSING_SECONDS
from flotilla_operator.controllers.vector_index.jobs import StepJob
from flotilla_operator.controllers.vector_index.names import NameTaken
from flotilla_operator.controllers.vector_index.progress import Progress, Stage
from flotilla_operator.controllers.vector_index.seen import Observed
from flotilla_operator.workloads.vector_index.steps import WantedBuild
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildStep

STRAYS_LOOK_SECONDS = 5.0
SETTLED_LOOK_SECONDS = 600.0


class NextReason(StrEnum):
    """Next step of the build, or the reason why there is none."""

    PAUSED = "Paused"
    EMBEDDER_UNKNOWN = "EmbedderUnknown"
    OTHER_BUILD = "OtherBuild"  # Jobs of another build are deleted
    RUNS = "Runs"
    DONE = "Done"
    WAITS_TO_RETRY = "WaitsToRetry"
    NOT_REPEATED = "NotRepeated"
    MISSING = "Missing"
    NAME_TAKEN = "NameTaken"
    EMBEDDER_NOT_READY = "EmbedderNotReady"
    MILVUS_NOT_READY = "MilvusNotReady"
    PODS_LEFT = "PodsLeft"  # pods of another build, or of an earlier run of this plan, still run
    STARTS = "Starts"


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """Decision on a build: the step to start, what to delete, and when to look again."""

    reason: NextReason
    start: Progress | None = None
    unwanted_jobs: Sequence[StepJob] = ()
    unwanted_config_maps: Sequence[LiveObject] = ()
    look_again_seconds: float = SETTLED_LOOK_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A step that could start, and what may hold it back."""

    observed: Observed
    names_taken: tuple[NameTaken, ...]
    progress: Progress


def something_is_missing(start: Start) -> NextReason | None:
    """The spec refers to something that does not exist."""
    return NextReason.MISSING if start.observed.missing else None


def a_name_is_taken(start: Start) -> NextReason | None:
    """Another object holds one of our names, so the index could not be served."""
    return NextReason.NAME_TAKEN if start.names_taken else None


def the_embedder_is_not_ready(start: Start) -> NextReason | None:
    """Pods would wait for the model."""
    return None if start.observed.embedder_available else NextReason.EMBEDDER_NOT_READY


def milvus_is_not_ready(start: Start) -> NextReason | None:
    """Pods would wait for Milvus."""
    return None if start.observed.milvus_usable else NextReason.MILVUS_NOT_READY


def pods_of_a_build_are_left(start: Start) -> NextReason | None:
    """An earlier build can come back with its old id, so a plan waits until no build pod is left.

    The other steps wait only for the pods of other builds.
    """
    planning = start.progress.step is BuildStep.PLAN
    runs = start.observed.live_build_pods.values()
    return NextReason.PODS_LEFT if any(planning or run != start.progress.build.run for run in runs) else None


HOLDS: tuple[Callable[[Start], NextReason | None], ...] = (
    something_is_missing,
    a_name_is_taken,
    the_embedder_is_not_ready,
    milvus_is_not_ready,
    pods_of_a_build_are_left,
)


def next_step(
    observed: Observed, progress: Progress | None, names_taken: tuple[NameTaken, ...], now: datetime
) -> NextStep:
    """Return the next step of the build."""
    if observed.spec.paused:
        return NextStep(reason=NextReason.PAUSED)
    if progress is None:
        return NextStep(reason=NextReason.EMBEDDER_UNKNOWN, look_again_seconds=_held_seconds(observed))
    retry_at = progress.retry_at(now)
    if retry_at is not None and now >= retry_at:
        progress = progress.next_attempt
    others = [job for job in observed.jobs if _is_of_another_build(job, progress.build)]
    if others:
        return NextStep(
            reason=NextReason.OTHER_BUILD, unwanted_jobs=others, look_again_seconds=STRAYS_LOOK_SECONDS
        )
    if progress.stage is not Stage.START:
        return _waiting(observed, progress, retry_at, now)
    held = first_finding(HOLDS, Start(observed=observed, names_taken=names_taken, progress=progress))
    if held is not None:
        seconds = STRAYS_LOOK_SECONDS if held is NextReason.PODS_LEFT else _held_seconds(observed)
        return NextStep(reason=held, look_again_seconds=seconds)
    older = _older_jobs(observed, progress.build)
    return NextStep(reason=NextReason.STARTS, start=progress, unwanted_jobs=older)


def _held_seconds(observed: Observed) -> float:
    """A build that is held waits for an event, unless it waits for a secret: secrets are not watched."""
    return LOOK_MISSING_SECONDS if observed.lacks_a_secret else SETTLED_LOOK_SECONDS


def _waiting(observed: Observed, progress: Progress, retry_at: datetime | None, now: datetime) -> NextStep:
    """The current step runs, is done or has failed: only what is left of older attempts is deleted."""
    wait = (retry_at - now).total_seconds() if retry_at is not None else SETTLED_LOOK_SECONDS
    failed = NextReason.WAITS_TO_RETRY if retry_at is not None else NextReason.NOT_REPEATED
    done_or_running = {Stage.RUN: NextReason.RUNS, Stage.DONE: NextReason.DONE}
    return NextStep(
        reason=done_or_running.get(progress.stage, failed),
        unwanted_jobs=_older_jobs(observed, progress.build),
        unwanted_config_maps=[
            config_map
            for config_map in observed.build_config_maps
            if config_map.labels[contract.LABEL_BUILD] != progress.build.run
        ],
        look_again_seconds=max(wait, 1.0),
    )


def _older_jobs(observed: Observed, build: WantedBuild) -> list[StepJob]:
    return [job for job in observed.jobs if job.runs.attempt != build.attempt]


def _is_of_another_build(job: StepJob, build: WantedBuild) -> bool:
    """Whether a Job belongs to another build, or promotes this build with other validation rules."""
    if job.runs.build != build.id:
        return True
    return job.step is BuildStep.PROMOTE and job.runs.promotion != build.promotion
