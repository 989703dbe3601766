"""The plan step: find the documents, test the embedder, create the collection, and write the shards.

This step finds the errors that a person must mend, before it reads a single document: a missing path, an
empty source, a wrong model or dimension, or chunks that are longer than the model accepts.

A plan is only valid for the pods of the Job that made it. An earlier build with the same name may have left a
plan for documents that have changed since, so another Job clears the folder and plans again.
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
    """Plan the build, or raise the reason why it cannot run. A rerun in the same Job keeps the plan."""
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
    """The documents in order, in shards of at most `shard_documents`."""
    return [documents[start : start + shard_documents] for start in range(0, len(documents), shard_documents)]


async def _try_embedder(context: StepContext) -> Vector:
    """The canary's vector. Raises BuildError when the model is not served or does not accept our chunks."""
    chunking = context.config.chunking
    needed = chunking.chunk_tokens + CHUNK_PREFIX_TOKENS + CHUNK_SPECIAL_TOKENS
    longest = await context.embedder.longest_input_tokens()
    if longest is not None and needed > longest:
        raise BuildError(
            BuildReason.CHUNKS_TOO_LONG,
            f"spec.processing.chunkTokens: {chunking.chunk_tokens} tokens and "
            f"{needed - chunking.chunk_tokens} for title and heading are more than the {longest} tokens that "
            f"{context.config.embedder.model} accepts; set it to "
            f"{longest - CHUNK_PREFIX_TOKENS - CHUNK_SPECIAL_TOKENS} or less",
        )
    [vector] = await context.embedder.embed([CANARY])
    if isinstance(vector, Refused):
        raise BuildError(
            BuildReason.MODEL_UNKNOWN,
            f"spec.embedding.modelRef: the model refuses a short test text: {vector.message}",
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
