"""Memory of a set from one reconcile to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flotilla_operator.api.model_replica_set import ModelSize
from flotilla_operator.replicas.backoff import Backoff, RefusedPods
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.moves import Rebalance
from flotilla_operator.replicas.provisioning import Attempts
from flotilla_operator.replicas.revisions.rollout import Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A group that the status lists, and since when it has been in its phase."""

    phase: Phase | None
    since: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """How long a group took from the creation of its leader's pod to a first token."""

    group: str
    revision: str
    ready_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """State that the status keeps. Every field has its value of a new set as default.

    `of_this_spec` is false while the status is about an older spec. `invalid` says that a person must change
    the spec before the set gets pods. `wanted` is the number of replicas that was decided last, and `waiting`
    how many of them had no pods. `more_waiting` says since when groups wait that the status does not list.
    `refusal` is that of the pods that were tried last, as long as groups wait. `startup_seconds` is the
    usual time of a start, and `model` what pods reported of the model.
    """

    of_this_spec: bool = True
    invalid: bool = False
    wanted: int = 0
    waiting: int = 0
    listed: Mapping[str, Listed] = field(default_factory=dict)
    more_waiting: tuple[datetime, ...] = ()
    backoff: Backoff | None = None
    refusal: RefusedPods | None = None
    rollout: Rollout = field(default_factory=Rollout)
    rebalance: Rebalance = field(default_factory=Rebalance)
    attempts: Attempts = field(default_factory=Attempts)
    startup_seconds: float | None = None
    startups: tuple[Startup, ...] = ()
    model: ModelSize | None = None

    @property
    def refused(self) -> bool:
        """Whether the API server refused the pods that were tried last, and would do so again."""
        return self.refusal is not None and self.refusal.lasts

    def has_been_ready(self, revision: str) -> bool:
        """Whether a replica of this revision has been ready since the set was changed to it."""
        return self.rollout.revision == revision and self.rollout.most_ready > 0
