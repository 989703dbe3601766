"""Observations of a fleet: the values that `decide` decides from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.autoscaling.revisions import RevisionsDecision
from flotilla_operator.controllers.agent_fleet.bindings import LiveBinding
from flotilla_operator.controllers.agent_fleet.memory import FleetMemory
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.agent_fleet.remembered import Remembered
from flotilla_operator.controllers.agent_fleet.rollout import RevisionWorkers
from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import DEPLOYMENTS, Manifest
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.agent_fleet import Wiring
from flotilla_operator.workloads.images import Images
from flotilla_runtime import contract


class RedisSecret(StrEnum):
    """The secrets that a managed Redis needs."""

    PASSWORD = "Password"  # noqa: S105 - of its default user
    USERS = "Users"
    EXECUTOR = "Executor"  # the user of tool executors

    def name_of(self, owner: Owner) -> str:
        """The secret's name."""
        match self:
            case RedisSecret.PASSWORD:
                return workloads.redis(owner).name
            case RedisSecret.USERS:
                return workloads.redis_users(owner).name
            case RedisSecret.EXECUTOR:
                return workloads.redis_executor(owner).name

    @classmethod
    def needed(cls, spec: AgentFleetSpec, *, executors_left: bool) -> tuple["RedisSecret", ...]:
        """Those that the fleet needs. Executors of before need their user until they have gone."""
        without = () if executors_left or workloads.has_executors(spec) else (cls.EXECUTOR,)
        return tuple(secret for secret in cls if secret not in without)


OF_A_SECRET = frozenset(
    {
        Reason.SECRET_MISSING,
        Reason.SECRET_KEY_MISSING,
        Reason.SECRET_FOR_ELSEWHERE,
        Reason.SECRET_FOR_OTHERS,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingParts:
    """Missing objects, grouped by the part that needs them."""

    models: tuple[Missing, ...] = ()
    indexes: tuple[Missing, ...] = ()
    tools: tuple[Missing, ...] = ()
    queue: tuple[Missing, ...] = ()
    gateway: tuple[Missing, ...] = ()
    certificate: tuple[Missing, ...] = ()
    workers: tuple[Missing, ...] = ()
    executors: tuple[Missing, ...] = ()

    @property
    def of_secrets(self) -> bool:
        """Whether a secret or an entry is missing. It may appear without an event that wakes the fleet."""
        everything = (
            *self.models,
            *self.indexes,
            *self.tools,
            *self.queue,
            *self.gateway,
            *self.certificate,
            *self.workers,
        )
        return any(problem.reason in OF_A_SECRET for problem in everything)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One observation of a fleet.

    `live` holds the objects that have the names of the fleet's parts, by kind and name, whoever owns them.
    `workers` and `executors` are the fleet's own, by revision; `adopted` is what workers were last told to
    adopt. `scaled` is the last decision of autoscaling. `secrets_found` are those of the managed Redis that
    are there; None when nobody looked for them. `redis_digests` are the hashes of its users' passwords, from
    these, or else as they were when last read. `certificate_problem` is what gateways say of the certificate
    that they mount. `binding` has the name of the gateways' ClusterRoleBinding.
    """

    manifest: Manifest
    owner: Owner
    spec: AgentFleetSpec
    images: Images
    wiring: Wiring
    missing: MissingParts
    remembered: Remembered
    memory: FleetMemory
    figures: contract.FleetStatus | None = None
    certificate_problem: str | None = None
    namespace_uid: str | None = None
    binding: LiveBinding | None = None
    scaled: RevisionsDecision | None = None
    live: Mapping[tuple[str, str], LiveObject] = field(default_factory=dict)
    workers: Mapping[str, RevisionWorkers] = field(default_factory=dict)
    executors: Mapping[str, RevisionWorkers] = field(default_factory=dict)
    adopted: tuple[str, ...] = ()
    secrets_found: frozenset[RedisSecret] | None = None
    redis_digests: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()

    @property
    def revision(self) -> str:
        """The revision that new tasks get.

        Until all that a new one needs is known, that is the one before, if it has workers.
        """
        wanted, before = workloads.revision_of(self.spec), self.remembered.revision
        if self.wiring.complete or before not in self.workers:
            return wanted
        return before or wanted

    @property
    def secrets_needed(self) -> tuple[RedisSecret, ...]:
        """The secrets that a managed Redis of the fleet needs."""
        return RedisSecret.needed(self.spec, executors_left=bool(self.executors))

    @property
    def gateways_are_new(self) -> bool:
        """Whether every gateway gives tasks this revision."""
        gateway = self.part(DEPLOYMENTS.kind, workloads.gateway(self.owner).name)
        return (
            gateway is not None
            and gateway.is_observed
            and gateway.template_annotations.get(contract.LABEL_REVISION) == self.revision
            and gateway.present_replicas == gateway.updated_replicas >= self.spec.gateway.replicas
        )

    @property
    def deleted(self) -> bool:
        return "deletionTimestamp" in self.manifest["metadata"]

    def part(self, kind: str, name: str) -> LiveObject | None:
        """The object of this kind and name, whoever owns it."""
        return self.live.get((kind, name))

    def ready_replicas(self, kind: str, name: str) -> int:
        """How many pods of a Deployment or StatefulSet are ready."""
        found = self.part(kind, name)
        return found.ready_replicas if found is not None else 0
