"""An hour of ten sets whose groups fail, simulated on the pure packages alone.

The loop here does what the operator and a cluster do: it judges, places and turns over in steps of ten
seconds, and moves pods on. The policies are the real ones.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

from flotilla_operator.objects.owners import Owner
from flotilla_operator.placement import Claim, Group, Snapshot, Standing, Topology, place
from flotilla_operator.replicas.demand import (
    Demand,
    demand_of,
    judged_groups,
    placement_groups,
    standing_groups,
)
from flotilla_operator.replicas.facts import Form, SetFacts
from flotilla_operator.replicas.group import Member, Phase, groups_of
from flotilla_operator.replicas.intent import IntendedSet, in_force
from flotilla_operator.replicas.leaving.departures import departures
from flotilla_operator.replicas.leaving.draining import DrainStep, epoch_of
from flotilla_operator.replicas.leaving.endings import ended_groups
from flotilla_operator.replicas.memory import Listed, Remembered
from flotilla_operator.replicas.surroundings import Surroundings
from tests.builders.model_replica_set import spec_of
from tests.builders.placement import GPU, POLICY, group, node, used
from tests.builders.pods import NOW

STEP = timedelta(seconds=10)
STEPS = 360
LOADS_FOR = timedelta(seconds=60)
BREAKS_AFTER = timedelta(seconds=30)
NODES = [node(f"n{number}") for number in range(8)]
QUIET_FROM = 290  # then nothing is killed any more, and what backs off comes back
LOST = ("n3", 120, 240)  # gone from this step to that one
BROKEN = "set-9"


@dataclass
class Simulated:
    """A set's object, its pods and what its status remembers."""

    name: str
    replicas: int
    gpus: int
    members: dict[str, Member] = field(default_factory=dict)
    memory: Remembered = field(default_factory=Remembered)
    started: list[str] = field(default_factory=list)

    @cached_property
    def newest(self) -> Form:
        spec = spec_of(replicas=self.replicas, drain={"deadlineSeconds": 30})
        asks = group("any", gpus=self.gpus, owner=f"default/{self.name}")
        return Form(spec=spec, revision="r", asks=asks)

    def facts(self) -> SetFacts:
        owner = Owner(kind="ModelReplicaSet", namespace="default", name=self.name, uid=f"uid-{self.name}")
        return SetFacts(
            owner=owner, newest=self.newest, groups=groups_of(self.members.values()), memory=self.memory
        )

    def serving(self) -> int:
        return sum(member.phase is Phase.READY for member in self.members.values())


