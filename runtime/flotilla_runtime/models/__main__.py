"""`python -m flotilla_runtime.models`: fetch a model (`--source --to`) or check a folder (`--verify`), and
then whatever else the engine reads (`--also`, once for each thing, as JSON of `contract.EngineFiles`).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flotilla_runtime.contract import EngineFiles, FilesRole
from flotilla_runtime.models import facts, files
from flotilla_runtime.models.failures import EXIT_STATUS, SOURCE, ModelError, Reason
from flotilla_runtime.models.shapes import SHAPES

SCHEME = "hf://"
TERMINATION_LOG = Path("/dev/termination-log")
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 - the name of a variable


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser(prog="python -m flotilla_runtime.models", description=__doc__)
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", help="hf://organisation/name; HF_ENDPOINT and HF_TOKEN are obeyed")
    what.add_argument("--verify", type=Path, help="a folder that must hold a model")
    arguments.add_argument("--revision", help="a branch, a tag or a commit")
    arguments.add_argument("--to", type=Path, help="where the model's files go")
    arguments.add_argument("--also", type=EngineFiles.model_validate_json, action="append", default=[])
    arguments.add_argument("--attempts", type=int, default=6)
    arguments.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    return arguments


def say(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wanted(options: argparse.Namespace) -> list[EngineFiles]:
    """Everything that the arguments name, the model first."""
    folder = options.to if options.verify is None else options.verify
    model = EngineFiles(
        role=FilesRole.MODEL,
        field=SOURCE,
        folder=str(folder),
        source=options.source,
        revision=options.revision,
    )
    return [model, *options.also]


def prepare(thing: EngineFiles, token: str | None, attempts: int) -> None:
    """Return when the files are there; raises ModelError."""
    folder, shape = Path(thing.folder), SHAPES[thing.role]
    if thing.source is None:
        files.verify(folder, shape, thing.field)
        say(f"{folder} holds {shape.noun}")
    else:
        fetch_from_hub(thing, thing.source, token, attempts)
    if thing.highest_rank is not None:
        files.verify_rank(folder, thing.highest_rank, thing.field)


def fetch_from_hub(thing: EngineFiles, source: str, token: str | None, attempts: int) -> None:
    """Return when the files have been fetched; raises ModelError."""
    if not source.startswith(SCHEME):
        raise ModelError(
            Reason.SOURCE_INVALID,
            field=thing.field,
            problem=f"{source} cannot be fetched",
            fix=f"write {SCHEME}organisation/name",
        )
    # The hub's client reads these when it is imported; it would otherwise report to the hub where it runs.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from flotilla_runtime.models import fetch
    from flotilla_runtime.models.hub import Repository

    repository = Repository(
        name=source.removeprefix(SCHEME),
        revision=thing.revision,
        token=token,
        field=thing.field,
        shape=SHAPES[thing.role],
    )
    fetch.ensure(repository, Path(thing.folder), fetch.Patience(attempts=attempts), say)


def report(failure: ModelError, termination_log: Path) -> None:
    """Say what is wrong where people look: the log, and the container's termination message."""
    sys.stderr.write(f"{failure}\n")
    try:
        with termination_log.open("w") as log:
            log.write(str(failure))
    except OSError:
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or one for each reason."""
    top = parser()
    options = top.parse_args(arguments)
    if options.source is not None and options.to is None:
        top.error("--source needs --to")
    try:
        for thing in wanted(options):
            prepare(thing, os.environ.get(TOKEN_VARIABLE) or None, options.attempts)
    except ModelError as failure:
        report(failure, options.termination_log)
        return EXIT_STATUS[failure.reason]
    facts.leave(facts.of_folder(options.verify or options.to), options.termination_log)
    return 0


if __name__ == "__main__":
    sys.exit(main())
