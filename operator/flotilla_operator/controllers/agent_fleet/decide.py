"""Decides the next step of a fleet, from what was observed. Pure. The stages, in order:

held?     A deleted fleet decides nothing: its children go with it and a retained claim stays. A paused one
          only reports its status.
password  Made once for a managed Redis. A lost one is made again.
claim     Follows the deletion policy.
redis     Its pod is not replaced while a class that the new one names is missing.
gateway   Always, unless Redis cannot be used or its certificate is missing: it accepts tasks while models and
          indexes are not ready yet.
workers   Once every model and every index is known: as many as the tasks need.
look      Soon while a secret is missing: secrets are not watched.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.autoscaling import workers as autoscaling
from flotilla_operator.autoscaling.workers import WorkerMemory, WorkerPolicy, WorkersDecision, WorkerSignals
from flotilla_operator.controllers.agent_fleet.memory import FleetMemory
from flotilla_operator.controllers.agent_fleet.password import PasswordDecision, password_decision
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.claims import ClaimReason, claim_reason
from flotilla_operator.controllers.secret_reader import LOOK_FOUND_SECONDS, LOOK_MISSING_SECONDS
from flotilla_operator.objects.resources import DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract


class PartReason(StrEnum):
    """Whether Redis, the gateway or the workers are written, and why not."""

    WRITTEN = "Written"
    QUEUE_UNUSABLE = "QueueUnusable"
    CERTIFICATE_MISSING = "CertificateMissing"  # the pods that replace the running ones would not start
    CLASS_MISSING = "ClassMissing"  # admission would refuse the pod that replaces the running one
    NOT_WIRED = "NotWired"  # a model, an index or the queue is not known, so workers cannot be configured


class LookReason(StrEnum):
    """What decides when the fleet is looked at again."""

    SECRET_MISSING = "SecretMissing"  # noqa: S105 - no secret
    SETTLED = "Settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is wanted of a fleet now, and what to remember of it. A paused fleet is only reported on."""

    paused: bool
    password: PasswordDecision
    claim: ClaimReason
    redis: PartReason
    gateway: PartReason
    workers: PartReason
    worker_pods: WorkersDecision
    look: LookReason
    memory: FleetMemory

    @property
    def look_again_seconds(self) -> float:
        match self.look:
            case LookReason.SECRET_MISSING:
                return LOOK_MISSING_SECONDS
            case LookReason.SETTLED:
                return LOOK_FOUND_SECONDS


def decide(observed: Observed, now: datetime) -> Decision | None:
    """The next step of a fleet; None for one that is being deleted."""
    if observed.deleted:
        return None
    password = password_decision(observed, now)
    return Decision(
        paused=observed.spec.paused,
        password=password,
        claim=_claim(observed),
        redis=PartReason.CLASS_MISSING if observed.missing.queue else PartReason.WRITTEN,
        gateway=_gateway(observed),
        workers=PartReason.WRITTEN if observed.wiring.complete else PartReason.NOT_WIRED,
        worker_pods=_worker_pods(observed, now),
        look=_look(observed),
        memory=FleetMemory(password=password.seen),
    )


def _claim(observed: Observed) -> ClaimReason:
    """A claim is this fleet's too when a deleted fleet of the same name retained it."""
    owner, redis = observed.owner, observed.spec.queue.redis
    claim = observed.part(PERSISTENT_VOLUME_CLAIMS.kind, workloads.redis(owner).name)
    name = {contract.LABEL_OWNER_KIND: owner.kind, contract.LABEL_OWNER_NAME: owner.name}
    ours = claim is not None and name.items() <= claim.labels.items()
    return claim_reason(claim, owner, retained=redis.deletion_policy is DeletionPolicy.RETAIN, ours=ours)


def _gateway(observed: Observed) -> PartReason:
    if observed.missing.queue:
        return PartReason.QUEUE_UNUSABLE
    return PartReason.CERTIFICATE_MISSING if observed.missing.certificate else PartReason.WRITTEN


def _worker_pods(observed: Observed, now: datetime) -> WorkersDecision:
    """The last decision of the steering loop, made again if the spec has changed since."""
    policy, last = policy_of(observed.spec), observed.scaled
    if last is not None and last.policy == policy:
        return last
    signals = last.signals if last is not None else None
    current = current_workers(observed)
    return autoscaling.decide(signals, policy, WorkerMemory(), current=current, now=now)[0]


def policy_of(spec: AgentFleetSpec) -> WorkerPolicy:
    """The fleet's `workers`."""
    return WorkerPolicy(
        min_replicas=spec.workers.min_replicas,
        max_replicas=spec.workers.max_replicas,
        concurrency=spec.workers.concurrency,
    )


def current_workers(observed: Observed) -> int:
    """How many workers the Deployment has been told to run; none before it is there."""
    deployment = observed.part(DEPLOYMENTS.kind, workloads.workers(observed.owner).name)
    return deployment.replicas if deployment is not None else 0


def signals_of(figures: contract.FleetStatus) -> WorkerSignals:
    """What the gateway reports, as input of the decision."""
    return WorkerSignals(
        waiting=figures.waiting, in_flight=figures.in_flight, unknown_effects=figures.unknown_effects
    )


def _look(observed: Observed) -> LookReason:
    return LookReason.SECRET_MISSING if observed.missing.of_secrets else LookReason.SETTLED
