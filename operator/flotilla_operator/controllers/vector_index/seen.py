"""Observed state of one index: the values that `decide` decides from.

An index that is being deleted has its own value, `Leaving`, which needs no valid spec: only the place of its
collections matters, and an invalid spec must not block the deletion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import MilvusMode, VectorIndexSpec
from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.vector_index.access import SearchingFleet
from flotilla_operator.controllers.vector_index.cleanup import Cleanup, Remains
from flotilla_operator.controllers.vector_index.jobs import StepJob
from flotilla_operator.controllers.vector_index.reasons import ConditionType, Reason
from flotilla_operator.controllers.vector_index.remembered import Remembered
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import STATEFUL_SETS, Manifest
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_operator.workloads.vector_index.milvus import lacks_milvus_image, milvus
from flotilla_runtime import contract

OF_A_SECRET = frozenset(
    {
        Reason.SECRET_MISSING,
        Reason.SECRET_KEY_MISSING,
        Reason.SECRET_FOR_ELSEWHERE,
        Reason.SECRET_FOR_OTHERS,
    }
)
FINALIZER = f"{contract.DOMAIN}/milvus"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedMissing(Missing):
    """Missing objects, and the condition that reports them."""

    condition: ConditionType


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSeen:
    """The ModelReplicaSet of `spec.embedding.modelRef`."""

    spec: ModelReplicaSetSpec
    available: bool
    model: EmbedderModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that a decision needs.

    `live` holds the objects that have the names of the index's parts, whoever owns them. `lite` holds those
    that have the names of Milvus Lite's objects, whichever Milvus the spec names.
    """

    manifest: Manifest
    owner: Owner
    spec: VectorIndexSpec
    images: Images
    remembered: Remembered
    embedder: EmbedderSeen | None
    missing: Sequence[ReportedMissing]
    secret_versions: Mapping[str, str]  # by the variable that takes the entry's value
    live: Mapping[tuple[str, str], LiveObject]
    lite: Sequence[LiveObject]
    jobs: Sequence[StepJob]
    build_config_maps: Sequence[LiveObject]
    live_build_pods: Mapping[str, str]  # run id by pod name
    key_found: bool | None  # whether the key that the operator makes is there; None where the user names one
    fleets: Sequence[SearchingFleet]  # only while searches without a key may be answered
    shared_workspace: bool
    retriever_status: contract.RetrieverStatus | None
    targets: Sequence[Target]

    def part(self, kind: str, name: str) -> LiveObject | None:
        """The object of this kind and name, whoever owns it, or None."""
        return self.live.get((kind, name))

    def ready_replicas(self, kind: str, name: str) -> int:
        """How many pods of a Deployment or StatefulSet are ready."""
        found = self.part(kind, name)
        return found.ready_replicas if found is not None else 0

    @property
    def embedder_available(self) -> bool:
        return self.embedder is not None and self.embedder.available

    @property
    def lacks_a_secret(self) -> bool:
        """Whether a secret is missing. It may appear without an event that wakes the index."""
        return any(one.reason in OF_A_SECRET for one in self.missing)

    @property
    def lacks_callers_keys(self) -> bool:
        """Whether pods of the retriever could not start: their secret of keys is missing, or for others."""
        return any(
            one.condition is ConditionType.RETRIEVER_READY
            and one.reason in (Reason.SECRET_MISSING, Reason.SECRET_FOR_OTHERS)
            for one in self.missing
        )

    @property
    def may_mount_its_secrets(self) -> bool:
        """Whether every Secret that pods of the index mount is for the object that names it."""
        return all(one.reason is not Reason.SECRET_FOR_OTHERS for one in self.missing)

    @property
    def milvus_external(self) -> bool:
        return self.spec.milvus.mode is MilvusMode.EXTERNAL

    @property
    def may_send_its_token(self) -> bool:
        """Whether the Secret with Milvus' token may be sent where the spec would send it."""
        return not any(
            one.condition is ConditionType.MILVUS_READY and one.reason is Reason.SECRET_FOR_ELSEWHERE
            for one in self.missing
        )

    @property
    def lacks_milvus_image(self) -> bool:
        """Whether Milvus Lite is wanted, and neither the spec nor the chart names its image."""
        return lacks_milvus_image(self.spec, self.images)

    @property
    def milvus_usable(self) -> bool:
        """Whether Milvus can be used, as far as the operator knows: it does not look into the user's."""
        return self.milvus_external or self.ready_replicas(STATEFUL_SETS.kind, milvus(self.owner).name) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """An index that is being deleted; its retriever is not scraped any more.

    `held` says whether our finalizer holds it, and `deletes` whether its deletion policy is Delete. `remains`
    is what it has in an external Milvus, None for nothing. `unreadable` says why that is not known now.
    `cleanup` is the removal, once it has started. `looked_at_since` is when this process saw the deletion.
    """

    manifest: Manifest
    owner: Owner
    remembered: Remembered
    looked_at_since: datetime
    held: bool
    deletes: bool = False
    remains: Remains | None = None
    unreadable: str = ""
    cleanup: Cleanup | None = None
    targets: Sequence[Target] = field(default=())
