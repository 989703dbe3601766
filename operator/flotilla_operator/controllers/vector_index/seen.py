"""What was observed of one index: the values that `plan` judges.

An index on its way out is another value: nothing of its spec is needed but where its collections are, and a
spec that cannot be read must not keep it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.vector_index.jobs import StepJob
from flotilla_operator.controllers.vector_index.reasons import ConditionType, Reason
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_runtime.contract import RetrieverStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that the spec names and the namespace lacks, and the condition it belongs to."""

    condition: ConditionType
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSeen:
    """The ModelReplicaSet that embeds."""

    spec: ModelReplicaSetSpec
    available: bool
    model: EmbedderModel


class CleanupState(StrEnum):
    """How far the removal of collections from an external Milvus is."""

    NOT_NEEDED = "NotNeeded"
    RUNNING = "Running"
    DONE = "Done"
    GIVEN_UP = "GivenUp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """The state, and what is left where and why, or what stands in the way so far."""

    state: CleanupState
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything a plan rests on; `existing` is what stands at the names we need, ours or not.

    `unused_milvus` is what is left of Milvus Lite while the spec names a Milvus of somebody else's.
    """

    manifest: Manifest
    owner: Owner
    spec: VectorIndexSpec
    images: Images
    embedder: EmbedderSeen | None
    missing: Sequence[Missing]
    secret_versions: Mapping[str, str]  # by the variable that takes the entry's value
    existing: Mapping[tuple[str, str], Manifest]
    unused_milvus: Sequence[Manifest]
    jobs: Sequence[StepJob]
    build_config_maps: Sequence[Manifest]
    live_build_pods: Mapping[str, str]  # run id by pod name
    shared_workspace: bool
    retriever_status: RetrieverStatus | None
    targets: Sequence[Target]

    def object(self, kind: str, name: str) -> Manifest | None:
        """What stands at a name, if it is there."""
        return self.existing.get((kind, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """An index that is being deleted; nobody is asked for figures any more."""

    manifest: Manifest
    owner: Owner
    cleanup: Cleanup
    targets: Sequence[Target] = ()
