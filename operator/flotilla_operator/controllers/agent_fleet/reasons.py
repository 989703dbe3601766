"""Every condition of an AgentFleet and every reason it can carry."""

from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions of an AgentFleet, except Ready, Reconciling and Stalled."""

    MODELS_READY = "ModelsReady"
    INDEXES_READY = "IndexesReady"
    TOOLS_READY = "ToolsReady"
    QUEUE_READY = "QueueReady"
    GATEWAY_READY = "GatewayReady"
    WORKERS_READY = "WorkersReady"
    PROGRESSING = "Progressing"
    MEETING_SLO = "MeetingSLO"
    PAUSED = "Paused"


class Reason(StrEnum):
    """Reasons of conditions."""

    VALID = "Valid"
    FIELDS_IGNORED = "FieldsIgnored"

    MODELS_AVAILABLE = "ModelsAvailable"
    MODEL_MISSING = "ModelMissing"
    MODEL_STARTING = "ModelStarting"
    MODEL_WRONG_TASK = "ModelWrongTask"
    MODEL_WITHOUT_PRICE = "ModelWithoutPrice"

    INDEXES_SERVED = "IndexesServed"
    NO_INDEXES = "NoIndexes"
    INDEX_MISSING = "IndexMissing"
    INDEX_BUILDING = "IndexBuilding"
    INDEX_STARTING = "IndexStarting"  # it was built, and cannot be searched yet or at this moment

    FUNCTION_MISSING = "FunctionMissing"
    TOOL_UNREACHABLE = "ToolUnreachable"
    TOOL_MISSING = "ToolMissing"
    TOOL_UNUSABLE = "ToolUnusable"
    EXECUTORS_STARTING = "ExecutorsStarting"
    EXECUTORS_FAIL = "ExecutorsFail"
    TOOLS_AVAILABLE = "ToolsAvailable"
    NO_TOOLS = "NoTools"

    PRIORITY_CLASS_MISSING = "PriorityClassMissing"
    RUNTIME_CLASS_MISSING = "RuntimeClassMissing"
    CLAIM_MISSING = "ClaimMissing"
    CLAIM_FOR_OTHERS = "ClaimForOthers"
    SECRET_MISSING = "SecretMissing"  # noqa: S105
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105
    SECRET_FOR_ELSEWHERE = "SecretForElsewhere"  # noqa: S105
    SECRET_FOR_OTHERS = "SecretForOthers"  # noqa: S105

    REDIS_AVAILABLE = "RedisAvailable"
    REDIS_STARTING = "RedisStarting"
    REDIS_UNREACHABLE = "RedisUnreachable"
    REDIS_TOO_OLD = "RedisTooOld"
    REDIS_EVICTS = "RedisEvicts"
    REDIS_KEEPS_NOTHING = "RedisKeepsNothing"
    REDIS_WITHOUT_LIMIT = "RedisWithoutLimit"
    REDIS_MAY_REPEAT_EFFECTS = "RedisMayRepeatEffects"
    PASSWORD_LOST = "PasswordLost"  # noqa: S105

    GATEWAY_AVAILABLE = "GatewayAvailable"
    GATEWAY_STARTING = "GatewayStarting"
    TOKENS_IN_CLEAR = "TokensInClear"
    CERTIFICATE_UNUSABLE = "CertificateUnusable"

    WORKERS_AVAILABLE = "WorkersAvailable"
    WORKERS_STARTING = "WorkersStarting"
    WORKERS_FAIL = "WorkersFail"
    NO_TASKS = "NoTasks"
    WAITS_FOR_MODELS_AND_INDEXES = "WaitsForModelsAndIndexes"

    SETTLED = "Settled"
    UPDATING = "Updating"
    HANDING_OVER = "HandingOver"

    SLO_KEPT = "Kept"
    SLO_MISSED = "Missed"
    NO_FIGURES = "NoFigures"

    SPEC_PAUSED = "SpecPaused"
