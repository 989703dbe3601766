"""`python -m flotilla_runtime.indexing plan|shards|promote`: runs one step of a build in a pod of a Job.

The exit status after a failure tells the Job whether another try can help. With 1 it can; with 3 a person
must change something first, and the Job's pod failure policy ends the Job at once. In both cases the
termination message says why.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2
import structlog

from flotilla_runtime.contract import (
    CONFIG_PATH,
    ENV_EMBEDDER_KEY,
    ENV_HUB_TOKEN,
    ENV_MEMORY_LIMIT,
    ENV_MILVUS_TOKEN,
    EXIT_PERMANENT,
    EXIT_RETRY,
    TERMINATION_LOG_PATH,
    TOKENIZER_DIRECTORY,
    BuildConfig,
    BuildReason,
    BuildStep,
    SecretError,
    StepReport,
    secret_of,
)
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.direct import DIRECT
from flotilla_runtime.indexing.embedding import EmbeddingClient
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.parsing import ParserProcess, memory_of_parser
from flotilla_runtime.indexing.plan import run_plan
from flotilla_runtime.indexing.promote import run_promote
from flotilla_runtime.indexing.reporting import write_report
from flotilla_runtime.indexing.shard import run_shard
from flotilla_runtime.indexing.steps import StepContext, counts_text
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.indexing.workspace import Workspace
from flotilla_runtime.logs import configure_logs

LOG = structlog.get_logger()
EMBEDDING_TIMEOUT_SECONDS = 300.0  # for one batch on a busy CPU engine


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="flotilla_runtime.indexing", description=__doc__)
    parser.add_argument("step", type=BuildStep, choices=list(BuildStep), help="the step to run")
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH), help="the build's configuration")
    parser.add_argument(
        "--shard",
        type=int,
        default=int(os.environ.get("JOB_COMPLETION_INDEX", "0")),
        help="the number of the shard (default: the pod's index in the Job)",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        default=Path(TOKENIZER_DIRECTORY),
        help="the folder with the embedding model's tokenizer",
    )
    parser.add_argument("--job", default="", help="the UID of the Job to which this pod belongs")
    parser.add_argument("--index-uid", default="", help="the UID of the VectorIndex, for the promote step")
    parser.add_argument(
        "--report", type=Path, default=Path(TERMINATION_LOG_PATH), help="the file to write the report to"
    )
    return parser.parse_args()


async def run_step(
    step: BuildStep,
    config: BuildConfig,
    *,
    shard: int,
    job: str,
    index_uid: str = "",
    tokenizer_folder: Path,
    environment: Mapping[str, str],
) -> StepReport:
    """Connect to Milvus and the embedder, and run one step."""
    timeout = httpx2.Timeout(EMBEDDING_TIMEOUT_SECONDS, connect=10.0)
    milvus_token, key, hub_token = secrets_of(environment)
    async with httpx2.AsyncClient(timeout=timeout, mounts=DIRECT) as http:
        store = Store(config.milvus, milvus_token)
        context = StepContext(
            config=config,
            workspace=Workspace(Path(config.workspace), config.build),
            store=store,
            embedder=EmbeddingClient(config.embedder, http, key=key),
            tokenizer_folder=tokenizer_folder,
            hub_token=hub_token,
            job=job,
            index_uid=index_uid,
        )
        try:
            if step is BuildStep.PLAN:
                return await run_plan(context)
            if step is BuildStep.PROMOTE:
                return await asyncio.to_thread(run_promote, context, time.time())
            limit = environment.get(ENV_MEMORY_LIMIT)
            parser = ParserProcess(memory_bytes=memory_of_parser(int(limit) if limit else None))
            try:
                return await run_shard(context, shard, parser)
            finally:
                parser.close()
        finally:
            store.close()


def secrets_of(environment: Mapping[str, str]) -> tuple[str | None, str | None, str | None]:
    """The token of Milvus, the key of the embedder and the token of the hub; raises BuildError."""
    try:
        return (
            secret_of(environment, ENV_MILVUS_TOKEN, "spec.milvus.tokenSecretRef"),
            secret_of(environment, ENV_EMBEDDER_KEY, "router.authSecretRef of spec.embedding.modelRef"),
            secret_of(environment, ENV_HUB_TOKEN, "model.tokenSecretRef of spec.embedding.modelRef"),
        )
    except SecretError as problem:
        raise BuildError(BuildReason.SECRET_UNUSABLE, str(problem)) from None


def attempt(step: BuildStep, options: argparse.Namespace) -> tuple[StepReport, int]:
    """The step's report and exit status; every error becomes a report."""
    try:
        config = BuildConfig.model_validate_json(options.config.read_bytes())
        report = asyncio.run(
            run_step(
                step,
                config,
                shard=options.shard,
                job=options.job,
                index_uid=options.index_uid,
                tokenizer_folder=options.tokenizer,
                environment=os.environ,
            )
        )
    except Exception as problem:
        error = first_error(problem)
        if isinstance(error, BuildError):
            LOG.error("step_failed", step=step, reason=error.reason, message=error.message)
            status = EXIT_PERMANENT if error.permanent else EXIT_RETRY
            return StepReport(step=step, reason=error.reason, message=error.message), status
        LOG.exception("step_failed", step=step)
        return StepReport(step=step, reason=BuildReason.UNEXPECTED, message=what_failed(error)), EXIT_RETRY
    LOG.info("step_done", step=step, counts=counts_text(report))
    return report, 0


def first_error(error: BaseException) -> BaseException:
    """The first error inside an exception group, a BuildError if there is one: one report is enough."""
    while isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if isinstance(one, BuildError)), error.exceptions[0])
    return error


def main() -> int:
    """Run the step that the command line names."""
    configure_logs()
    options = arguments()
    report, status = attempt(options.step, options)
    write_report(report, options.report)
    return status


if __name__ == "__main__":
    sys.exit(main())
