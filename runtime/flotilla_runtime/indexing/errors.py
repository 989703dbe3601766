"""The errors of a build; the reasons of both are closed lists.

    BuildError         the step cannot continue; the operator shows its reason and message in a condition
    DocumentError      one document cannot be indexed: it becomes a dead letter, and the build continues

A build error with a reason in `PERMANENT` needs a person; for every other reason another try can help.
"""

from enum import StrEnum

from flotilla_runtime.contract import BuildReason

PERMANENT = frozenset(
    {
        BuildReason.PATH_MISSING,
        BuildReason.SOURCE_EMPTY,
        BuildReason.SOURCE_UNREADABLE,
        BuildReason.EMBEDDER_UNAUTHORIZED,
        BuildReason.MODEL_UNKNOWN,
        BuildReason.DIMENSION_MISMATCH,
        BuildReason.CHUNKS_TOO_LONG,
        BuildReason.SECRET_UNUSABLE,
        BuildReason.TOO_MANY_DEAD_LETTERS,
    }
)


class BuildError(Exception):
    """A step cannot continue."""

    def __init__(self, reason: BuildReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    @property
    def permanent(self) -> bool:
        """Whether another try is useless until a person changes something."""
        return self.reason in PERMANENT


class DocumentReason(StrEnum):
    """Why a document is a dead letter."""

    EMPTY = "Empty"
    TOO_LARGE = "TooLarge"
    BAD_NAME = "BadName"
    OUTSIDE_SOURCE = "OutsideSource"
    UNREADABLE = "Unreadable"
    UNSUPPORTED = "Unsupported"
    WRONG_ENCODING = "WrongEncoding"
    BROKEN = "Broken"
    ENCRYPTED = "Encrypted"
    NO_TEXT = "NoText"
    PARSER_TIMED_OUT = "ParserTimedOut"
    PARSER_CRASHED = "ParserCrashed"
    PARSER_OUT_OF_MEMORY = "ParserOutOfMemory"
    EMBEDDER_REFUSED = "EmbedderRefused"


class DocumentError(Exception):
    """One document cannot be indexed."""

    def __init__(self, reason: DocumentReason, message: str) -> None:
        super().__init__(reason, message)  # both as arguments, so it survives pickling between processes
        self.reason = reason
        self.message = message
