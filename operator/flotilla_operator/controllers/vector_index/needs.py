"""Checks of what an index needs: a valid spec, documents, the embedding model and Milvus.

A failed build is reported in the condition of its cause, too. A failure makes the index Reconciling only
where the next attempt can succeed by itself. The operator also tries a missing folder again, but the index is
Stalled: a person must fill it.
"""

from collections.abc import Callable, Sequence

from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.controllers.chains import Finding, right
from flotilla_operator.controllers.conditions import MendedBy, Truth
from flotilla_operator.controllers.ignored_fields import ignored_fields, told_of
from flotilla_operator.controllers.missing import finding_of
from flotilla_operator.controllers.vector_index.facts import Facts
from flotilla_operator.controllers.vector_index.names import NameTaken
from flotilla_operator.controllers.vector_index.reasons import ConditionType, Reason
from flotilla_operator.workloads.vector_index.milvus import milvus
from flotilla_runtime.contract import BuildReason

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


def mended_by(reason: BuildReason) -> MendedBy:
    """Condition under which a failed build is tried again."""
    return MendedBy.TIME if reason in MENDED_BY_TIME else MendedBy.PERSON


def lacks(kind: ConditionType) -> Callable[[Facts], Finding | None]:
    """The check that nothing which this condition reports on is missing."""

    def something_is_missing(facts: Facts) -> Finding | None:
        return finding_of([missing for missing in facts.observed.missing if missing.condition == kind])

    return something_is_missing


def broke_the_build(kind: ConditionType) -> Callable[[Facts], Finding | None]:
    """The check that the wanted build has not failed because of what this condition reports on."""

    def the_build_failed_of_it(facts: Facts) -> Finding | None:
        report = facts.failure
        if report is None or report.reason is None or SUBJECTS.get(report.reason) != kind:
            return None
        return Finding(reason=report.reason, message=report.message, mended_by=mended_by(report.reason))

    return the_build_failed_of_it


def name_is_taken(facts: Facts, name: str) -> Finding | None:
    """Another object holds this name of ours."""
    taken = [taken for taken in facts.decision.names_taken if taken.name == name]
    return _name_taken(taken) if taken else None


def has_unknown_fields(facts: Facts) -> Finding | None:
    """Fields that only a newer release knows are ignored; the spec is valid all the same."""
    ignored = ignored_fields(VectorIndexSpec, facts.observed.manifest["spec"], "spec")
    return right(Reason.FIELDS_IGNORED, told_of(ignored)) if ignored else None


def is_valid(facts: Facts) -> Finding:
    """The operator can act on the spec."""
    return right(Reason.VALID)


def documents_were_found(facts: Facts) -> Finding | None:
    """The plan step found the documents. When its report is lost, a promoted build says the same."""
    if facts.planned is not None:
        found = facts.planned.documents.discovered
        return right(Reason.DOCUMENTS_FOUND, f"the Plan step found {found} documents")
    return right(Reason.DOCUMENTS_FOUND) if facts.decision.done else None


def nobody_has_looked(facts: Facts) -> Finding:
    """Only a build looks for the documents."""
    message = "not known yet: the Plan step of the build looks for the documents"
    return Finding(reason=Reason.SOURCE_NOT_LOOKED_AT, message=message, status=Truth.UNKNOWN)


def the_model_is_not_available(facts: Facts) -> Finding | None:
    """The embedding model does not serve yet."""
    if facts.observed.embedder_available:
        return None
    name = facts.observed.spec.embedding.model_ref.name
    message = f"spec.embedding.modelRef: ModelReplicaSet {name!r} is not Available yet; see its conditions"
    return Finding(reason=Reason.MODEL_NOT_AVAILABLE, message=message)


def the_model_is_available(facts: Facts) -> Finding:
    """The embedding model serves."""
    return right(Reason.MODEL_AVAILABLE)


def the_name_of_milvus_is_taken(facts: Facts) -> Finding | None:
    """Milvus Lite cannot be made under its name."""
    return name_is_taken(facts, milvus(facts.observed.owner).name)


def milvus_is_the_users(facts: Facts) -> Finding | None:
    """The operator does not look into a Milvus that it did not make; builds do."""
    if not facts.observed.milvus_external:
        return None
    message = f"builds and the retriever use the Milvus at {facts.observed.spec.milvus.uri}"
    return right(Reason.MILVUS_EXTERNAL, message)


def milvus_is_not_ready(facts: Facts) -> Finding | None:
    """The pod of Milvus Lite has not started."""
    if facts.observed.milvus_usable:
        return None
    message = f"the pod of StatefulSet {milvus(facts.observed.owner).name} is not ready yet"
    return Finding(reason=Reason.MILVUS_STARTING, message=message)


def milvus_is_ready(facts: Facts) -> Finding:
    """Milvus Lite takes chunks."""
    token = facts.observed.spec.milvus.token_secret_ref
    ignored = "; Milvus Lite has no users, so spec.milvus.tokenSecretRef has no effect" if token else ""
    message = f"the pod of StatefulSet {milvus(facts.observed.owner).name} is ready{ignored}"
    return right(Reason.MILVUS_AVAILABLE, message)


def _name_taken(taken: Sequence[NameTaken]) -> Finding:
    message = (
        f"{', '.join(map(str, taken))} exists and does not belong to this index; delete it, or give this "
        "index another name"
    )
    return Finding(reason=Reason.NAME_TAKEN, message=message, mended_by=MendedBy.PERSON)
