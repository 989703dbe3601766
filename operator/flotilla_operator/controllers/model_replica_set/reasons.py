"""Every reason that a ModelReplicaSet's conditions and events can have.

A condition and an event that mean the same thing have the same reason. Whether a person must act, or time
suffices, is decided where the condition is made.
"""

from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions of a ModelReplicaSet, apart from the summary."""

    SPEC_VALID = "SpecValid"
    PLACED = "Placed"
    ROUTER_READY = "RouterReady"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    SCALING_ACTIVE = "ScalingActive"


class Reason(StrEnum):
    """Reasons of conditions, beside those of trouble with a pod (`TroubleReason`)."""

    VALID = "Valid"
    FIELDS_IGNORED = "FieldsIgnored"
    SECRET_MISSING = "SecretMissing"  # noqa: S105
    SECRET_KEY_MISSING = "SecretKeyMissing"  # noqa: S105
    SECRET_FOR_ELSEWHERE = "SecretForElsewhere"  # noqa: S105
    SECRET_FOR_OTHERS = "SecretForOthers"  # noqa: S105
    CLAIM_MISSING = "ClaimMissing"
    CLAIM_FOR_OTHERS = "ClaimForOthers"
    DEVICE_CLASS_MISSING = "DeviceClassMissing"
    DEVICE_CLASS_NOT_COUNTABLE = "DeviceClassNotCountable"
    DEVICE_ATTRIBUTES_CONTRADICT = "DeviceAttributesContradict"
    PRIORITY_CLASS_MISSING = "PriorityClassMissing"
    RUNTIME_CLASS_MISSING = "RuntimeClassMissing"
    NODE_PATH_NOT_LISTED = "NodePathNotListed"
    NODE_CACHE_MOUNTED = "NodeCacheMounted"
    NO_ROOM_TO_OFFLOAD = "NoRoomToOffload"
    ACCELERATOR_IN_RESOURCES = "AcceleratorInResources"
    MODEL_DOES_NOT_FIT = "ModelDoesNotFit"
    TENSOR_DOES_NOT_DIVIDE_HEADS = "TensorDoesNotDivideHeads"
    SHARED_PREFIX_IGNORED = "SharedPrefixIgnored"
    CANNOT_PREEMPT = "CannotPreempt"
    NAME_TAKEN = "NameTaken"

    ALL_PLACED = "AllPlaced"
    LEFT_TO_SCHEDULER = "LeftToScheduler"
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"
    NO_NODE_CAN_FIT = "NoNodeCanFit"
    BACKING_OFF = "BackingOff"
    NODES_REQUESTED = "NodesRequested"
    NODE_PROVISIONING_TIMED_OUT = "NodeProvisioningTimedOut"

    ROUTER_AVAILABLE = "RouterAvailable"
    ROUTER_STARTING = "RouterStarting"
    REPLICA_UNUSABLE = "ReplicaUnusable"

    REPLICAS_AVAILABLE = "ReplicasAvailable"
    NO_REPLICA_READY = "NoReplicaReady"
    SCALED_TO_ZERO = "ScaledToZero"

    REPLICAS_IGNORED = "ReplicasIgnored"
    NO_FIGURES = "NoFigures"

    SETTLED = "Settled"
    SCALING = "Scaling"
    UPDATING = "Updating"
    ON_TRIAL = "OnTrial"
    UPDATE_WAITS_FOR_ROOM = "UpdateWaitsForRoom"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    MISSES_SLO = "MissesSLO"
    FAILED_ANSWERS = "FailedAnswers"
    ROLLED_BACK = "RolledBack"
    ROLLBACK_REFUSED = "RollbackRefused"
    UPDATE_PAUSED = "UpdatePaused"
    EMPTYING_NODES = "EmptyingNodes"
    REBALANCING = "Rebalancing"
    PAUSED = "Paused"


class EventReason(StrEnum):
    """Reasons of events about single groups, beside those of their endings (`EndingReason`)."""

    GROUP_CREATED = "GroupCreated"
    GROUP_PLACED = "GroupPlaced"
    GROUP_READY = "GroupReady"
    GROUP_DRAINING = "GroupDraining"
    GROUP_RETURNED = "GroupReturned"
    GROUP_REMOVED = "GroupRemoved"
    GROUP_MOVES = "GroupMoves"
    REBALANCED = "Rebalanced"
    REBALANCE_STOPPED = "RebalanceStopped"
    ENGINE_KEY_LOST = "EngineKeyLost"
