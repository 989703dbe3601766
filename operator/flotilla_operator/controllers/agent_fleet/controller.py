"""The AgentFleet controller: the methods that the reconcile loop calls."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from pydantic import ValidationError

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Acts, Delete, Told
from flotilla_operator.controllers.agent_fleet.act import act, bindings_to_delete, new_password
from flotilla_operator.controllers.agent_fleet.decide import Decision, decide
from flotilla_operator.controllers.agent_fleet.memory import Memory
from flotilla_operator.controllers.agent_fleet.observe import binding_of, observe, parsed
from flotilla_operator.controllers.agent_fleet.references import (
    claims_of_executors,
    claims_of_workers,
    classes_by_part,
)
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.agent_fleet.steering import steering_of
from flotilla_operator.controllers.agent_fleet.tell import tell
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.mounted_claims import NamedClaim
from flotilla_operator.controllers.steering import Steering
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    MODEL_REPLICA_SETS,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    VECTOR_INDEXES,
    Key,
    Manifest,
    Reference,
    Resource,
)
from flotilla_operator.workloads import agent_fleet as workloads


class AgentFleetController:
    """Holds the memory between reconciles; everything else is in the four verbs."""

    resource: Resource = AGENT_FLEETS
    watches: Sequence[Resource] = (
        MODEL_REPLICA_SETS,
        VECTOR_INDEXES,
        PODS,
        SERVICES,
        CONFIG_MAPS,
        SERVICE_ACCOUNTS,
        CLUSTER_ROLE_BINDINGS,
        DEPLOYMENTS,
        STATEFUL_SETS,
        PERSISTENT_VOLUME_CLAIMS,
        POD_DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
        PRIORITY_CLASSES,
        RUNTIME_CLASSES,
    )

    def __init__(self, memory: Memory | None = None) -> None:
        self._memory = memory if memory is not None else Memory()

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """The models, the indexes and the classes of pods that the fleet refers to."""
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
        for claim in (*claims_of_workers(spec), *claims_of_executors(spec)):
            if isinstance(claim, NamedClaim):
                yield claim.reference(namespace)
        for classes in classes_by_part(spec):
            yield from (named.reference for named in classes)

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """The fleet that a binding is named after; owner references and `references` wake all else."""
        if resource != CLUSTER_ROLE_BINDINGS:
            return ()
        fleet = workloads.fleet_of_binding(manifest["metadata"])
        return () if fleet is None else (fleet,)

    async def observe(self, key: Key, manifest: Manifest, world: World, now: datetime) -> Observed:
        """Everything that a decision about this fleet needs."""
        return await observe(manifest, world, self._memory, now)

    def decide(self, observed: Observed, now: datetime) -> Decision | None:
        """The fleet's next step; None for a fleet that is being deleted."""
        return decide(observed, now)

    def act(self, observed: Observed, decision: Decision | None, now: datetime) -> Acts:
        """The fleet's next writes; what the decision says to remember is kept for the next one."""
        if decision is not None:
            self._memory.note(observed.owner.uid, decision.memory)
        return act(observed, decision, new_password)

    def tell(
        self, observed: Observed, decision: Decision | None, refusals: Sequence[RefusedWrite], now: datetime
    ) -> Told:
        """The fleet's status and events."""
        return tell(observed, decision, refusals, now)

    def steering(self, observed: Observed, decision: Decision | None) -> Steering:
        """How the fleet follows what its gateways report."""
        return steering_of(observed, decision)

    def left_behind(self, key: Key, world: World) -> Sequence[Delete]:
        """The binding of the gateways, which belongs to no namespace."""
        return bindings_to_delete(key.namespace, key.name, binding_of(key.namespace, key.name, world))

    def carried_out(self, manifest: Manifest) -> None:
        """Nothing: no memory of a fleet depends on its writes."""

    def was_told(self, manifest: Manifest) -> None:
        """Nothing: no time is measured."""
