"""The first step: find the documents, try the embedder, make the collection, write the manifest of shards.

Everything that a person may have got wrong is found here, before a single document is read: a missing path,
an empty source, another model, another dimension, chunks longer than the model takes.

A plan is kept for the pods of the Job that made it and for nobody else: a build of the same name may have
been here before, over documents that have changed since, so another Job clears its folder and looks again.
"""

from collections.abc import Sequence

from flotilla_runtime.contract import (
    CHUNK_PREFIX_TOKENS,
    CHUNK_SPECIAL_TOKENS,
    BuildConfig,
    BuildReason,
    BuildStep,
    DocumentCounts,
    StepReport,
)
from flotilla_runtime.indexing.discovery import discover
from flotilla_runtime.indexing.embedding import Refused, Vector
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.records import SourceDocument
from flotilla_runtime.indexing.steps import StepContext, sample
from flotilla_runtime.indexing.store import CANARY, Descriptor
from flotilla_runtime.indexing.tokenization import find_tokenizer, make_tokenizer
from flotilla_runtime.indexing.workspace import DISCOVERY, BuildPlan


async def run_plan(context: StepContext) -> StepReport:
    """Plan the build, or say why it cannot be; what this Job planned is kept, so a rerun changes nothing."""
    config, workspace = context.config, context.workspace
    plan = workspace.plan()
    if plan is None or plan.job != context.job:
        context.crash_point("before_clear")
        workspace.clear()
        context.crash_point("after_clear")
        found = discover(config.source)
        canary = await _try_embedder(context)
        content = find_tokenizer(config.embedder, context.tokenizer_folder, context.hub_token)
        context.crash_point("before_create_collection")
        context.store.create(config.collection, _descriptor(config, canary))
        context.crash_point("after_create_collection")
        workspace.write_dead_letters(DISCOVERY, found.dead_letters)
        context.crash_point("before_write_plan")
        shards = split(found.documents, config.shard_documents)
        plan = BuildPlan(
            discovered=found.found,
            dead_lettered=len(found.dead_letters),
            shards=len(shards),
            tokenizer=make_tokenizer(content).name,
            job=context.job,
        )
        workspace.write_plan(plan, content, shards)
        context.crash_point("after_write_plan")
    return StepReport(
        step=BuildStep.PLAN,
        documents=DocumentCounts(discovered=plan.discovered, dead_lettered=plan.dead_lettered),
        shards=plan.shards,
        tokenizer=plan.tokenizer,
        dead_letters=sample(workspace.dead_letters()),
    )


def split(documents: Sequence[SourceDocument], shard_documents: int) -> list[Sequence[SourceDocument]]:
    """The documents in shards of so many, in their order."""
    return [documents[start : start + shard_documents] for start in range(0, len(documents), shard_documents)]


async def _try_embedder(context: StepContext) -> Vector:
    """The canary's vector, after checking that the model is there and takes our chunks."""
    chunking = context.config.chunking
    needed = chunking.chunk_tokens + CHUNK_PREFIX_TOKENS + CHUNK_SPECIAL_TOKENS
    longest = await context.embedder.longest_input_tokens()
    if longest is not None and needed > longest:
        raise BuildError(
            BuildReason.CHUNKS_TOO_LONG,
            f"processing.chunkTokens: {chunking.chunk_tokens} and {needed - chunking.chunk_tokens} for title "
            f"and heading are more than the {longest} tokens that {context.config.embedder.model} takes; "
            f"set it to {longest - CHUNK_PREFIX_TOKENS - CHUNK_SPECIAL_TOKENS} or less",
        )
    [vector] = await context.embedder.embed([CANARY])
    if isinstance(vector, Refused):
        raise BuildError(
            BuildReason.MODEL_UNKNOWN, f"embedding.modelRef: the model refuses text: {vector.message}"
        )
    return vector


def _descriptor(config: BuildConfig, canary: Vector) -> Descriptor:
    return Descriptor(
        generation=config.generation,
        build=config.build,
        embedder=config.embedder,
        metric=config.collection.metric,
        canary=tuple(round(value, 5) for value in canary),
    )
