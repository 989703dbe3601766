"""The three kinds as resources: names, columns and scale, beside the model that is their schema."""

from dataclasses import dataclass
from typing import Final, Literal

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.api.common import ApiObject
from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.api.vector_index import VectorIndex

GROUP: Final = "flotilla.dev"
VERSION: Final = "v1alpha1"
CATEGORY: Final = "flotilla"

ColumnType = Literal["string", "integer", "number", "date"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of `kubectl get`; a wide one is shown with `-o wide` alone.

    The type must be that of the value, else kubectl prints nothing.
    """

    name: str
    path: str
    type: ColumnType = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where `kubectl scale` and autoscalers read and write the number of replicas."""

    spec_replicas: str
    status_replicas: str
    selector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of the API."""

    model: type[ApiObject]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    scale: Scale | None = None

    @property
    def name(self) -> str:
        """The kind as manifests spell it."""
        return self.model.__name__


AGE: Final = Column(name="AGE", type="date", path=".metadata.creationTimestamp")


def _condition(condition_type: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{condition_type}")].{part}'


MODEL_REPLICA_SET: Final = Kind(
    model=ModelReplicaSet,
    plural="modelreplicasets",
    short_name="mrs",
    columns=(
        Column(name="MODEL", path=".spec.model.name"),
        Column(name="READY", path=".status.ready"),
        Column(name="TP", type="integer", path=".spec.parallelism.tensor"),
        Column(name="QUEUE", type="integer", path=".status.load.waiting"),
        Column(name="GOODPUT", type="number", path=".status.load.goodputPerSecond"),
        Column(name="SLO", type="number", path=".status.load.attainment"),
        Column(name="PLACEMENT", path=_condition("Placed", "reason")),
        AGE,
        Column(name="URL", path=".status.url", wide=True),
        Column(name="$/H", type="number", path=".status.costPerHourUSD", wide=True),
        Column(name="SCORE", type="number", path=".status.placement.score", wide=True),
        Column(name="MESSAGE", path=_condition("Ready", "message"), wide=True),
    ),
    scale=Scale(
        spec_replicas=".spec.replicas", status_replicas=".status.replicas", selector=".status.selector"
    ),
)

VECTOR_INDEX: Final = Kind(
    model=VectorIndex,
    plural="vectorindexes",
    short_name="vi",
    columns=(
        Column(name="PHASE", path=".status.phase"),
        Column(name="DOCS", type="integer", path=".status.documents.indexed"),
        Column(name="CHUNKS", type="integer", path=".status.chunks"),
        Column(name="SHARDS", type="integer", path=".status.shards.ready"),
        Column(name="GEN", path=".status.activeGeneration"),
        Column(name="RECALL", type="number", path=".status.gate.recallAt10"),
        Column(name="LAG", type="integer", path=".status.freshnessLagSeconds"),
        AGE,
        Column(name="URL", path=".status.url", wide=True),
        Column(name="MESSAGE", path=_condition("Ready", "message"), wide=True),
    ),
)

AGENT_FLEET: Final = Kind(
    model=AgentFleet,
    plural="agentfleets",
    short_name="af",
    columns=(
        Column(name="READY", path=".status.ready"),
        Column(name="WORKERS", type="integer", path=".status.workers.ready"),
        Column(name="WAITING", type="integer", path=".status.tasks.waiting"),
        Column(name="RUNNING", type="integer", path=".status.tasks.running"),
        Column(name="P95", type="number", path=".status.latency.p95Seconds"),
        Column(name="SUCCESS", type="number", path=".status.successRate"),
        Column(name="$/TASK", type="number", path=".status.costPerTaskUSD"),
        Column(name="BOTTLENECK", path=".status.bottleneck"),
        AGE,
        Column(name="URL", path=".status.url", wide=True),
        Column(name="MESSAGE", path=_condition("Ready", "message"), wide=True),
    ),
)

KINDS: Final = (MODEL_REPLICA_SET, VECTOR_INDEX, AGENT_FLEET)
