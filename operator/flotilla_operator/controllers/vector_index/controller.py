"""A VectorIndex's controller: what the loop calls."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from pydantic import ValidationError

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    MODEL_REPLICA_SETS,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    VECTOR_INDEXES,
    Key,
    Reference,
    Resource,
)
from flotilla_operator.cluster.writes import Manifest, Plan
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.vector_index.cleanup import Cleanups
from flotilla_operator.controllers.vector_index.observe import observe, owner_of, parsed, references_of
from flotilla_operator.controllers.vector_index.plan import plan
from flotilla_operator.controllers.vector_index.seen import Leaving, Observed
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.vector_index.milvus import milvus
from flotilla_operator.workloads.vector_index.retriever import retriever


class VectorIndexController:
    """Keeps the removals that run; everything else is in `observe` and `plan`."""

    resource: Resource = VECTOR_INDEXES
    watches: Sequence[Resource] = (
        MODEL_REPLICA_SETS,
        PODS,
        JOBS,
        SERVICES,
        CONFIG_MAPS,
        DEPLOYMENTS,
        STATEFUL_SETS,
        POD_DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
        PERSISTENT_VOLUME_CLAIMS,
    )

    def __init__(self) -> None:
        self._cleanups = Cleanups()

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """The model, the documents, the workspace, and the services whose names may be taken."""
        try:
            spec = parsed(manifest)
        except ValidationError:
            return
        owner = owner_of(manifest)
        yield from references_of(owner, spec)
        for part in (milvus(owner), retriever(owner)):
            yield Reference(SERVICES, owner.namespace, part.name)

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """Nothing beyond what it owns and names; pods of its Jobs carry its labels."""
        return ()

    async def observe(self, key: Key, manifest: Manifest, world: World) -> Observed | Leaving:
        """What the plan rests on."""
        return await observe(manifest, world, self._cleanups)

    def plan(self, observed: Observed | Leaving, now: datetime) -> Plan:
        """The index's next step."""
        return plan(observed, now)

    def scrape_targets(self, observed: Observed | Leaving) -> Sequence[Target]:
        """The retriever's pods."""
        return observed.targets

    def carried_out(self, manifest: Manifest) -> None:
        """Nothing is remembered of a plan."""