class Hour:
    """The clock, the nodes and the sets."""

    def __init__(self) -> None:
        self.draw = random.Random(7)
        self.sets = [
            Simulated(name=f"set-{number}", replicas=1 + number % 3, gpus=(1, 2, 4)[number % 3])
            for number in range(10)
        ]
        self.killed = 0
        self.most_used = 0

    def run(self, steps: int) -> None:
        for step in range(steps):
            now = NOW + step * STEP
            self._live(step, now)
            around = self._around(step)
            demands = [(one, *self._judged(one, around, now)) for one in self.sets]
            self._place(demands, around, now)

    def _around(self, step: int) -> Surroundings:
        name, gone, back = LOST
        nodes = [one for one in NODES if one.name != name or not gone <= step < back]
        claims = tuple(self._claims())
        for one in nodes:
            taken = sum(claim.requests[GPU] for claim in claims if claim.node == one.name)
            self.most_used = max(self.most_used, taken)
        return Surroundings(snapshot=Snapshot(topology=Topology.of(nodes), claims=claims), policy=POLICY)

    def _claims(self) -> Iterator[Claim]:
        for one in self.sets:
            yield from (held for member in one.members.values() if (held := member.claim) is not None)

    def _live(self, step: int, now: Any) -> None:
        """What scheduler, kubelet and bad luck do in a step."""
        for one in self.sets:
            one.members = {name: member for name, member in one.members.items() if not member.leaves}
            for name, member in one.members.items():
                one.members[name] = self._moved_on(one, member, now)
        serving = [(one, m) for one in self.sets for m in one.members.values() if m.phase is Phase.READY]
        if step % 6 == 5 and step < QUIET_FROM and serving:
            one, victim = self.draw.choice(serving)
            one.members[victim.name] = replace(victim, finished="killed", ready=False)
            self.killed += 1

    def _moved_on(self, one: Simulated, member: Member, now: Any) -> Member:
        age = now - member.created_at
        if member.finished is not None or member.phase is Phase.DRAINING:
            return member
        if one.name == BROKEN and age >= BREAKS_AFTER:
            return replace(member, finished="exit code 1", ready=False)
        if age >= LOADS_FOR:
            return replace(member, phase=Phase.READY, ready=True, ready_since=member.created_at + LOADS_FOR)
        return replace(member, phase=Phase.LOADING, bound_to=member.pin)

    def _judged(self, one: Simulated, around: Surroundings, now: Any) -> tuple[IntendedSet, Demand]:
        me = in_force(one.facts())
        demand = demand_of(me, judged_groups(me, around, now), around, now)
        for ended in ended_groups(demand.groups):
            for member in ended.members:
                one.members[member.name] = replace(member, leaves=True)
        for departure in departures(demand.turnover, (), timedelta(seconds=30), now):
            for member in departure.group.members:
                if departure.drained.step is DrainStep.BEGIN:
                    begun = replace(member, drain_epoch=epoch_of(now), phase=Phase.DRAINING)
                    one.members[member.name] = begun
                elif departure.drained.step is DrainStep.DELETE:
                    one.members[member.name] = replace(member, leaves=True)
        listed = {group.name: Listed(phase=Phase.WAITING, since=group.since) for group in demand.waiting}
        one.memory = replace(one.memory, listed=listed, backoff=demand.backoff)
        return me, demand

    def _place(
        self, demands: list[tuple[Simulated, IntendedSet, Demand]], around: Surroundings, now: Any
    ) -> None:
        waiting: list[Group] = []
        standing: list[Standing] = []
        for _, me, demand in demands:
            waiting += placement_groups(me, demand, around, now)
            standing += standing_groups(me, demand)
        snapshot = replace(around.snapshot, standing=standing)
        bound = place(snapshot, waiting, POLICY, now.timestamp()).bindings
        by_owner = {f"default/{one.name}": one for one in self.sets}
        for binding in bound:
            one = by_owner[binding.group.owner]
            one.started.append(binding.group.name)
            one.members[binding.group.name] = Member(
                name=binding.group.name,
                uid=f"uid-{binding.group.name}",
                group=binding.group.name,
                revision="r",
                phase=Phase.BINDING,
                created_at=now,
                pin=binding.nodes[0],
                may_bind_since=now,
                asks=binding.group.requests,
            )


def simulated(steps: int) -> Hour:
    hour = Hour()
    hour.run(steps)
    return hour


def test_ten_sets_with_failing_groups_keep_what_they_want_for_an_hour() -> None:
    hour = simulated(STEPS)
    assert hour.killed > 40
    assert used("n0", 8).requests[GPU] >= hour.most_used > 0, "no node was given away twice"
    for one in hour.sets:
        assert len(set(one.started)) == len(one.started), "no group has the name of another"
        if one.name != BROKEN:
            assert one.serving() == one.replicas, one.name
    (broken,) = (one for one in hour.sets if one.name == BROKEN)
    assert broken.serving() == 0
    assert 8 < len(broken.started) / broken.replicas < 25, "it backs off for up to five minutes"


def test_the_same_minutes_are_the_same_again() -> None:
    first, second = simulated(60), simulated(60)
    assert [one.started for one in first.sets] == [one.started for one in second.sets]
