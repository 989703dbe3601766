"""Decides the next step of a fleet, from what was observed. Pure. The stages, in order:

held?     A deleted fleet decides nothing: its children go with it and a retained claim stays. A paused one
          only reports its status.
password  Made once for a managed Redis. A lost one is made again.
claim     Follows the deletion policy.
redis     Its pod is not replaced while a class that the new one names is missing.
gateway   Always, unless Redis cannot be used, its certificate is missing, or its callers' keys are for
          others: it accepts tasks while models and indexes are not ready yet.
rollout   What becomes of the workers of older revisions.
workers   Once every model and every index is known: as many as the tasks of each revision need.
look      Soon while a secret is missing, because secrets are not watched, and while workers of an older
          revision are not ready. At the next deadline of a revision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.autoscaling.revisions import Older, RevisionsDecision, decide_revisions
from flotilla_operator.autoscaling.workers import WorkerMemory, WorkerPolicy, WorkerSignals, at_work
from flotilla_operator.controllers.agent_fleet.executors import decide_executors, executor_facts, is_current
from flotilla_operator.controllers.agent_fleet.memory import FleetMemory
from flotilla_operator.controllers.agent_fleet.password import PasswordDecision, password_decision
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.agent_fleet.rollout import Rollout, RolloutFacts, rollout_of, tasks_of
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.claims import ClaimReason, claim_reason
from flotilla_operator.controllers.secret_reader import LOOK_FOUND_SECONDS, LOOK_MISSING_SECONDS
from flotilla_operator.objects.resources import PERSISTENT_VOLUME_CLAIMS
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract

LOOK_UNREADY_SECONDS = 10.0


class PartReason(StrEnum):
    """Whether Redis, the gateway or the workers are written, and why not."""

    WRITTEN = "Written"
    QUEUE_UNUSABLE = "QueueUnusable"
    CERTIFICATE_MISSING = "CertificateMissing"  # the pods that replace the running ones would not start
    SECRET_FOR_OTHERS = "SecretForOthers"  # noqa: S105 - pods would mount it
    CLASS_MISSING = "ClassMissing"  # admission would refuse the pod that replaces the running one
    NOT_WIRED = "NotWired"  # a model, an index or the queue is not known, so workers cannot be configured


class LookReason(StrEnum):
    """Reason for the time of the next look at the fleet."""

    SECRET_MISSING = "SecretMissing"  # noqa: S105 - no secret
    WORKERS_UNREADY = "WorkersUnready"  # a pod that starts or fails tells no more when its tasks must go over
    REVISION_ENDS = "RevisionEnds"
    SETTLED = "Settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Desired state of a fleet, and the memory to keep of it. A paused fleet is only reported on."""

    paused: bool
    password: PasswordDecision
    claim: ClaimReason
    redis: PartReason
    gateway: PartReason
    workers: PartReason
    rollout: Rollout
    worker_pods: RevisionsDecision
    look: LookReason
    deadline_seconds: float | None
    memory: FleetMemory

    @property
    def look_again_seconds(self) -> float:
        match self.look:
            case LookReason.SECRET_MISSING:
                return LOOK_MISSING_SECONDS
            case LookReason.WORKERS_UNREADY:
                return LOOK_UNREADY_SECONDS
            case LookReason.REVISION_ENDS:
                return min(LOOK_FOUND_SECONDS, self.deadline_seconds or 0.0)
            case LookReason.SETTLED:
                return LOOK_FOUND_SECONDS


