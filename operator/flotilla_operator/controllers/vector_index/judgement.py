"""The conditions of an index: each a short chain from what is wrong to what is right.

A build's failure is shown twice: at the condition whose subject it is (the source, the embedder, Milvus, the
gate) and at Built. What the operator tries again by itself is Reconciling only where time can mend it: a
missing folder is tried again too, but a person must fill it.
"""

from dataclasses import dataclass

from flotilla_operator.api.vector_index import MilvusMode, VectorIndexSpec
from flotilla_operator.controllers.conditions import Condition, MendedBy, Truth, with_summary
from flotilla_operator.controllers.ignored_fields import ignored_fields
from flotilla_operator.controllers.vector_index.progress import Progress, Stage
from flotilla_operator.controllers.vector_index.reasons import ConditionType, Reason
from flotilla_operator.controllers.vector_index.seen import Missing, Observed
from flotilla_operator.workloads.vector_index.milvus import milvus
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport

SUBJECTS = {
    BuildReason.PATH_MISSING: ConditionType.SOURCE_REACHABLE,
    BuildReason.SOURCE_EMPTY: ConditionType.SOURCE_REACHABLE,
    BuildReason.SOURCE_UNREADABLE: ConditionType.SOURCE_REACHABLE,
    BuildReason.EMBEDDER_UNREACHABLE: ConditionType.EMBEDDER_READY,
    BuildReason.EMBEDDER_UNAUTHORIZED: ConditionType.EMBEDDER_READY,
    BuildReason.MODEL_UNKNOWN: ConditionType.EMBEDDER_READY,
    BuildReason.DIMENSION_MISMATCH: ConditionType.EMBEDDER_READY,
    BuildReason.CHUNKS_TOO_LONG: ConditionType.EMBEDDER_READY,
    BuildReason.MILVUS_UNREACHABLE: ConditionType.MILVUS_READY,
    BuildReason.TOO_MANY_DEAD_LETTERS: ConditionType.VALIDATED,
    BuildReason.COUNT_MISMATCH: ConditionType.VALIDATED,
}
MENDED_BY_TIME = frozenset(
    {
        BuildReason.EMBEDDER_UNREACHABLE,
        BuildReason.MILVUS_UNREACHABLE,
        BuildReason.WORKSPACE_INCOMPLETE,
        BuildReason.COUNT_MISMATCH,
        BuildReason.UNEXPECTED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the conditions are judged from; `progress` is None while no build can be named."""

    observed: Observed
    names_taken: tuple[str, ...]
    progress: Progress | None

    @property
    def failure(self) -> StepReport | None:
        """Why the wanted build failed."""
        failed = self.progress is not None and self.progress.stage is Stage.FAILED
        return self.progress.report if failed and self.progress is not None else None

    @property
    def planned(self) -> StepReport | None:
        """What the plan step found, once it has."""
        return self.progress.planned if self.progress is not None else None

    @property
    def done(self) -> bool:
        """Whether the wanted build was promoted."""
        return self.progress is not None and self.progress.stage is Stage.DONE

    def ready_replicas(self, kind: str, name: str) -> int:
        """How many pods of a Deployment or StatefulSet are ready."""
        manifest = self.observed.object(kind, name)
        return ((manifest or {}).get("status") or {}).get("readyReplicas") or 0


def conditions(facts: Facts) -> list[Condition]:
    """All conditions, with the summary."""
    return with_summary(
        [
            spec_valid(facts),
            source_reachable(facts),
            embedder_ready(facts),
            milvus_ready(facts),
            built(facts),
            validated(facts),
            retriever_ready(facts),
        ]
    )


def spec_valid(facts: Facts) -> Condition:
    """The spec can be acted on; what a newer release added to it is named and left out."""
    if ignored := ignored_fields(VectorIndexSpec, facts.observed.manifest["spec"], "spec"):
        names = ", ".join(ignored)
        message = f"this operator does not know and leaves out {names}; upgrade it to act on them"
        return _right(ConditionType.SPEC_VALID, Reason.FIELDS_IGNORED, message)
    return _right(ConditionType.SPEC_VALID, Reason.VALID)


def source_reachable(facts: Facts) -> Condition:
    """The documents are there."""
    kind = ConditionType.SOURCE_REACHABLE
    if (wrong := _missing(facts, kind) or _failed(facts, kind)) is not None:
        return wrong
    if facts.planned is not None:
        found = facts.planned.documents.discovered
        return _right(kind, Reason.DOCUMENTS_FOUND, f"{found} documents")
    if facts.done:
        return _right(kind, Reason.DOCUMENTS_FOUND)
    return _wrong(kind, Reason.SOURCE_NOT_LOOKED_AT, "the build's plan will look", status=Truth.UNKNOWN)


def embedder_ready(facts: Facts) -> Condition:
    """The model that embeds is there and answers."""
    kind = ConditionType.EMBEDDER_READY
    if (wrong := _missing(facts, kind) or _failed(facts, kind)) is not None:
        return wrong
    name = facts.observed.spec.embedding.model_ref.name
    if facts.observed.embedder is None or not facts.observed.embedder.available:
        message = f"the ModelReplicaSet {name!r} is not Available yet; see its conditions"
        return _wrong(kind, Reason.MODEL_NOT_AVAILABLE, message)
    return _right(kind, Reason.MODEL_AVAILABLE)


def milvus_ready(facts: Facts) -> Condition:
    """The database that holds the index is there."""
    kind = ConditionType.MILVUS_READY
    name = milvus(facts.observed.owner).name
    taken = [taken for taken in facts.names_taken if taken.endswith(f" {name}")]
    if taken:
        return _name_taken(kind, taken)
    if (wrong := _missing(facts, kind) or _failed(facts, kind)) is not None:
        return wrong
    spec = facts.observed.spec.milvus
    if spec.mode is MilvusMode.EXTERNAL:
        return _right(kind, Reason.MILVUS_EXTERNAL, f"builds and the retriever use {spec.uri}")
    if not facts.ready_replicas("StatefulSet", name):
        return _wrong(kind, Reason.MILVUS_STARTING, f"no pod of the StatefulSet {name} is ready yet")
    ignored = "; Milvus Lite knows no users, so spec.milvus.tokenSecretRef has no effect"
    return _right(kind, Reason.MILVUS_AVAILABLE, f"{name}{ignored if spec.token_secret_ref else ''}")


def built(facts: Facts) -> Condition:
    """The index that the spec asks for is built and live."""
    kind = ConditionType.BUILT
    others = [taken for taken in facts.names_taken if taken.endswith("-workspace")]
    if others:
        return _name_taken(kind, others)
    if (wrong := _missing(facts, kind)) is not None:
        return wrong
    progress = facts.progress
    if facts.done and progress is not None:
        return _right(kind, Reason.UP_TO_DATE, _built_message(progress))
    if facts.observed.spec.paused:
        return _wrong(kind, Reason.PAUSED, "spec.paused is true", mended_by=MendedBy.PERSON)
    if progress is None:
        return _wrong(kind, Reason.WAITING, "the build waits for the conditions above")
    if progress.stage is Stage.FAILED:
        return _build_failed(progress)
    if progress.stage is Stage.START:
        return _wrong(kind, Reason.WAITING, f"the {progress.step} step is to be started")
    return _wrong(kind, Reason.BUILDING, _running_message(facts, progress))


def validated(facts: Facts) -> Condition:
    """The build passed the gate."""
    kind = ConditionType.VALIDATED
    if (wrong := _failed(facts, kind)) is not None:
        return wrong
    if facts.done:
        return _right(kind, Reason.PASSED, "every document is accounted for")
    message = "the gate is asked when every shard is done"
    return _wrong(kind, Reason.NOT_BUILT, message, status=Truth.UNKNOWN)


def retriever_ready(facts: Facts) -> Condition:
    """Somebody answers questions; a retriever is ready once a generation is live."""
    kind = ConditionType.RETRIEVER_READY
    name = retriever(facts.observed.owner).name
    taken = [taken for taken in facts.names_taken if taken.endswith(f" {name}")]
    if taken:
        return _name_taken(kind, taken)
    ready, wanted = facts.ready_replicas("Deployment", name), facts.observed.spec.retriever.replicas
    message = f"{ready} of {wanted} retriever pods are ready"
    if ready == 0:
        told = facts.observed.retriever_status
        why = f"; {told.problem}" if told is not None and told.problem else ""
        return _wrong(kind, Reason.RETRIEVER_STARTING, message + why)
    return _right(kind, Reason.RETRIEVER_AVAILABLE, message)


def _built_message(progress: Progress) -> str:
    report = progress.report
    if report is None:
        return progress.build.generation
    counts = report.documents
    text = (
        f"{counts.discovered} documents = {counts.indexed} indexed + {counts.duplicates} duplicates + "
        f"{counts.dead_lettered} dead letters; {report.chunks} chunks"
    )
    if report.tokenizer == "Plain":
        text += "; the embedder's tokenizer was not found, so chunks are shorter than they may be"
    examples = "; ".join(f"{one.document}: {one.reason}, {one.message}" for one in report.dead_letters)
    return f"{text}; {examples}" if examples else text


def _build_failed(progress: Progress) -> Condition:
    report = progress.report
    if report is None or report.reason is None:
        message = f"the {progress.step} step ended without a report; it is tried again"
        return _wrong(ConditionType.BUILT, Reason.REPORT_LOST, message)
    after = (
        "tried again with growing pauses"
        if progress.repeats
        else "repair them, then ask for another build by changing spec.source.revision"
    )
    return _wrong(
        ConditionType.BUILT,
        report.reason,
        f"{progress.step}: {report.message}; {after}",
        mended_by=_mended_by(report.reason),
    )


def _running_message(facts: Facts, progress: Progress) -> str:
    where = "" if facts.observed.shared_workspace else ", on one node, as the workspace is not ReadWriteMany"
    if progress.trouble is not None:
        return f"the {progress.step} step does not get on: {progress.trouble}"
    if progress.step is BuildStep.SHARDS:
        return f"{progress.shards_done} of {progress.shards} shards are done{where}"
    return f"the {progress.step} step runs"


def _mended_by(reason: BuildReason) -> MendedBy:
    return MendedBy.TIME if reason in MENDED_BY_TIME else MendedBy.PERSON


def _missing(facts: Facts, kind: ConditionType) -> Condition | None:
    found: list[Missing] = [missing for missing in facts.observed.missing if missing.condition == kind]
    if not found:
        return None
    message = "; ".join(missing.message for missing in found)
    return _wrong(kind, found[0].reason, message, mended_by=MendedBy.PERSON)


def _failed(facts: Facts, kind: ConditionType) -> Condition | None:
    """The condition of what the last build stumbled over."""
    report = facts.failure
    if report is None or report.reason is None or SUBJECTS.get(report.reason) != kind:
        return None
    return _wrong(kind, report.reason, report.message, mended_by=_mended_by(report.reason))


def _name_taken(kind: ConditionType, taken: list[str]) -> Condition:
    return _wrong(
        kind,
        Reason.NAME_TAKEN,
        f"{', '.join(taken)} exists and belongs to somebody else; delete it, or give this index another name",
        mended_by=MendedBy.PERSON,
    )


def _right(kind: ConditionType, reason: str, message: str = "") -> Condition:
    return Condition(type=kind, status=Truth.TRUE, reason=reason, message=message)


def _wrong(
    kind: ConditionType,
    reason: str,
    message: str,
    *,
    status: Truth = Truth.FALSE,
    mended_by: MendedBy = MendedBy.TIME,
) -> Condition:
    return Condition(type=kind, status=status, reason=reason, message=message, mended_by=mended_by)
