"""How a set follows what its routers report between two reconciles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flotilla_operator.api.model_replica_set import Slo
from flotilla_operator.autoscaling.from_zero import ZeroDecision, ZeroPolicy, decide
from flotilla_operator.controllers.model_replica_set.decide.decide import Decision
from flotilla_operator.controllers.model_replica_set.observe.router_load import router_load
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.controllers.model_replica_set.tell.load import load_status
from flotilla_operator.controllers.steering import Steered
from flotilla_operator.replicas.scale import all_ready_since, policy_of, zero_signals
from flotilla_operator.telemetry.measurements import Answered, Target
from flotilla_runtime.contract import RouterStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSteering:
    """Input of the steering loop for one set.

    `current` is the number of replicas in force. `shown_load` is what the status shows now. Without a policy
    the set's number is not the loop's.
    """

    uid: str
    targets: Sequence[Target]
    policy: ZeroPolicy | None = None
    current: int = 0
    ready_since: datetime | None = None
    slo: Slo | None = None
    shown_load: Mapping[str, Any] = field(default_factory=dict)
    taken: ZeroDecision | None = None

    @property
    def report(self) -> type[RouterStatus]:
        return RouterStatus

    def step(self, answers: Sequence[Answered[RouterStatus] | None], memory: None, now: datetime) -> Steered:
        """The decision about zero, and the load that the status would show."""
        load = router_load(answers)
        decision = None
        if self.policy is not None:
            signals = zero_signals(load, self.ready_since, now)
            decision = decide(signals, self.policy, current=self.current)
        return Steered(decision=decision, figures=load_status(load, self.slo, self.shown_load))


def steering_of(observed: Observed, decision: Decision | None) -> SetSteering:
    """A set that is being deleted is not scaled, but its routers are still asked: replicas may drain."""
    me = observed.facts
    if decision is None:
        return SetSteering(uid=me.owner.uid, targets=observed.targets)
    return SetSteering(
        uid=me.owner.uid,
        targets=observed.targets,
        policy=policy_of(me.newest.spec),
        current=me.memory.wanted,
        ready_since=all_ready_since(me.groups),
        slo=me.newest.spec.slo,
        shown_load=observed.before.load,
        taken=decision.situation.scaling,
    )