def decide(observed: Observed, now: datetime) -> Decision | None:
    """The next step of a fleet; None for one that is being deleted."""
    if observed.deleted:
        return None
    password = password_decision(observed, now)
    rollout = rollout_of(_rollout_facts(observed), now)
    ends = [(one.until - now).total_seconds() for one in rollout.kept]
    return Decision(
        paused=observed.spec.paused,
        password=password,
        claim=_claim(observed),
        redis=PartReason.CLASS_MISSING if observed.missing.queue else PartReason.WRITTEN,
        gateway=_gateway(observed),
        workers=PartReason.WRITTEN if observed.wiring.complete else PartReason.NOT_WIRED,
        rollout=rollout,
        worker_pods=_worker_pods(observed, rollout, now),
        look=_look(observed, rollout),
        deadline_seconds=max(0.0, min(ends)) if ends else None,
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
    if any(missing.reason is Reason.SECRET_FOR_OTHERS for missing in observed.missing.gateway):
        return PartReason.SECRET_FOR_OTHERS
    return PartReason.CERTIFICATE_MISSING if observed.missing.certificate else PartReason.WRITTEN


def _rollout_facts(observed: Observed) -> RolloutFacts:
    return RolloutFacts(
        revision=observed.revision,
        workers=observed.workers,
        since=observed.remembered.older_since,
        figures=observed.figures,
        deadline_seconds=observed.spec.update.deadline_seconds,
        gateways_are_new=observed.gateways_are_new,
        adopted=observed.adopted,
    )


def _worker_pods(observed: Observed, rollout: Rollout, now: datetime) -> RevisionsDecision:
    """The last decision of the steering loop, made again if the spec or the revisions have changed since."""
    policy, last = policy_of(observed.spec), observed.scaled
    kept = {one.revision for one in rollout.kept}
    facts = executor_facts(observed.spec, observed.figures, rollout, observed.executors)
    same_spec = last is not None and (last.policy, last.revision) == (policy, rollout.revision)
    if last is not None and same_spec and set(last.older) == kept and is_current(last.executors, facts):
        return last
    executors, _ = decide_executors(facts, WorkerMemory(), now)
    decision, _ = decide_revisions(
        signals_of(observed.figures, rollout),
        policy,
        WorkerMemory(),
        revision=rollout.revision,
        current=current_workers(observed),
        older=older_of(observed.figures, rollout),
        now=now,
    )
    return replace(decision, executors=executors)


def policy_of(spec: AgentFleetSpec) -> WorkerPolicy:
    """The fleet's `workers`."""
    return WorkerPolicy(
        min_replicas=spec.workers.min_replicas,
        max_replicas=spec.workers.max_replicas,
        concurrency=spec.workers.concurrency,
    )


def current_workers(observed: Observed) -> int:
    """How many workers the Deployment of the revision in force was told to run; none before it is there."""
    workers = observed.workers.get(observed.revision)
    return workers.deployment.replicas if workers is not None else 0


def older_of(figures: contract.FleetStatus | None, rollout: Rollout) -> Sequence[Older]:
    """The older revisions whose tasks have workers of their own, the oldest first."""
    return [
        Older(
            revision=one.revision,
            current=one.workers.deployment.replicas,
            tasks=busy_tasks(figures, one.revision),
        )
        for one in reversed(rollout.kept)
    ]


def busy_tasks(figures: contract.FleetStatus | None, revision: str) -> int | None:
    """The tasks of a revision that need a worker now; None while nobody says."""
    found = tasks_of(figures, revision)
    return None if found is None else at_work(found.waiting, found.running, admitted_of(figures))


def admitted_of(figures: contract.FleetStatus | None) -> int | None:
    """How many tasks of the fleet may be at work, as its gateways say; None is any number."""
    return None if figures is None or figures.admission is None else figures.admission.most


def signals_of(figures: contract.FleetStatus | None, rollout: Rollout) -> WorkerSignals | None:
    """Return the load of the revision in force, without tasks of older revisions' own workers."""
    if figures is None:
        return None
    own = [found for one in rollout.kept if (found := tasks_of(figures, one.revision)) is not None]
    running, admitted = sum(tasks.running for tasks in own), admitted_of(figures)
    return WorkerSignals(
        admitted=None if admitted is None else max(0, admitted - running),
        waiting=max(0, figures.waiting - sum(tasks.waiting for tasks in own)),
        in_flight=max(0, figures.in_flight - running),
    )


def _look(observed: Observed, rollout: Rollout) -> LookReason:
    if observed.missing.of_secrets:
        return LookReason.SECRET_MISSING
    if any(pod.unready_since is not None for one in rollout.kept for pod in one.workers.pods):
        return LookReason.WORKERS_UNREADY
    return LookReason.REVISION_ENDS if rollout.kept else LookReason.SETTLED
