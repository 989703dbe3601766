"""The controller of ModelReplicaSets: what the reconcile loop calls."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Acts, Delete, Told
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.model_replica_set.act.act import act, new_key
from flotilla_operator.controllers.model_replica_set.decide.decide import Decision, decide
from flotilla_operator.controllers.model_replica_set.observe.memory import Memory
from flotilla_operator.controllers.model_replica_set.observe.observe import observe
from flotilla_operator.controllers.model_replica_set.observe.parsed_sets import parsed
from flotilla_operator.controllers.model_replica_set.observe.references import (
    claim_references,
    class_references,
)
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.controllers.model_replica_set.steering import SetSteering, steering_of
from flotilla_operator.controllers.model_replica_set.tell.tell import tell
from flotilla_operator.controllers.model_replica_set.wakes import sets_to_wake, woken_by_round
from flotilla_operator.controllers.mounted_claims import NamedClaim
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    DEVICE_CLASSES,
    MODEL_REPLICA_SETS,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PRIORITY_CLASSES,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    ROLE_BINDINGS,
    ROLES,
    RUNTIME_CLASSES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Key,
    Manifest,
    Reference,
    Resource,
)
from flotilla_operator.workloads.devices import device_ask
from flotilla_operator.workloads.engine_pod import engines
from flotilla_operator.workloads.router import router_service


class ModelReplicaSetController:
    """Holds what is remembered between reconciles; everything else is in the four verbs."""

    resource: Resource = MODEL_REPLICA_SETS
    watches: Sequence[Resource] = (
        MODEL_REPLICA_SETS,
        PODS,
        NODES,
        SERVICES,
        CONFIG_MAPS,
        SERVICE_ACCOUNTS,
        ROLES,
        ROLE_BINDINGS,
        DEPLOYMENTS,
        CONTROLLER_REVISIONS,
        POD_DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
        PERSISTENT_VOLUME_CLAIMS,
        PRIORITY_CLASSES,
        RUNTIME_CLASSES,
        DEVICE_CLASSES,
        RESOURCE_SLICES,
        RESOURCE_CLAIMS,
        RESOURCE_CLAIM_TEMPLATES,
    )

    def __init__(self) -> None:
        self.memory = Memory()

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """Objects that the set depends on: claims, classes, and services that may occupy its names."""
        try:
            spec = parsed(manifest).spec
        except ValidationError:
            return
        owner = Owner.of(MODEL_REPLICA_SETS.kind, manifest)
        for claim in claim_references(spec):
            if isinstance(claim, NamedClaim):
                yield claim.reference(owner.namespace)
        if spec.placement.priority_class_name is not None:
            yield Reference(PRIORITY_CLASSES, "", spec.placement.priority_class_name)
        for named in class_references(spec):
            yield named.reference
        if (ask := device_ask(spec)) is not None:
            yield Reference(DEVICE_CLASSES, "", ask.class_name)
        for part in (engines(owner), router_service(owner)):
            yield Reference(SERVICES, owner.namespace, part.name)

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """The sets to reconcile because this object changed."""
        return sets_to_wake(resource, manifest, caches, self.memory)

    async def observe(self, key: Key, manifest: Manifest, world: World, now: datetime) -> Observed:
        """Everything that the decision depends on."""
        return await observe(manifest, world, self.memory, now)

    def decide(self, observed: Observed, now: datetime) -> Decision | None:
        """The set's next step; None for a set that is being deleted."""
        return decide(observed, now)

    def act(self, observed: Observed, decision: Decision | None, now: datetime) -> Acts:
        """The writes that lead there; the room of pods to be created is held until they are seen."""
        acts = replace(act(decision, new_key, now), wakes=woken_by_round(observed, decision, self.memory))
        owner = observed.facts.owner
        self.memory.note_promises(owner, acts.writes, now)
        if decision is not None:
            self.memory.note_failed_pins(owner.uid, decision.step.demand.failed_pins)
            started = {group.name for group in decision.step.started}
            me = decision.situation.me
            self.memory.asks.note(owner.uid, me.full_name, decision.step.room, started, now)
        return acts

    def tell(
        self, observed: Observed, decision: Decision | None, refusals: Sequence[RefusedWrite], now: datetime
    ) -> Told:
        """The set's status and events."""
        return tell(decision, refusals, observed.manifest, now)

    def steering(self, observed: Observed, decision: Decision | None) -> SetSteering:
        """How the set follows what its routers report."""
        return steering_of(observed, decision)

    def left_behind(self, key: Key, world: World) -> Sequence[Delete]:
        """Nothing: what is not taken along is meant to stay."""
        return ()

    def carried_out(self, manifest: Manifest) -> None:
        """Drop the promises: room for refused pods must not be kept from others."""
        self.memory.settle_promises(manifest["metadata"]["uid"])

    def was_told(self, manifest: Manifest) -> None:
        """The time until this look counts as watched."""
        self.memory.watched.was_told(manifest["metadata"]["uid"])
