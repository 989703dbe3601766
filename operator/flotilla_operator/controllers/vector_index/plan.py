"""The story of an index, from what was seen to what is done.

deleted?   nothing but the collections in a Milvus of somebody else's; the rest goes with its owner
paused?    look on, change nothing
standing   claims, Milvus Lite, the retriever; a name that is taken is left alone, and Milvus Lite goes when
           the index is live on another Milvus
build      Jobs of other builds go first; then the next step of the wanted build, one at a time; what
           failed is tried again after a pause, while the generation that is live stays live
status     what all of this amounts to
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flotilla_operator.api.common import DeletionPolicy
from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    PERSISTENT_VOLUME_CLAIMS,
    resource_of,
)
from flotilla_operator.cluster.writes import (
    Apply,
    Create,
    Delete,
    Event,
    EventType,
    JsonPatch,
    Manifest,
    Plan,
    Write,
)
from flotilla_operator.controllers.conditions import Truth, parsed_timestamp
from flotilla_operator.controllers.vector_index.jobs import StepJob
from flotilla_operator.controllers.vector_index.judgement import Facts, embedder_ready, milvus_ready
from flotilla_operator.controllers.vector_index.objects import claims_of, standing_objects
from flotilla_operator.controllers.vector_index.observe import FINALIZER, leaves_something_outside
from flotilla_operator.controllers.vector_index.outcome import Outcome, leaving_status, status_and_events
from flotilla_operator.controllers.vector_index.progress import Progress, Stage, progress_of
from flotilla_operator.controllers.vector_index.reasons import EventReason
from flotilla_operator.controllers.vector_index.seen import CleanupState, Leaving, Observed
from flotilla_operator.workloads.vector_index.build import WantedBuild, build_config_map, build_job
from flotilla_operator.workloads.vector_index.identity import build_id, generation_id, promotion_id
from flotilla_operator.workloads.vector_index.milvus import milvus
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildStep

CLEANUP_LOOK_SECONDS = 1.0
CLEANUP_DEADLINE = timedelta(seconds=45)
STRAYS_LOOK_SECONDS = 5.0
MISSING_LOOK_SECONDS = 10.0
SETTLED_LOOK_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSteps:
    """What is done about the build, where that leaves it, and when to look again."""

    writes: Sequence[Write] = ()
    events: Sequence[Event] = ()
    look_again_seconds: float = SETTLED_LOOK_SECONDS


def plan(observed: Observed | Leaving, now: datetime) -> Plan:
    """The next step of an index."""
    if isinstance(observed, Leaving):
        return _farewell(observed, now)
    wanted = wanted_build(observed)
    progress = progress_of(wanted, observed.jobs) if wanted is not None else None
    taken = names_taken(observed)
    outcome = Outcome(
        observed=observed,
        progress=progress,
        wanted_generation=wanted.generation if wanted is not None else None,
        names_taken=taken,
    )
    status, events = status_and_events(outcome, now)
    if observed.spec.paused:
        return Plan(status=status, events=events, look_again_seconds=SETTLED_LOOK_SECONDS)
    steps = _build(observed, progress, taken, now)
    finalizers = (FINALIZER,) if leaves_something_outside(observed.spec) else ()
    return Plan(
        writes=[*_standing(observed), *_without_lite(observed, progress), *steps.writes],
        status=status,
        finalizers=finalizers,
        events=[*steps.events, *events],
        look_again_seconds=steps.look_again_seconds,
    )


def wanted_build(observed: Observed) -> WantedBuild | None:
    """The build that the spec asks for; None until the embedder is known, since it is part of the name."""
    if observed.embedder is None:
        return None
    spec = observed.spec
    generation = generation_id(spec, observed.embedder.model)
    build = build_id(spec, generation)
    return WantedBuild(
        generation=generation,
        id=build,
        promotion=promotion_id(spec, build),
        shared_workspace=observed.shared_workspace,
    )


def names_taken(observed: Observed) -> tuple[str, ...]:
    """The names that belong to somebody else; the writer leaves those alone."""
    taken = []
    for (kind, name), live in observed.existing.items():
        kept = kind == PERSISTENT_VOLUME_CLAIMS.kind and _is_kept_claim(observed, live)
        if controller_uid(live) != observed.owner.uid and not kept:
            taken.append(f"{kind} {name}")
    return tuple(sorted(taken))


def _is_kept_claim(observed: Observed, live: Manifest) -> bool:
    """Whether this is the claim that an index of our name left, or that we keep for the next."""
    labels = live["metadata"].get("labels") or {}
    ours = milvus(observed.owner).selector.items() <= labels.items()
    return ours and controller_uid(live) is None


def _standing(observed: Observed) -> list[Write]:
    owner, spec = observed.owner, observed.spec
    writes: list[Write] = []
    for claim in claims_of(owner, spec):
        writes += _claim_writes(observed, claim)
    embedder = observed.embedder
    objects = standing_objects(owner, spec, observed.images, embedder, observed.secret_versions)
    return [*writes, *(Apply(manifest=manifest) for manifest in objects)]


def _without_lite(observed: Observed, progress: Progress | None) -> list[Write]:
    """Milvus Lite goes when the index is live elsewhere; its claim is left to its deletion policy.

    Until the last retriever that reads it is gone, it serves the generation that was live before.
    """
    live = progress is not None and progress.stage is Stage.DONE
    if not live or not _retriever_rolled_out(observed):
        return []
    return [
        Delete(ref=resource_of(manifest).ref_to(manifest), uid=manifest["metadata"]["uid"])
        for manifest in observed.unused_milvus
    ]


def _retriever_rolled_out(observed: Observed) -> bool:
    """Whether every retriever pod is of the newest template, and one is ready."""
    deployment = observed.object(DEPLOYMENTS.kind, retriever(observed.owner).name)
    status = (deployment or {}).get("status") or {}
    updated = status.get("updatedReplicas") or 0
    return bool(status.get("readyReplicas")) and 0 < updated == status.get("replicas")


def _claim_writes(observed: Observed, claim: Manifest) -> list[Write]:
    """Apply the claim; a change between Retain and Delete gives or takes its owner reference first."""
    name = claim["metadata"]["name"]
    live = observed.object(PERSISTENT_VOLUME_CLAIMS.kind, name)
    if name != milvus(observed.owner).name:
        return [Apply(manifest=claim)]
    retained = observed.spec.retention.deletion_policy is DeletionPolicy.RETAIN
    apply = Apply(manifest=claim, retained=retained, field="spec.milvus.storage")
    if live is None:
        return [apply]
    held = controller_uid(live)
    if held is None and not retained and _is_kept_claim(observed, live):
        return [_owner_references(observed, live, [observed.owner.reference])]
    if held == observed.owner.uid and retained:
        return [_owner_references(observed, live, [])]
    return [apply]


def _owner_references(observed: Observed, live: Manifest, references: list[Manifest]) -> JsonPatch:
    return JsonPatch(
        ref=PERSISTENT_VOLUME_CLAIMS.ref(observed.owner.namespace, live["metadata"]["name"]),
        resource_version=live["metadata"]["resourceVersion"],
        operations=[{"op": "add", "path": "/metadata/ownerReferences", "value": references}],
    )


def _build(
    observed: Observed, progress: Progress | None, taken: tuple[str, ...], now: datetime
) -> BuildSteps:
    """The next step of the build, or what stands in its way."""
    if progress is None:
        return BuildSteps(look_again_seconds=MISSING_LOOK_SECONDS)
    retry_at = progress.retry_at(now)
    if retry_at is not None and now >= retry_at:
        progress = progress.next_attempt
    others = _deletions(observed, lambda job: _is_of_another_build(job, progress.build))
    if others:
        return BuildSteps(writes=others, look_again_seconds=STRAYS_LOOK_SECONDS)
    older = _deletions(observed, lambda job: job.run != progress.build.run)
    if progress.stage is not Stage.START:
        wait = (retry_at - now).total_seconds() if retry_at is not None else SETTLED_LOOK_SECONDS
        older += _old_config_maps(observed, progress.build)
        return BuildSteps(writes=older, look_again_seconds=max(wait, 1.0))
    if observed.missing or taken or not _ready_for(observed):
        return BuildSteps(look_again_seconds=MISSING_LOOK_SECONDS)
    # A build may return under the name it had, so before a plan no pod of any build may be left.
    planning = progress.step is BuildStep.PLAN
    if any(planning or run != progress.build.run for run in observed.live_build_pods.values()):
        return BuildSteps(look_again_seconds=STRAYS_LOOK_SECONDS)
    # The new attempt stands before the old one goes, or nobody would know how many there were.
    return BuildSteps(writes=[*_start(observed, progress), *older], events=[_started(progress)])


def _ready_for(observed: Observed) -> bool:
    """Whether what a step needs answers; asked before each, since a step that must wait holds pods."""
    facts = Facts(observed=observed, names_taken=(), progress=None)
    return all(check(facts).status is Truth.TRUE for check in (embedder_ready, milvus_ready))


def _is_of_another_build(job: StepJob, build: WantedBuild) -> bool:
    """Whether a Job belongs to another build, or promotes this one by other rules."""
    if job.run.rpartition("-")[0] != build.id:
        return True
    return job.step is BuildStep.PROMOTE and not job.name.endswith(f"-{build.promotion}")


def _deletions(observed: Observed, unwanted: Callable[[StepJob], bool]) -> list[Write]:
    namespace = observed.owner.namespace
    return [Delete(ref=JOBS.ref(namespace, job.name), uid=job.uid) for job in observed.jobs if unwanted(job)]


def _old_config_maps(observed: Observed, build: WantedBuild) -> list[Write]:
    return [
        Delete(
            ref=CONFIG_MAPS.ref(observed.owner.namespace, config_map["metadata"]["name"]),
            uid=config_map["metadata"]["uid"],
        )
        for config_map in observed.build_config_maps
        if config_map["metadata"]["labels"][contract.LABEL_BUILD] != build.run
    ]


def _start(observed: Observed, progress: Progress) -> list[Write]:
    assert observed.embedder is not None  # the wanted build has no name without it
    owner, spec, model = observed.owner, observed.spec, observed.embedder.model
    job = build_job(
        owner,
        spec,
        observed.images,
        model,
        progress.build,
        progress.step,
        shards=max(1, progress.shards),
    )
    return [Apply(manifest=build_config_map(owner, spec, model, progress.build)), Create(manifest=job)]


def _started(progress: Progress) -> Event:
    if progress.step is BuildStep.PLAN:
        note = f"build {progress.build.run} of generation {progress.build.generation}"
        return Event(
            type=EventType.NORMAL,
            reason=EventReason.BUILD_STARTED,
            note=note,
            subject=progress.build.run,
        )
    note = f"the {progress.step} step of build {progress.build.run}"
    return Event(
        type=EventType.NORMAL,
        reason=EventReason.BUILD_STEP_STARTED,
        note=note,
        subject=f"{progress.build.run}/{progress.step}",
    )


def _farewell(leaving: Leaving, now: datetime) -> Plan:
    """Let go as soon as nothing is left outside, or at the deadline, and say what is.

    What lets go writes no status: a server that refuses it, for a spec it would not take today, must not keep
    the index.
    """
    cleanup = leaving.cleanup
    metadata = leaving.manifest["metadata"]
    if cleanup.state is CleanupState.NOT_NEEDED:
        held = FINALIZER in (metadata.get("finalizers") or ())
        return Plan(finalizers=(), status=None if held else leaving_status(leaving))
    if cleanup.state is CleanupState.DONE:
        note = f"the collections of {leaving.owner.name} are removed"
        event = Event(type=EventType.NORMAL, reason=EventReason.CLEANUP_DONE, note=note)
        return Plan(finalizers=(), events=[event])
    deadline = parsed_timestamp(metadata["deletionTimestamp"]) + CLEANUP_DEADLINE
    if cleanup.state is CleanupState.RUNNING and now < deadline:
        return Plan(status=leaving_status(leaving), look_again_seconds=CLEANUP_LOOK_SECONDS)
    note = cleanup.message or "the collections were not removed in time; drop them by hand"
    event = Event(type=EventType.WARNING, reason=EventReason.CLEANUP_INCOMPLETE, note=note)
    return Plan(finalizers=(), events=[event])
