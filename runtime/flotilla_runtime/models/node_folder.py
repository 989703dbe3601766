"""`python -m flotilla_runtime.models.node_folder`: makes a set's part of a folder of the node.

Root runs it, with one capability (CHOWN) and without any variable of the user's. It is the only container
that has the whole folder of the node; all others have their own folder in it. So it follows no symbolic
links, and the folders above the last one stay root's: whoever fills the last one cannot exchange it.
"""

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from flotilla_runtime import contract
from flotilla_runtime.models.failures import CACHE, EXIT_STATUS, ModelError, Reason, report

PROGRAM = "python -m flotilla_runtime.models.node_folder"
FIELD = f"{CACHE}.path"
MODE_ABOVE = 0o755
MODE_OWN = 0o700
WRITABLE_BY_OTHERS = 0o022
OPENED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make(top: Path, folder: str, owner: int) -> None:
    """Make a folder below `top`, for this user and group; raises ModelError.

    A folder that is there already stays, with everything in it.
    """
    *above, own = folder.split("/")
    if {"", ".", ".."} & {*above, own}:
        raise _refused(folder, "leads elsewhere")
    here = os.open(top, OPENED)
    try:
        for name in above:
            below = _opened(here, name)
            os.close(here)
            here = below
        _own(here, own, owner)
    except OSError as failed:
        raise _refused(failed.filename or folder, f"cannot be made: {failed.strerror}") from failed
    finally:
        os.close(here)


def _opened(here: int, name: str) -> int:
    """A folder that only this user can change, made if it is missing."""
    _make(here, name, MODE_ABOVE)
    opened = os.open(name, OPENED, dir_fd=here)
    found = os.fstat(opened)
    if found.st_uid != os.geteuid() or found.st_mode & WRITABLE_BY_OTHERS:
        os.close(opened)
        raise _refused(name, "can be changed by others than root")
    return opened


def _own(here: int, name: str, owner: int) -> None:
    _make(here, name, MODE_OWN)
    found = os.stat(name, dir_fd=here, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(name, "is no folder")
    if found.st_uid not in (owner, os.geteuid()):
        raise _refused(name, f"belongs to user {found.st_uid}")
    if found.st_uid != owner:
        os.chown(name, owner, owner, dir_fd=here, follow_symlinks=False)


def _make(here: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, mode, dir_fd=here)
    except FileExistsError:
        return


def _refused(name: str, problem: str) -> ModelError:
    return ModelError(
        Reason.FOLDER_FAILED,
        field=FIELD,
        problem=f"{name} in the folder of the node {problem}",
        fix="the folder of the node must be root's, and what is in it must come from Flotilla alone",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or the exit status of the reason."""
    parser = argparse.ArgumentParser(
        prog="python -m flotilla_runtime.models.node_folder", description=__doc__
    )
    parser.add_argument("--top", type=Path, required=True, help="where the folder of the node is mounted")
    parser.add_argument("--folder", required=True, help="the folder to make below it")
    parser.add_argument("--owner", type=int, required=True, help="the user, and the group, that it is for")
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=Path(contract.TERMINATION_LOG_PATH),
        help="the file for errors",
    )
    options = parser.parse_args(arguments)
    os.umask(WRITABLE_BY_OTHERS)
    try:
        make(options.top, options.folder, options.owner)
    except ModelError as failure:
        report(failure, options.termination_log)
        return EXIT_STATUS[failure.reason]
    return 0


if __name__ == "__main__":
    sys.exit(main())
