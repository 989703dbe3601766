"""The errors of a local cluster; each message names the part, the problem and what to do.

LocalClusterError
├── MissingPrerequisites   the machine lacks programs, rights or disk space
├── BuildFailed            a tool or an image could not be built
├── NotReady               a part did not answer in time, or ended
└── ApiError               the API server refused a request
"""

from collections.abc import Sequence


class LocalClusterError(Exception):
    """A part of the local cluster failed; `fix` says what the reader can do about it."""

    def __init__(self, *, part: str, problem: str, fix: str) -> None:
        self.part = part
        self.problem = problem
        self.fix = fix
        super().__init__(f"{part}: {problem}\n  {fix}")


class MissingPrerequisites(LocalClusterError):  # noqa: N818
    """The machine lacks prerequisites; the message lists all of them at once."""

    def __init__(self, *, missing: Sequence[str], fix: str) -> None:
        self.missing = tuple(missing)
        super().__init__(part="this machine", problem="these are missing: " + "; ".join(missing), fix=fix)


class BuildFailed(LocalClusterError):  # noqa: N818
    """A tool or image did not build; `problem` ends with the last lines of the build's output."""


class NotReady(LocalClusterError):  # noqa: N818
    """A part ended or did not answer in time; `problem` ends with the last lines of its log."""


class ApiError(LocalClusterError):
    """The API server answered with an error status."""

    def __init__(self, *, method: str, path: str, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(
            part="API server", problem=f"{method} {path}: {status} {message}", fix="See the message above."
        )
