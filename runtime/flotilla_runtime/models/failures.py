"""The errors of fetching and checking a model's files.

ModelError
  has reason, field, problem and fix; its text is one line
  └── TransientError   may end by itself: the network, a hub that is busy
"""

import sys
from enum import StrEnum
from pathlib import Path

SOURCE = "spec.model.source"
REVISION = "spec.model.revision"
TOKEN = "spec.model.tokenSecretRef"  # noqa: S105 - the name of a field
CACHE = "spec.modelCache"


class Reason(StrEnum):
    """Why a model's files cannot be used; the message begins with the reason."""

    SOURCE_INVALID = "SourceInvalid"
    REPOSITORY_MISSING = "RepositoryMissing"
    REVISION_MISSING = "RevisionMissing"
    UNAUTHORISED = "Unauthorised"
    NOT_A_MODEL = "NotAModel"
    NOT_AN_ADAPTER = "NotAnAdapter"
    RANK_TOO_HIGH = "RankTooHigh"
    DOWNLOAD_FAILED = "DownloadFailed"
    DISK_FULL = "DiskFull"
    FOLDER_MISSING = "FolderMissing"
    FOLDER_EMPTY = "FolderEmpty"
    FOLDER_UNREADABLE = "FolderUnreadable"
    INCOMPLETE = "Incomplete"
    FOLDER_UNWRITABLE = "FolderUnwritable"
    FOLDER_FAILED = "FolderFailed"
    FOLDER_LINKED = "FolderLinked"
    LISTING_REFUSED = "ListingRefused"


EXIT_STATUS = {reason: number for number, reason in enumerate(Reason, start=10)}


class ModelError(Exception):
    """The files cannot be used; `field` is the field of the ModelReplicaSet to change."""

    def __init__(self, reason: Reason, *, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{reason}: {problem}; {fix} ({field})")
        self.reason = reason
        self.field = field
        self.problem = problem
        self.fix = fix


class TransientError(ModelError):
    """An error after which another attempt can succeed."""


def report(failure: ModelError, termination_log: Path) -> None:
    """Write the failure to the log and to the container's termination message."""
    sys.stderr.write(f"{failure}\n")
    try:
        with termination_log.open("w") as log:
            log.write(str(failure))
    except OSError:
        return
