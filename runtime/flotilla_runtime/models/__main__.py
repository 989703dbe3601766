"""`python -m flotilla_runtime.models`: fetch a model (`--source --to`) or check a folder (`--verify`).

After the model, everything else that the engine reads is fetched or checked (`--also`, once for each thing,
as the JSON of a `contract.EngineFiles`).
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flotilla_runtime.contract import ENV_HUB_TOKEN, EngineFiles, FilesRole, SecretError, secret_of
from flotilla_runtime.contract.failure_texts import tell_uncaught
from flotilla_runtime.models import facts, files
from flotilla_runtime.models.failures import EXIT_STATUS, SOURCE, TOKEN, ModelError, Reason, report
from flotilla_runtime.models.hub_source import hub_name, hub_source
from flotilla_runtime.models.shapes import SHAPES

TERMINATION_LOG = Path("/dev/termination-log")


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    arguments = argparse.ArgumentParser(prog="python -m flotilla_runtime.models", description=__doc__)
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--source", help="the model to fetch, hf://organisation/name; HF_ENDPOINT and HF_TOKEN are used"
    )
    what.add_argument("--verify", type=Path, help="the folder to check for a complete model")
    arguments.add_argument("--revision", help="a branch, a tag or a commit of the source")
    arguments.add_argument("--to", type=Path, help="the folder for the model's files")
    arguments.add_argument(
        "--also",
        type=EngineFiles.model_validate_json,
        action="append",
        default=[],
        help="further files, as JSON of EngineFiles; may be given several times",
    )
    arguments.add_argument(
        "--attempts", type=int, default=6, help="how often to try a download (default: %(default)s)"
    )
    arguments.add_argument(
        "--termination-log", type=Path, default=TERMINATION_LOG, help="the file for the termination message"
    )
    return arguments


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wanted(options: argparse.Namespace) -> list[EngineFiles]:
    """All files that the arguments name, the model first."""
    folder = options.to if options.verify is None else options.verify
    model = EngineFiles(
        role=FilesRole.MODEL,
        field=SOURCE,
        folder=str(folder),
        source=options.source,
        revision=options.revision,
    )
    return [model, *options.also]


def prepare(thing: EngineFiles, attempts: int) -> None:
    """Return when the files are complete; raises ModelError."""
    folder, shape = Path(thing.folder), SHAPES[thing.role]
    if thing.source is None:
        files.verify(folder, shape, thing.field)
        say(f"the folder {folder} holds {shape.noun}")
    else:
        fetch_from_hub(thing, thing.source, hub_token(os.environ), attempts)
    if thing.highest_rank is not None:
        files.verify_rank(folder, thing.highest_rank, thing.field)


def hub_token(environment: Mapping[str, str]) -> str | None:
    """The token for the hub, None for none; raises ModelError for one that cannot be sent."""
    try:
        return secret_of(environment, ENV_HUB_TOKEN)
    except SecretError as problem:
        raise ModelError(
            Reason.UNAUTHORISED,
            field=TOKEN,
            problem=f"no token was sent, because {problem}",
            fix="mend the entry of the Secret",
        ) from None


def fetch_from_hub(thing: EngineFiles, source: str, token: str | None, attempts: int) -> None:
    """Return when the files have been fetched; raises ModelError."""
    name = hub_name(source)
    if name is None:
        raise ModelError(
            Reason.SOURCE_INVALID,
            field=thing.field,
            problem=f"{source} is not a source that can be fetched",
            fix=f"write {hub_source('organisation/name')}",
        )
    # The hub's client reads these when it is imported. Without them it sends telemetry to the hub.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # A busy hub pauses for longer than the client's ten seconds, after which it would begin again.
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "60")
    from flotilla_runtime.models import fetch
    from flotilla_runtime.models.hub import Repository

    repository = Repository(
        name=name,
        revision=thing.revision,
        token=token,
        field=thing.field,
        shape=SHAPES[thing.role],
    )
    fetch.ensure(repository, Path(thing.folder), fetch.Patience(attempts=attempts), say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or the exit status of the reason."""
    tell_uncaught()
    top = parser()
    options = top.parse_args(arguments)
    if options.source is not None and options.to is None:
        top.error("--source needs --to")
    try:
        for thing in wanted(options):
            prepare(thing, options.attempts)
    except ModelError as failure:
        report(failure, options.termination_log)
        return EXIT_STATUS[failure.reason]
    facts.leave(facts.of_folder(options.verify or options.to), options.termination_log)
    return 0


if __name__ == "__main__":
    sys.exit(main())
