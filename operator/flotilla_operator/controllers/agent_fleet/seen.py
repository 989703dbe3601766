"""What was observed of a fleet: the values that `plan` judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.autoscaling.workers import WorkersDecision
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.conditions import MendedBy
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.agent_fleet import Wiring
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Owner
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why something the fleet rests on cannot be used yet."""

    reason: Reason
    message: str
    mended_by: MendedBy = MendedBy.TIME


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """What is wrong, by the condition it belongs to."""

    models: tuple[Problem, ...] = ()
    indexes: tuple[Problem, ...] = ()
    queue: tuple[Problem, ...] = ()
    gateway: tuple[Problem, ...] = ()

    @property
    def any(self) -> bool:
        """Whether something is missing that may appear without an event of its own."""
        return bool(self.models or self.indexes or self.queue or self.gateway)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One look at a fleet.

    `live` holds what stands at the names of the fleet's objects, by kind and name. `new_password` is there
    when the password of the managed Redis must be made; `password_lost_at` too when a Redis was there before,
    which goes on with a password that nobody else has.
    """

    manifest: Manifest
    owner: Owner
    spec: AgentFleetSpec
    images: Images
    wiring: Wiring
    problems: Problems
    decision: WorkersDecision
    figures: contract.FleetStatus | None = None
    live: Mapping[tuple[str, str], Manifest] = field(default_factory=dict)
    new_password: str | None = field(default=None, repr=False)
    password_lost_at: datetime | None = None
    targets: tuple[Target, ...] = ()

    def ready_replicas(self, kind: str, name: str) -> int:
        """How many pods of a Deployment or StatefulSet are ready."""
        status = self.live.get((kind, name), {}).get("status") or {}
        return int(status.get("readyReplicas") or 0)
