"""Every condition, reason, event and build step of a VectorIndex.

The reasons that builds report are in `BuildReason`.
"""

from enum import StrEnum

from flotilla_runtime.contract import BuildStep

# The steps of a build in their order, as conditions, events and `status.stages` name them.
STEP_NAMES = {BuildStep.PLAN: "Plan", BuildStep.SHARDS: "Index", BuildStep.PROMOTE: "Promote"}


class ConditionType(StrEnum):
    """The conditions of a VectorIndex, except Ready, Reconciling and Stalled."""

    SPEC_VALID = "SpecValid"
    SOURCE_REACHABLE = "SourceReachable"
    EMBEDDER_READY = "EmbedderReady"
    MILVUS_READY = "MilvusReady"
    BUILT = "Built"
    VALIDATED = "Validated"
    RETRIEVER_READY = "RetrieverReady"


class Reason(StrEnum):
    """Reasons of conditions."""

    VALID = "Valid"
    FIELDS_IGNORED = "FieldsIgnored"
    PAUSED = "Paused"
    NAME_TAKEN = "NameTaken"
    PRIORITY_CLASS_MISSING = "PriorityClassMissing"
    RUNTIME_CLASS_MISSING = "RuntimeClassMissing"
    SECRET_MISSING = "SecretMissing"  # noqa: S105
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105
    SECRET_FOR_ELSEWHERE = "SecretForElsewhere"  # noqa: S105
    SECRET_FOR_OTHERS = "SecretForOthers"  # noqa: S105

    CLAIM_MISSING = "ClaimMissing"
    CLAIM_FOR_OTHERS = "ClaimForOthers"
    CONFIG_MAP_MISSING = "ConfigMapMissing"
    SOURCE_NOT_LOOKED_AT = "SourceNotLookedAt"
    DOCUMENTS_FOUND = "DocumentsFound"

    MODEL_MISSING = "ModelMissing"
    MODEL_INVALID = "ModelInvalid"
    WRONG_TASK = "WrongTask"
    MODEL_NOT_AVAILABLE = "ModelNotAvailable"
    MODEL_AVAILABLE = "ModelAvailable"

    MILVUS_IMAGE_MISSING = "MilvusImageMissing"
    MILVUS_STARTING = "MilvusStarting"
    MILVUS_AVAILABLE = "MilvusAvailable"
    MILVUS_EXTERNAL = "MilvusExternal"

    WAITING = "Waiting"
    BUILDING = "Building"
    REPORT_LOST = "ReportLost"
    UP_TO_DATE = "UpToDate"

    NOT_BUILT = "NotBuilt"
    PASSED = "Passed"

    RETRIEVER_STARTING = "RetrieverStarting"
    RETRIEVER_AVAILABLE = "RetrieverAvailable"


class EventReason(StrEnum):
    """Reasons of events."""

    BUILD_STARTED = "BuildStarted"
    BUILD_STEP_STARTED = "BuildStepStarted"
    GENERATION_PROMOTED = "GenerationPromoted"
    CLEANUP_DONE = "CleanupDone"
    CLEANUP_INCOMPLETE = "CleanupIncomplete"


class Phase(StrEnum):
    """`status.phase`."""

    PENDING = "Pending"
    BUILDING = "Building"
    VALIDATING = "Validating"
    PROMOTING = "Promoting"
    READY = "Ready"
    DEGRADED = "Degraded"
    DELETING = "Deleting"
