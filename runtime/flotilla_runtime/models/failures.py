"""What can be wrong with a model's files.

ModelError
  carries reason, field, problem and fix; its text is one line
  └── TransientError   may pass by itself: the network, a hub that is busy
"""

from enum import StrEnum

SOURCE = "spec.model.source"
REVISION = "spec.model.revision"
TOKEN = "spec.model.tokenSecretRef"  # noqa: S105 - the name of a field
CACHE = "spec.modelCache"


class Reason(StrEnum):
    """One word for each way to fail; the message begins with it."""

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


EXIT_STATUS = {reason: number for number, reason in enumerate(Reason, start=10)}


class ModelError(Exception):
    """The files cannot be served; `field` of the ModelReplicaSet is where to mend it."""

    def __init__(self, reason: Reason, *, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{reason}: {problem}; {fix} ({field})")
        self.reason = reason
        self.field = field
        self.problem = problem
        self.fix = fix


class TransientError(ModelError):
    """Worth another attempt."""
