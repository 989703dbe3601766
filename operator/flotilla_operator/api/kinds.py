"""The three kinds as API resources: model, names, columns of `kubectl get`, scale subresource."""

from dataclasses import dataclass
from typing import Final, Literal

from flotilla_operator.api.agent_fleet import AgentFleet
from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.api.parts import ApiObject
from flotilla_operator.api.vector_index import VectorIndex

GROUP: Final = "flotilla.dev"
VERSION: Final = "v1alpha1"
CATEGORY: Final = "flotilla"

ColumnType = Literal["string", "integer", "number", "date"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of `kubectl get`. A wide one is shown only with `-o wide`.

    kubectl prints nothing when the type is not that of the value. A column is added together with the code
    that writes its field.
    """

    name: str
    path: str
    type: ColumnType = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The paths of the scale subresource, which `kubectl scale` and autoscalers such as an HPA use."""

    spec_replicas: str
    status_replicas: str
    selector: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of the API, with everything that its CRD and its page of the reference need.

    `use` is the first sentence of the page: what a user does with an object. `example` is a file in
    examples/.
    """

    model: type[ApiObject]
    plural: str
    short_name: str
    use: str
    example: str
    columns: tuple[Column, ...]
    scale: Scale | None = None

    @property
    def name(self) -> str:
        """The value of `kind` in manifests."""
        return self.model.__name__


AGE: Final = Column(name="AGE", type="date", path=".metadata.creationTimestamp")


def _condition(condition_type: str, part: str) -> str:
    return f'.status.conditions[?(@.type=="{condition_type}")].{part}'


MODEL_REPLICA_SET: Final = Kind(
    model=ModelReplicaSet,
    plural="modelreplicasets",
    short_name="mrs",
    use="Create a ModelReplicaSet to serve a language or embedding model",
    example="modelreplicaset-gpu.yaml",
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
    use="Create a VectorIndex to make a folder of documents searchable",
    example="vectorindex-configmap.yaml",
    columns=(
        Column(name="PHASE", path=".status.phase"),
        Column(name="DOCS", type="integer", path=".status.documents.indexed"),
        Column(name="CHUNKS", type="integer", path=".status.chunks"),
        Column(name="SHARDS", type="integer", path=".status.shards.ready"),
        Column(name="GEN", path=".status.activeGeneration"),
        AGE,
        Column(name="URL", path=".status.url", wide=True),
        Column(name="MESSAGE", path=_condition("Ready", "message"), wide=True),
    ),
)

AGENT_FLEET: Final = Kind(
    model=AgentFleet,
    plural="agentfleets",
    short_name="af",
    use="Create an AgentFleet to answer tasks with a model and your indexes",
    example="agentfleet.yaml",
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
