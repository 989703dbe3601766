"""The verbs after `observe` in one call, where every write is done: what a kind makes of what it sees."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from flotilla_operator.cluster.writes import Acts, Event, Told, Write
from flotilla_operator.controllers.agent_fleet.controller import AgentFleetController
from flotilla_operator.controllers.agent_fleet.seen import Observed as FleetSeen
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.model_replica_set.act.act import act, new_key
from flotilla_operator.controllers.model_replica_set.decide.decide import decide
from flotilla_operator.controllers.model_replica_set.seen import Observed as SetSeen
from flotilla_operator.controllers.model_replica_set.tell.tell import rests_on, tell
from flotilla_operator.controllers.vector_index.controller import VectorIndexController
from flotilla_operator.controllers.vector_index.seen import Leaving
from flotilla_operator.controllers.vector_index.seen import Observed as IndexSeen
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import ObjectRef
from leaks.pytest_plugin import told as search


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Acts and words of a reconcile."""

    writes: Sequence[Write] = ()
    status: Mapping[str, Any] | None = None
    finalizers: Sequence[str] | None = None
    events: Sequence[Event] = ()
    look_again_seconds: float | None = None
    rests_on: Mapping[str, frozenset[ObjectRef]] = field(default_factory=dict)

    @property
    def acts(self) -> Acts:
        return Acts(
            writes=self.writes, finalizers=self.finalizers, look_again_seconds=self.look_again_seconds
        )

    @property
    def told(self) -> Told:
        return Told(status=self.status, events=self.events)


def plan_by(controller: Controller[Any, Any], facts: Any, now: datetime) -> Plan:
    """Plan of this controller for these facts."""
    decision = controller.decide(facts, now)
    return _together(controller.act(facts, decision, now), controller.tell(facts, decision, [], now))


def plan_of_set(observed: SetSeen, now: datetime) -> Plan:
    decision = decide(observed, now)
    resting = {} if decision is None or decision.paused else rests_on(decision)
    return _together(act(decision, new_key, now), tell(decision, [], observed.manifest, now), resting)


def told_of_set(observed: SetSeen, refusals: Sequence[RefusedWrite], now: datetime) -> Told:
    """Words on a set when these writes of its plan are refused."""
    return tell(decide(observed, now), refusals, observed.manifest, now)


def plan_of_fleet(observed: FleetSeen, now: datetime) -> Plan:
    return plan_by(AgentFleetController(), observed, now)


def plan_of_index(observed: IndexSeen | Leaving, now: datetime) -> Plan:
    return plan_by(VectorIndexController(), observed, now)


def _together(acts: Acts, told: Told, resting: Mapping[str, frozenset[ObjectRef]] | None = None) -> Plan:
    for said in (told.status, *(asdict(event) for event in told.events)):
        search("a plan", said)
    return Plan(
        writes=acts.writes,
        status=told.status,
        finalizers=acts.finalizers,
        events=told.events,
        look_again_seconds=acts.look_again_seconds,
        rests_on=resting or {},
    )
