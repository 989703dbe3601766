"""The promote step: remove deleted documents, check the counts, move the alias, and drop old generations.

The order matters: the alias moves only after every check, and old generations are dropped only after it has
moved. When a check fails, the live generation stays live.
"""

from flotilla_runtime.contract import BuildReason, BuildStep, DeadLetter, DocumentCounts, StepReport
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.steps import StepContext, accounted, sample
from flotilla_runtime.indexing.workspace import BuildPlan, ShardResult


def run_promote(context: StepContext, now: float) -> StepReport:
    """Check and promote the build; a rerun changes nothing. `now` is the time in Unix seconds."""
    plan = context.workspace.require_plan()
    results = _results(context, plan)
    letters = context.workspace.dead_letters()
    counts = DocumentCounts(
        discovered=plan.discovered,
        indexed=sum(result.indexed for result in results),
        dead_lettered=len(letters),
    )
    _check_documents(counts, context.config.max_failed_percent, sample(letters)[:1])
    removed = _remove_gone(context, results)
    chunks = sum(result.chunks for result in results)
    parity = _check_parity(context, chunks)
    _swap(context, now)
    _drop_old_generations(context)
    context.workspace.remove_other_builds(context.config.keep_generations)
    return StepReport(
        step=BuildStep.PROMOTE,
        documents=counts.model_copy(update={"removed": removed}),
        chunks=chunks,
        shards=plan.shards,
        tokenizer=plan.tokenizer,
        count_parity=parity,
        dead_letters=sample(letters),
    )


def _results(context: StepContext, plan: BuildPlan) -> list[ShardResult]:
    found = [context.workspace.shard_result(number) for number in range(plan.shards)]
    results = [result for result in found if result is not None]
    if len(results) < plan.shards:
        raise BuildError(
            BuildReason.WORKSPACE_INCOMPLETE,
            f"{plan.shards - len(results)} of {plan.shards} shards are not complete; the build runs again",
        )
    return results


def _check_documents(
    counts: DocumentCounts, max_failed_percent: float, example: tuple[DeadLetter, ...]
) -> None:
    """Raise BuildError when documents are lost, or more are dead letters than the user allows."""
    if not accounted(counts):
        raise BuildError(
            BuildReason.COUNT_MISMATCH,
            f"{counts.discovered} documents were found, but {counts.indexed} indexed + {counts.duplicates} "
            f"duplicates + {counts.dead_lettered} dead letters make another number",
        )
    failed_percent = 100 * counts.dead_lettered / counts.discovered
    if failed_percent > max_failed_percent:
        first = "".join(f"; for example {one.document}: {one.reason}, {one.message}" for one in example)
        raise BuildError(
            BuildReason.TOO_MANY_DEAD_LETTERS,
            f"{counts.dead_lettered} of {counts.discovered} documents ({failed_percent:.1f} %) could not be "
            f"indexed, more than spec.build.maxFailedPercent ({max_failed_percent:g} %){first}; repair these "
            "documents or exclude them, or raise the limit",
        )


def _remove_gone(context: StepContext, results: list[ShardResult]) -> int:
    """Remove the chunks of documents that are no longer in the source, or can no longer be indexed."""
    collection = context.config.collection.name
    indexed = {document for result in results for document in result.indexed_ids}
    gone = sorted(context.store.documents(collection) - indexed)
    if not gone:
        return 0
    context.crash_point("before_remove_gone")
    context.store.delete_documents(collection, gone)
    context.store.flush(collection)
    context.crash_point("after_remove_gone")
    left = context.store.documents(collection) - indexed
    if left:
        raise BuildError(
            BuildReason.COUNT_MISMATCH, f"{len(left)} documents were removed but are still in the collection"
        )
    return len(gone)


def _check_parity(context: StepContext, chunks: int) -> bool:
    there = context.store.count(context.config.collection.name)
    if there != chunks and context.config.require_count_parity:
        raise BuildError(
            BuildReason.COUNT_MISMATCH, f"{chunks} chunks were indexed, but {there} are in the collection"
        )
    return there == chunks


def _swap(context: StepContext, now: float) -> None:
    """Record that this build is live, then point the alias to its generation."""
    collection = context.config.collection
    descriptor = context.store.describe(collection.name)
    if descriptor is None:
        raise BuildError(
            BuildReason.WORKSPACE_INCOMPLETE,
            f"the collection {collection.name} has no descriptor; the build runs again",
        )
    marks = {"build": context.config.build, "promoted_at": now, "index_uid": context.index_uid}
    promoted = descriptor.model_copy(update=marks)
    context.store.mark_promoted(collection.name, promoted)
    context.crash_point("before_swap")
    context.store.point(collection.alias, collection.name)
    context.crash_point("after_swap")


def _drop_old_generations(context: StepContext) -> None:
    """Keep the last promoted generations, including this one; drop all others, and those never live."""
    collection = context.config.collection
    others = [name for name in context.store.collections(collection.prefix) if name != collection.name]
    found = {name: context.store.describe(name) for name in others}
    ages = {name: (about.promoted_at if about else None) or 0.0 for name, about in found.items()}
    others.sort(key=lambda name: ages[name], reverse=True)
    kept = [name for name in others if ages[name]][: max(0, context.config.keep_generations - 1)]
    for name in others:
        if name not in kept:
            context.store.drop(name)
            context.crash_point("after_drop")
