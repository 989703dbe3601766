"""An AgentFleet's controller: what the loop calls."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
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
from flotilla_operator.controllers.agent_fleet.observe import Memory, observe, parsed
from flotilla_operator.controllers.agent_fleet.plan import plan
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.controller import World
from flotilla_operator.telemetry.measurements import Target


class AgentFleetController:
    """Keeps what is remembered between looks; everything else is in `observe` and `plan`."""

    resource: Resource = AGENT_FLEETS
    watches: Sequence[Resource] = (
        MODEL_REPLICA_SETS,
        VECTOR_INDEXES,
        PODS,
        SERVICES,
        CONFIG_MAPS,
        DEPLOYMENTS,
        STATEFUL_SETS,
        PERSISTENT_VOLUME_CLAIMS,
        POD_DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
    )

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._memory = Memory()

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """The models and indexes it calls."""
        try:
            spec = parsed(manifest)
        except ValidationError:
            return
        namespace = manifest["metadata"]["namespace"]
        for model in spec.models:
            if model.model_ref is not None:
                yield Reference(MODEL_REPLICA_SETS, namespace, model.model_ref.name)
        for index in spec.indexes:
            yield Reference(VECTOR_INDEXES, namespace, index.index_ref.name)

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """Nothing beyond owner and references."""
        return ()

    async def observe(self, key: Key, manifest: Manifest, world: World) -> Observed:
        """What the plan rests on."""
        return await observe(manifest, world, self._memory, self._clock())

    def plan(self, observed: Observed, now: datetime) -> Plan:
        """The fleet's next step."""
        return plan(observed, now)

    def scrape_targets(self, observed: Observed) -> Sequence[Target]:
        """The fleet's gateways."""
        return observed.targets

    def carried_out(self, manifest: Manifest) -> None:
        """Nothing is remembered of a plan."""
