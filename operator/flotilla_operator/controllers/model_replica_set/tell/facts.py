"""Facts that the conditions of a set are judged from, and words about its replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.controllers.chains import Finding
from flotilla_operator.controllers.conditions import MendedBy
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.placement import Refusal
from flotilla_operator.replicas.asking import Asking
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.leaving.turnover import Turnover
from flotilla_operator.replicas.moves import Move
from flotilla_operator.replicas.revisions.rollout import Rollout
from flotilla_operator.replicas.trouble import FOR_A_PERSON, Trouble, TroubleReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The input of the conditions.

    `wanted` is the number of replicas that is in force. `live` are the groups that count as replicas.
    `unusable` are their pods to which routers send nothing, each with the problem.
    """

    spec: ModelReplicaSetSpec
    wanted: int
    ignored: Sequence[str]
    missing: tuple[Missing, ...]
    names_taken: tuple[str, ...]
    routers_ready: int
    router_trouble: Trouble | None
    live: tuple[ReplicaGroup, ...]
    waiting: int
    refusal: Refusal | None
    turnover: Turnover
    backoff: Backoff | None
    rollout: Rollout
    asking: Asking | None = None
    move: Move | None = None
    scaling: ZeroDecision | None = None
    ignored_prefix: str | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)

    @property
    def ready(self) -> int:
        """How many groups serve."""
        return sum(group.phase is Phase.READY for group in self.live)

    @property
    def trouble(self) -> tuple[ReplicaGroup, Trouble] | None:
        """A group with trouble, and the trouble; trouble that a person must end comes first."""
        troubled = [(group, group.trouble) for group in self.live if group.trouble is not None]
        return min(troubled, key=lambda found: found[1].rank, default=None)


def of_trouble(reason: Reason | TroubleReason, message: str) -> Finding:
    """An objection that a person must mend where the trouble seldom passes by itself."""
    mended_by = MendedBy.PERSON if reason in FOR_A_PERSON else MendedBy.TIME
    return Finding(reason=reason, message=message, mended_by=mended_by)


def ready_of_wanted(facts: Facts) -> str:
    """How many of the wanted replicas serve, in words."""
    return f"{facts.ready} of {facts.wanted} replicas are ready"


def replicas(count: int) -> str:
    """A number of replicas, in words."""
    return "1 replica" if count == 1 else f"{count} replicas"
