"""`python -m flotilla_runtime.models`: fetch a model (`--source --to`) or check a folder (`--verify`)."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flotilla_runtime.models import facts, files
from flotilla_runtime.models.failures import EXIT_STATUS, SOURCE, ModelError, Reason

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
    arguments.add_argument("--attempts", type=int, default=6)
    arguments.add_argument("--termination-log", type=Path, default=TERMINATION_LOG)
    return arguments


def say(line: str) -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def prepare(options: argparse.Namespace, token: str | None) -> None:
    """Do what the arguments ask for; raises ModelError."""
    if options.verify is not None:
        files.verify(options.verify)
        say(f"{options.verify} holds a model")
        return
    if not options.source.startswith(SCHEME):
        raise ModelError(
            Reason.SOURCE_INVALID,
            field=SOURCE,
            problem=f"{options.source} cannot be fetched",
            fix=f"write {SCHEME}organisation/name",
        )
    # The hub's client reads these when it is imported; it would otherwise report to the hub where it runs.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from flotilla_runtime.models import fetch
    from flotilla_runtime.models.hub import Repository

    name = options.source.removeprefix(SCHEME)
    repository = Repository(name=name, revision=options.revision, token=token)
    fetch.ensure(repository, options.to, fetch.Patience(attempts=options.attempts), say)


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
        prepare(options, os.environ.get(TOKEN_VARIABLE) or None)
    except ModelError as failure:
        report(failure, options.termination_log)
        return EXIT_STATUS[failure.reason]
    facts.leave(facts.of_folder(options.verify or options.to), options.termination_log)
    return 0


if __name__ == "__main__":
    sys.exit(main())
