"""Checks of what an index makes: the build that the spec asks for, its validation, and the retriever."""

from flotilla_operator.controllers.chains import Finding, right
from flotilla_operator.controllers.conditions import MendedBy, Truth
from flotilla_operator.controllers.vector_index.facts import Facts
from flotilla_operator.controllers.vector_index.needs import mended_by, name_is_taken
from flotilla_operator.controllers.vector_index.progress import Progress, Stage
from flotilla_operator.controllers.vector_index.reasons import STEP_NAMES, Reason
from flotilla_operator.workloads.vector_index.build import workspace_name
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_runtime.contract import BuildStep, StepReport


def the_name_of_the_workspace_is_taken(facts: Facts) -> Finding | None:
    """The claim of the workspace cannot be made under its name. The user's own claim is not made."""
    if facts.observed.spec.build.workspace.claim_name is not None:
        return None
    return name_is_taken(facts, workspace_name(facts.observed.owner, facts.observed.spec))


def the_build_is_live(facts: Facts) -> Finding | None:
    """The generation that the spec asks for is built and promoted."""
    if not facts.decision.done:
        return None
    generation = facts.decision.wanted_generation
    if facts.promotion is None:
        return right(Reason.UP_TO_DATE, f"generation {generation} is built and promoted")
    return right(Reason.UP_TO_DATE, _counts(facts.promotion))


def is_paused(facts: Facts) -> Finding | None:
    """The user has paused the index."""
    if not facts.observed.spec.paused:
        return None
    message = "spec.paused is true: no step of a build is started; set it to false to continue"
    return Finding(reason=Reason.PAUSED, message=message, mended_by=MendedBy.PERSON)


def the_model_is_not_known(facts: Facts) -> Finding | None:
    """The build has no name without the embedding model."""
    if facts.progress is not None:
        return None
    message = "the build cannot start before the embedding model is known; see EmbedderReady"
    return Finding(reason=Reason.WAITING, message=message)


def the_report_was_lost(facts: Facts) -> Finding | None:
    """A step ended and its pod left no report."""
    progress = facts.progress
    if progress is None or progress.stage is not Stage.FAILED:
        return None
    if facts.failure is not None and facts.failure.reason is not None:
        return None
    message = f"the {STEP_NAMES[progress.step]} step ended without a report; the build is tried again"
    return Finding(reason=Reason.REPORT_LOST, message=message)


def the_build_failed(facts: Facts) -> Finding | None:
    """A step failed and its report says why."""
    progress, report = facts.progress, facts.failure
    if progress is None or report is None or report.reason is None:
        return None
    after = (
        "the build is tried again, after growing pauses"
        if progress.repeats
        else "after repairing documents, change spec.source.revision to start another build"
    )
    message = f"the {STEP_NAMES[progress.step]} step failed: {report.message}; {after}"
    return Finding(reason=report.reason, message=message, mended_by=mended_by(report.reason))


def the_step_waits(facts: Facts) -> Finding | None:
    """The Job of the next step does not exist yet."""
    progress = facts.progress
    if progress is None or progress.stage is not Stage.START:
        return None
    message = (
        f"the {STEP_NAMES[progress.step]} step has not started yet; status.blockedBy says if something "
        "blocks it"
    )
    return Finding(reason=Reason.WAITING, message=message)


def the_build_runs(facts: Facts) -> Finding:
    """A step of the build runs."""
    assert facts.progress is not None  # an earlier check reports that it is not known
    return Finding(reason=Reason.BUILDING, message=_running(facts, facts.progress))


def the_build_was_validated(facts: Facts) -> Finding | None:
    """The counts of the build were checked and are right."""
    if not facts.decision.done:
        return None
    return right(Reason.PASSED, "every document is indexed, a duplicate or a dead letter")


def nothing_was_validated(facts: Facts) -> Finding:
    """The build is not there yet."""
    message = "not known yet: the Promote step checks the counts once every shard is done"
    return Finding(reason=Reason.NOT_BUILT, message=message, status=Truth.UNKNOWN)


def the_name_of_the_retriever_is_taken(facts: Facts) -> Finding | None:
    """The retriever cannot be made under its name."""
    return name_is_taken(facts, retriever(facts.observed.owner).name)


def no_retriever_is_ready(facts: Facts) -> Finding | None:
    """No retriever pod answers, which they do once a generation is live."""
    if facts.ready_retrievers:
        return None
    told = facts.observed.retriever_status
    why = f"; {told.problem}" if told is not None and told.problem else ""
    return Finding(reason=Reason.RETRIEVER_STARTING, message=_retrievers(facts) + why)


def a_retriever_is_ready(facts: Facts) -> Finding:
    """At least one retriever pod answers."""
    old = ", ".join(facts.decision.access.old_fleets)
    waits = f"; searches need no key until the workers of {old} are replaced, which send none" if old else ""
    return right(Reason.RETRIEVER_AVAILABLE, _retrievers(facts) + waits)


def _retrievers(facts: Facts) -> str:
    return f"{facts.ready_retrievers} of {facts.observed.spec.retriever.replicas} retriever pods are ready"


def _counts(report: StepReport) -> str:
    counts = report.documents
    text = (
        f"{counts.discovered} documents = {counts.indexed} indexed + {counts.duplicates} duplicates + "
        f"{counts.dead_lettered} dead letters; {report.chunks} chunks"
    )
    if report.tokenizer == "Plain":
        text += "; the tokenizer of the embedding model was not found, so chunks are shorter than necessary"
    examples = "; ".join(f"{one.document}: {one.reason}, {one.message}" for one in report.dead_letters)
    return f"{text}; {examples}" if examples else text


def _running(facts: Facts, progress: Progress) -> str:
    """How far the step is, or the words of the kubelet or the scheduler that say why it does not get on."""
    shared = facts.observed.shared_workspace
    where = "" if shared else "; they run on one node, because the workspace is not ReadWriteMany"
    if progress.trouble is not None:
        return f"the {STEP_NAMES[progress.step]} step makes no progress: {progress.trouble}"
    if progress.step is BuildStep.SHARDS:
        return f"{progress.shards_done} of {progress.shards} shards are done{where}"
    return f"the {STEP_NAMES[progress.step]} step is running"
