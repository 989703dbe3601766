"""What was observed of a fleet: the values that `decide` decides from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.autoscaling.workers import WorkersDecision
from flotilla_operator.controllers.agent_fleet.memory import FleetMemory
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.agent_fleet.remembered import Remembered
from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.agent_fleet import Wiring
from flotilla_operator.workloads.images import Images
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingParts:
    """What is missing, grouped by what needs it."""

    models: tuple[Missing, ...] = ()
    indexes: tuple[Missing, ...] = ()
    queue: tuple[Missing, ...] = ()
    gateway: tuple[Missing, ...] = ()
    certificate: tuple[Missing, ...] = ()
    workers: tuple[Missing, ...] = ()

    @property
    def of_secrets(self) -> bool:
        """Whether a secret or an entry is missing. It may appear without an event that wakes the fleet."""
        everything = (*self.models, *self.indexes, *self.queue, *self.gateway, *self.certificate)
        of_a_secret = (Reason.SECRET_MISSING, Reason.SECRET_KEY_MISSING, Reason.SECRET_FOR_ELSEWHERE)
        return any(problem.reason in of_a_secret for problem in everything)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One observation of a fleet.

    `live` holds the objects that have the names of the fleet's parts, by kind and name, whoever owns them.
    `scaled` is the last decision of autoscaling. `password_found` says whether the Secret of the managed
    Redis is there; None when nobody looked for it. `certificate_problem` is what gateways say of the
    certificate that they mount.
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
    scaled: WorkersDecision | None = None
    live: Mapping[tuple[str, str], LiveObject] = field(default_factory=dict)
    password_found: bool | None = None
    targets: tuple[Target, ...] = ()

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
