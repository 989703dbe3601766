"""One placement round for all sets: everything that waits is placed once, and each set reads its part.

A round rests on what all sets ask for and on what the nodes have free. It answers a set until one of the two
changes. Pods that are made as the round has bound them change neither: their set asks for as much less, and
their nodes have as much less free.

Names and times do not count when two asks are compared. A set whose groups are new draws their names in each
of its reconciles, and the answer for one of its groups is as good for another that is alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.placement import (
    Binding,
    Group,
    PlacementPlan,
    Policy,
    Refusal,
    Snapshot,
    Standing,
    place,
)
from flotilla_operator.placement.loads import Loads
from flotilla_operator.replicas.demand import (
    Demand,
    demand_of,
    judged_groups,
    placement_groups,
    standing_groups,
)
from flotilla_operator.replicas.intent import IntendedSet, wanted_last
from flotilla_operator.replicas.memory import Remembered
from flotilla_operator.replicas.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Asks of one set: its waiting groups in their order, and the places of its other groups."""

    groups: tuple[Group, ...] = ()
    standing: tuple[Standing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """Asks of all sets, as one set sees them.

    `others` holds those of the other sets, by their full names; `own` is what the set itself asked for last.
    `version` grows whenever a set asks for what the last round did not foresee.
    """

    others: Mapping[str, Asked] = field(default_factory=dict)
    own: Asked | None = None
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Round:
    """Where the groups of all sets go.

    `asked` holds what the sets asked for, by their full names, and `version` is that of those asks. At
    `ages_at`, in seconds, a refused group has waited so long that nodes are kept for it.
    """

    asked: Mapping[str, Asked]
    version: int
    snapshot: Snapshot
    placement: PlacementPlan
    ages_at: float

    def answer(
        self, name: str, mine: Asked, asks: Asks, around: Surroundings, now: datetime
    ) -> PlacementPlan | None:
        """Where the groups of this set go; None when the round does not say, or may say so no more."""
        before = self.asked.get(name)
        if before is None or asks.version != self.version or now.timestamp() >= self.ages_at:
            return None
        spreads = any(group.spread_across is not None for group in mine.groups)
        if spreads and before.standing != mine.standing:
            return None
        if not foreseen(asks.own, mine, self, name):
            return None
        started = not alike(before.groups, mine.groups)
        part = self._part(self.refused(name) if started else before.groups, mine.groups)
        to_come = self._to_come(asks.others, "" if started else name)
        return part if self._holds(part, to_come, around.snapshot) else None

    def part(self, name: str) -> PlacementPlan:
        """The outcomes for this set, as it asked in the round."""
        groups = self.asked[name].groups
        return self._part(groups, groups)

    def _part(self, before: Sequence[Group], groups: Sequence[Group]) -> PlacementPlan:
        """The outcomes of groups that are alike, for these groups."""
        outcomes = [
            replace(self._outcomes[one.owner, one.name], group=group)
            for one, group in zip(before, groups, strict=True)
        ]
        return PlacementPlan(
            bindings=tuple(outcome for outcome in outcomes if isinstance(outcome, Binding)),
            refusals=tuple(outcome for outcome in outcomes if isinstance(outcome, Refusal)),
        )

    def concerned(self, before: "Round | None", but: str) -> Mapping[str, bool]:
        """The sets for which this round says something else than the one before, without one of them.

        The value says whether the set got room.
        """
        return {
            name: any(isinstance(outcome, Binding) for outcome in outcomes)
            for name in self.asked
            if name != but
            and (outcomes := self._outcomes_of(name))
            and not _say_the_same(outcomes, before._outcomes_of(name) if before is not None else ())
        }

    def _outcomes_of(self, name: str) -> Sequence[Binding | Refusal]:
        groups = self.asked[name].groups if name in self.asked else ()
        return [self._outcomes[group.owner, group.name] for group in groups]

    def refused(self, name: str) -> tuple[Group, ...]:
        """The groups of this set that the round found no room for."""
        return tuple(outcome.group for outcome in self._outcomes_of(name) if isinstance(outcome, Refusal))

    def _to_come(self, others: Mapping[str, Asked], name: str) -> list[Binding]:
        """The bindings whose pods are not made yet: of sets that still ask for all, and of the one named."""
        still = {
            owner
            for owner, asked in self.asked.items()
            if owner == name or len(others.get(owner, Asked()).groups) == len(asked.groups)
        }
        return [binding for binding in self.placement.bindings if binding.group.owner in still]

    def _holds(self, part: PlacementPlan, to_come: Sequence[Binding], snapshot: Snapshot) -> bool:
        """Whether no node has more room than the round left, and the part's nodes still have theirs."""
        if snapshot.topology != self.snapshot.topology:
            return False
        loads, positions = Loads(snapshot), snapshot.topology.positions
        _take(loads, to_come, positions)
        if loads.exceeds(self._left):
            return False
        return not any(
            loads.overdrawn(positions[node]) & binding.group.requests.keys()
            for binding in part.bindings
            for node in binding.nodes
        )

    @cached_property
    def _outcomes(self) -> Mapping[tuple[str, str], Binding | Refusal]:
        outcomes: list[Binding | Refusal] = [*self.placement.bindings, *self.placement.refusals]
        return {(outcome.group.owner, outcome.group.name): outcome for outcome in outcomes}

    @cached_property
    def _left(self) -> Loads:
        """Amounts that the round leaves free."""
        loads = Loads(self.snapshot)
        _take(loads, self.placement.bindings, self.snapshot.topology.positions)
        return loads


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Asks of a set and their placement. `made` is the new round, if the last one did not answer.

    There is no placement for a set that asks for nothing.
    """

    asked: Asked = field(default_factory=Asked)
    placement: PlacementPlan | None = None
    made: Round | None = None


def room_for(
    name: str, mine: Asked, asks: Asks, around: Surroundings, last: Round | None, now: datetime
) -> Room:
    """Where the groups of this set go: as the last round says, or else a new one."""
    if not mine.groups:
        return Room(asked=mine)
    answer = last.answer(name, mine, asks, around, now) if last is not None else None
    if answer is not None:
        return Room(asked=mine, placement=answer)
    made = round_of(name, mine, asks, around, now)
    return Room(asked=mine, placement=made.part(name), made=made)


def asked_by(me: IntendedSet, demand: Demand, around: Surroundings, now: datetime) -> Asked:
    """Return the asks of a set."""
    return Asked(
        groups=tuple(placement_groups(me, demand, around, now)), standing=tuple(standing_groups(me, demand))
    )


def may_ask(spec: ModelReplicaSetSpec, memory: Remembered, pods: int) -> bool:
    """Whether a set may have a group that waits for an accelerator.

    Most sets are settled, and are skipped at little cost. `pods` is how many engine pods the set has.
    """
    if spec.accelerator is None or spec.paused:
        return False
    if not memory.of_this_spec:
        return True
    if memory.invalid or memory.refused:
        return False
    return memory.waiting > 0 or pods < wanted_last(spec, memory) * spec.parallelism.pipeline


def asked_by_another(other: IntendedSet, around: Surroundings, now: datetime) -> Asked:
    """Return the asks of another set, as its facts alone show them.

    A group of which not all pods are observed yet, because they are being created, still waits as before.
    """
    being_made = around.promised.get(other.owner.uid, ())
    groups = [
        group for group in judged_groups(other, around, now) if group.whole or group.name not in being_made
    ]
    return asked_by(other, demand_of(other, tuple(groups), around, now), around, now)


def round_of(name: str, mine: Asked, asks: Asks, around: Surroundings, now: datetime) -> Round:
    """Place everything that waits: what this set asks for, and what all others do."""
    asked = {**asks.others, name: mine}
    waiting = [group for one in asked.values() for group in one.groups]
    standing = [replica for one in asked.values() for replica in one.standing]
    snapshot, policy, seconds = around.snapshot, around.policy, now.timestamp()
    placement = place(replace(snapshot, standing=standing), waiting, policy, seconds)
    return Round(
        asked=asked,
        version=asks.version,
        snapshot=snapshot,
        placement=placement,
        ages_at=min(ages_at(placement.refusals, policy, seconds), default=float("inf")),
    )


def ages_at(refusals: Sequence[Refusal], policy: Policy, now_seconds: float) -> list[float]:
    """When nodes will be kept for the refused groups for which none are kept yet."""
    times = (refusal.group.waiting_since_seconds + policy.aging_seconds for refusal in refusals)
    return [time for time in times if time > now_seconds]


def alike(groups: Sequence[Group], others: Sequence[Group]) -> bool:
    """Whether these groups ask for the same, whatever their names are and since when they wait."""
    return len(groups) == len(others) and all(
        group is other
        or group == replace(other, name=group.name, waiting_since_seconds=group.waiting_since_seconds)
        for group, other in zip(groups, others, strict=True)
    )


def foreseen(before: Asked | None, asked: Asked, last: Round | None, name: str) -> bool:
    """Whether the last round still holds where a set that asked for `before` now asks for this.

    It does when the set asks for the same, or for as much less as the round gave it room for. A set that asks
    for more again, because a replica was lost, has to stand in line once more.
    """
    in_round = last.asked.get(name) if last is not None else None
    if last is None or in_round is None:
        return not asked.groups and (before is None or not before.groups)
    served = alike(asked.groups, last.refused(name))
    if before is None or alike(before.groups, in_round.groups):
        return served or alike(asked.groups, in_round.groups)
    return served and alike(before.groups, asked.groups)


def _say_the_same(outcomes: Sequence[Binding | Refusal], others: Sequence[Binding | Refusal]) -> bool:
    return len(outcomes) == len(others) and all(
        replace(one, group=other.group) == other for one, other in zip(outcomes, others, strict=True)
    )


def _take(loads: Loads, bindings: Sequence[Binding], positions: Mapping[str, int]) -> None:
    for binding in bindings:
        for node in binding.nodes:
            loads.take(positions[node], binding.group.requests)
