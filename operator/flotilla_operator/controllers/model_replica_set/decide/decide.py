"""Decides the next step of a set, from what was observed. Pure.

The stages are those of `replicas/stages.py`. Here what was observed becomes the values that they take.
"""

from dataclasses import dataclass
from datetime import datetime

from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Observed, Situation
from flotilla_operator.replicas.stages import SetSeen, Step, next_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The step that a set takes now, and the situation that it answers."""

    situation: Situation
    step: Step

    @property
    def paused(self) -> bool:
        return self.situation.me.spec.paused


def decide(observed: Observed, now: datetime) -> Decision | None:
    """The next step of a set; None for one that is being deleted."""
    step = next_step(_values(observed), now)
    if step is None:
        return None
    missing, misfit = observed.missing, step.sizing.misfit
    if misfit is not None:
        # A model that does not fit counts as something that a person must correct.
        missing = (*missing, Missing(reason=Reason(misfit.reason), message=misfit.message))
    situation = Situation(
        observed=observed, me=step.me, missing=missing, scaling=step.scaling, sizing=step.sizing
    )
    return Decision(situation=situation, step=step)


def _values(observed: Observed) -> SetSeen:
    return SetSeen(
        facts=observed.facts,
        around=observed.around,
        asks=observed.asks,
        last_round=observed.last_round,
        load=observed.load,
        scaled=observed.scaled,
        routers=observed.routers,
        placeholders=observed.placeholders,
        model_facts=observed.model_facts,
        hold_devices=observed.hold_devices,
        lacks=bool(observed.missing),
    )
