"""Reasons why a replica makes no progress, and the times after which a start is slow."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from flotilla_operator.objects.times import timestamp


class TroubleReason(StrEnum):
    """Why a pod makes no progress."""

    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    MODEL_FETCH_FAILED = "ModelFetchFailed"
    ENGINE_CRASHING = "EngineCrashing"
    ROUTER_CRASHING = "RouterCrashing"
    ENGINE_SLOW_TO_START = "EngineSlowToStart"
    POD_SETUP_SLOW = "PodSetupSlow"
    UNSCHEDULABLE = "Unschedulable"


# The kubelet keeps trying, but this trouble seldom passes by itself, so it becomes a warning. What keeps a
# stage from starting comes first, because the engines that wait for that stage then crash too.
FOR_A_PERSON = (
    TroubleReason.IMAGE_PULL_FAILED,
    TroubleReason.CONTAINER_CONFIG_ERROR,
    TroubleReason.MODEL_FETCH_FAILED,
    TroubleReason.ENGINE_CRASHING,
    TroubleReason.ROUTER_CRASHING,
)
ENGINE = "engine"  # the engine's container
START_WITHIN_SECONDS = 1800  # loading 140 GB of weights from a cold disk takes about twenty minutes
SLOW_SETUP = timedelta(minutes=2)  # a cloud disk is attached within one minute
SLOW_START = timedelta(minutes=10)  # where no start of the set has been measured
SLOW_START_AT_LEAST = timedelta(minutes=5)
SLOW_TIMES_USUAL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Reason why a group's pod makes no progress."""

    reason: TroubleReason
    message: str

    @property
    def rank(self) -> int:
        """The order of importance, lowest first. Trouble that passes by itself comes last."""
        return FOR_A_PERSON.index(self.reason) if self.reason in FOR_A_PERSON else len(FOR_A_PERSON)


def slow_setup(pod_name: str, since: datetime | None, now: datetime) -> Trouble | None:
    """A pod whose volumes or network have not been ready since then. Only the pod's events say why."""
    if since is None or now - since < SLOW_SETUP:
        return None
    message = (
        f"its volumes or its network have not been ready since {timestamp(since)}; "
        f"see kubectl describe pod {pod_name}"
    )
    return Trouble(reason=TroubleReason.POD_SETUP_SLOW, message=message)


def slow_start(since: datetime | None, usual_seconds: float | None, now: datetime) -> Trouble | None:
    """An engine that has run since then without a first answer, for much longer than others of its set."""
    usual = None if usual_seconds is None else timedelta(seconds=usual_seconds)
    slow_after = SLOW_START if usual is None else max(SLOW_START_AT_LEAST, SLOW_TIMES_USUAL * usual)
    if since is None or now - since < slow_after:
        return None
    others = "" if usual is None else f"; other replicas of the set needed {usual.total_seconds():.0f} s"
    message = (
        f"container {ENGINE} has run since {timestamp(since)} without giving a first answer{others}; "
        f"the kubelet restarts it {START_WITHIN_SECONDS} s after its start"
    )
    return Trouble(reason=TroubleReason.ENGINE_SLOW_TO_START, message=message)
