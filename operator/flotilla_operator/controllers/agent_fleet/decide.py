"""Decides the next step of a fleet, from what was observed. Pure. The stages, in order:

held?     A deleted fleet decides nothing: its children go with it and a retained claim stays. A paused one
          only reports its status.
password  Made once for a managed Redis. A lost one is made again.
claim     Follows the deletion policy.
gateway   Always, unless Redis cannot be used: it accepts tasks while models and indexes are not ready yet.
workers   Once every model and every index is known: as many as the tasks need.
look      Often where the number of workers can change, so that a fleet without workers sees a new task.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.autoscaling import workers as autoscaling
from flotilla_operator.autoscaling.workers import WorkerMemory, WorkerPolicy, WorkersDecision, WorkerSignals
from flotilla_operator.controllers.agent_fleet.memory import FleetMemory
from flotilla_operator.controllers.agent_fleet.password import PasswordDecision, password_decision
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.claims import ClaimReason, claim_reason
from flotilla_operator.objects.resources import DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract

LOOK_AGAIN_SCALING_SECONDS = 5.0
LOOK_AGAIN_MISSING_SECONDS = 10.0
LOOK_AGAIN_SETTLED_SECONDS = 30.0


class PartReason(StrEnum):
    """Whether the gateway or the workers are written, and why not."""

    WRITTEN = "Written"
    QUEUE_UNUSABLE = "QueueUnusable"
    NOT_WIRED = "NotWired"  # a model, an index or the queue is not known, so workers cannot be configured


class LookReason(StrEnum):
    """What decides when the fleet is looked at again."""

    SCALING = "Scaling"
    MISSING = "Missing"
    SETTLED = "Settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is wanted of a fleet now, and what to remember of it. A paused fleet is only reported on."""

    paused: bool
    password: PasswordDecision
    claim: ClaimReason
    gateway: PartReason
    workers: PartReason
    worker_pods: WorkersDecision
    look: LookReason
    memory: FleetMemory

    @property
    def look_again_seconds(self) -> float:
        match self.look:
            case LookReason.SCALING:
                return LOOK_AGAIN_SCALING_SECONDS
            case LookReason.MISSING:
                return LOOK_AGAIN_MISSING_SECONDS
            case LookReason.SETTLED:
                return LOOK_AGAIN_SETTLED_SECONDS


def decide(observed: Observed, now: datetime) -> Decision | None:
    """The next step of a fleet; None for one that is being deleted."""
    if observed.deleted:
        return None
    password = password_decision(observed, now)
    worker_pods, needs = _worker_pods(observed, now)
    return Decision(
        paused=observed.spec.paused,
        password=password,
        claim=_claim(observed),
        gateway=PartReason.QUEUE_UNUSABLE if observed.problems.queue else PartReason.WRITTEN,
        workers=PartReason.WRITTEN if observed.wiring.complete else PartReason.NOT_WIRED,
        worker_pods=worker_pods,
        look=_look(observed),
        memory=FleetMemory(needs=needs, password=password.seen),
    )


def _claim(observed: Observed) -> ClaimReason:
    """A claim is this fleet's too when a deleted fleet of the same name retained it."""
    owner, redis = observed.owner, observed.spec.queue.redis
    claim = observed.part(PERSISTENT_VOLUME_CLAIMS.kind, workloads.redis(owner).name)
    name = {contract.LABEL_OWNER_KIND: owner.kind, contract.LABEL_OWNER_NAME: owner.name}
    ours = claim is not None and name.items() <= claim.labels.items()
    return claim_reason(claim, owner, retained=redis.deletion_policy is DeletionPolicy.RETAIN, ours=ours)


def _worker_pods(observed: Observed, now: datetime) -> tuple[WorkersDecision, WorkerMemory]:
    workers, figures = observed.spec.workers, observed.figures
    deployment = observed.part(DEPLOYMENTS.kind, workloads.workers(observed.owner).name)
    signals = None
    if figures is not None:
        signals = WorkerSignals(
            waiting=figures.waiting,
            in_flight=figures.in_flight,
            unknown_effects=figures.unknown_effects,
        )
    policy = WorkerPolicy(
        min_replicas=workers.min_replicas,
        max_replicas=workers.max_replicas,
        concurrency=workers.concurrency,
    )
    current = deployment.replicas if deployment is not None else 0
    return autoscaling.decide(signals, policy, observed.memory.needs, current=current, now=now)


def _look(observed: Observed) -> LookReason:
    workers = observed.spec.workers
    if workers.min_replicas < workers.max_replicas and not observed.spec.paused:
        return LookReason.SCALING
    return LookReason.MISSING if observed.problems.any else LookReason.SETTLED
