"""Input of the stages after placement: a set, its demand, and the places of its waiting groups."""

from collections.abc import Sequence
from dataclasses import dataclass

from flotilla_operator.placement import PlacementPlan, Refusal
from flotilla_operator.replicas.demand import Demand
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.intent import IntendedSet
from flotilla_operator.replicas.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A set at one moment.

    `placement` is None where nothing was asked of placement. `lacks` says that something that the spec names
    is missing, so that no group is started.
    """

    me: IntendedSet
    demand: Demand
    around: Surroundings
    placement: PlacementPlan | None = None
    lacks: bool = False

    @property
    def refusals(self) -> Sequence[Refusal]:
        """Why the set's waiting groups have no place."""
        if self.placement is None:
            return []
        return [refusal for refusal in self.placement.refusals if refusal.group.owner == self.me.full_name]

    @property
    def is_settled(self) -> bool:
        """Whether every wanted replica serves, and none is being added or removed."""
        turnover, groups = self.demand.turnover, self.demand.groups
        under_way = turnover.wanted_new or turnover.removals or turnover.returning or turnover.outdated
        ready = all(group.lives and group.phase is Phase.READY for group in groups)
        held = self.lacks or self.me.spec.paused
        return ready and len(groups) == self.me.replicas and not under_way and not held
