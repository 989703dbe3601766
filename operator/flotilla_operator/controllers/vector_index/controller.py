"""The VectorIndex controller: the methods that the reconcile loop calls."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from pydantic import ValidationError

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Acts, Delete, Told
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.steering import FiguresOnly, Steering
from flotilla_operator.controllers.vector_index.act import act, new_key
from flotilla_operator.controllers.vector_index.cleanup import Cleanups
from flotilla_operator.controllers.vector_index.decide import Decision, decide
from flotilla_operator.controllers.vector_index.farewell import Farewell
from flotilla_operator.controllers.vector_index.observe import observe, parsed
from flotilla_operator.controllers.vector_index.references import references_of
from flotilla_operator.controllers.vector_index.seen import Leaving, Observed
from flotilla_operator.controllers.vector_index.tell import tell
from flotilla_operator.controllers.vector_index.wakes import indexes_to_wake
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    MODEL_REPLICA_SETS,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    SERVICES,
    STATEFUL_SETS,
    VECTOR_INDEXES,
    Key,
    Manifest,
    Reference,
    Resource,
)
from flotilla_operator.telemetry.measurements import first_known
from flotilla_operator.workloads.vector_index.milvus import milvus
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_runtime.contract import RetrieverStatus


class VectorIndexController:
    """Holds the running removals of collections; everything else is in the four verbs."""

    resource: Resource = VECTOR_INDEXES
    watches: Sequence[Resource] = (
        MODEL_REPLICA_SETS,
        AGENT_FLEETS,
        PODS,
        JOBS,
        SERVICES,
        CONFIG_MAPS,
        DEPLOYMENTS,
        STATEFUL_SETS,
        POD_DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
        PERSISTENT_VOLUME_CLAIMS,
        NODES,
        PRIORITY_CLASSES,
        RUNTIME_CLASSES,
    )

    def __init__(self, *, milvus_on_loopback: bool = False) -> None:
        self._cleanups = Cleanups(allow_loopback=milvus_on_loopback)

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """The model, the documents, the workspace, the classes of pods, and the services whose names another
        object may hold.
        """
        try:
            spec = parsed(manifest)
        except ValidationError:
            return
        owner = Owner.of(VECTOR_INDEXES.kind, manifest)
        yield from references_of(owner, spec)
        for part in (milvus(owner), retriever(owner)):
            yield Reference(SERVICES, owner.namespace, part.name)

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """The indexes that wait for workers of fleets; all else wakes by owner, reference or labels."""
        return indexes_to_wake(resource, manifest, caches)

    async def observe(self, key: Key, manifest: Manifest, world: World, now: datetime) -> Observed | Leaving:
        """Everything that a decision about this index needs."""
        return await observe(manifest, world, self._cleanups, now)

    def decide(self, observed: Observed | Leaving, now: datetime) -> Decision | Farewell:
        """The index's next step, or the farewell of one that is being deleted."""
        return decide(observed, now)

    def act(self, observed: Observed | Leaving, decision: Decision | Farewell, now: datetime) -> Acts:
        """The index's next writes; a farewell may start the removal of collections."""
        return act(decision, self._cleanups, new_key)

    def tell(
        self,
        observed: Observed | Leaving,
        decision: Decision | Farewell,
        refusals: Sequence[RefusedWrite],
        now: datetime,
    ) -> Told:
        """The index's status and events."""
        return tell(decision, refusals, now)

    def steering(self, observed: Observed | Leaving, decision: Decision | Farewell) -> Steering:
        """The status shows what the retriever reports; nothing is scaled on it."""
        return FiguresOnly(
            uid=observed.owner.uid,
            targets=observed.targets,
            report=RetrieverStatus,
            told=first_known,
        )

    def left_behind(self, key: Key, world: World) -> Sequence[Delete]:
        """Nothing: what is not taken along is meant to stay."""
        return ()

    def carried_out(self, manifest: Manifest) -> None:
        """Nothing: the index remembers nothing of its writes."""

    def was_told(self, manifest: Manifest) -> None:
        """Nothing: no time is measured."""
