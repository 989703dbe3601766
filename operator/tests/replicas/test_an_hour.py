"""An hour of ten sets whose groups fail, simulated on the pure packages alone.

The loop here plays scheduler, kubelet, callers and bad luck in steps of ten seconds. What to do is decided by
`next_step`, with the placement round that all sets share, and by autoscaling's policy.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from flotilla_operator.autoscaling.from_zero import decide
from flotilla_operator.objects.owners import Owner
from flotilla_operator.placement import Claim, Snapshot, Topology
from flotilla_operator.replicas.facts import Form, RouterLoad, SetFacts
from flotilla_operator.replicas.group import GroupIdentity, Member, Phase, groups_of
from flotilla_operator.replicas.intent import in_force
from flotilla_operator.replicas.leaving.draining import DrainStep, epoch_of
from flotilla_operator.replicas.memory import Listed, Remembered
from flotilla_operator.replicas.rounds import Asked, Asks, Round, asked_by_another
from flotilla_operator.replicas.scale import all_ready_since, policy_of, zero_signals
from flotilla_operator.replicas.stages import SetSeen, Step, next_step
from flotilla_operator.replicas.surroundings import Surroundings
from tests.builders.model_replica_set import spec_of
from tests.builders.placement import GPU, POLICY, group, node
from tests.builders.pods import NOW

STEP = timedelta(seconds=10)
STEPS = 360
LOADS_FOR = timedelta(seconds=60)
BREAKS_AFTER = timedelta(seconds=30)
NODES = [node(f"n{number}") for number in range(8)]
QUIET_FROM = 290  # then nothing is killed any more, and what backs off comes back
LOST = ("n3", 120, 240)  # gone from this step to that one
BROKEN = "set-9"
ON_CALL = "set-0"  # has replicas only while somebody calls it
CALLED = (range(60, 90), range(200, 230))  # the steps in which it has a request


@dataclass
class Simulated:
    """A set's object, its pods and what its status remembers."""

    name: str
    replicas: int
    gpus: int
    members: dict[str, Member] = field(default_factory=dict)
    memory: Remembered = field(default_factory=Remembered)
    started: list[str] = field(default_factory=list)
    load: RouterLoad = field(default_factory=RouterLoad)

    @cached_property
    def newest(self) -> Form:
        on_call = {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 60}
        more: dict[str, Any] = {"autoscaling": on_call} if self.name == ON_CALL else {}
        spec = spec_of(replicas=self.replicas, drain={"deadlineSeconds": 30}, **more)
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
        self.rounds = 0
        self.served_on_call: list[int] = []
        self.last_round: Round | None = None

    def run(self, steps: int) -> None:
        for step in range(steps):
            now = NOW + step * STEP
            self._live(step, now)
            asked = {f"default/{one.name}": self._asked(one, step, now) for one in self.sets}
            for one in self.sets:
                self._reconcile(one, asked, step, now)
            if self.sets[0].serving():
                self.served_on_call.append(step)

    def _asked(self, one: Simulated, step: int, now: datetime) -> Asked:
        return asked_by_another(in_force(one.facts()), self._around(step), now)

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

    def _live(self, step: int, now: datetime) -> None:
        """Play scheduler, kubelet, callers and bad luck in one step."""
        for one in self.sets:
            one.members = {name: member for name, member in one.members.items() if not member.leaves}
            for name, member in one.members.items():
                one.members[name] = self._moved_on(one, member, now)
        calls = int(any(step in called for called in CALLED))
        since = max((called.stop for called in CALLED if called.stop <= step), default=0)
        idle = 0.0 if calls else (step - since) * STEP.total_seconds()
        self.sets[0].load = RouterLoad(waiting=calls, running=0, idle_seconds=idle)
        serving = [(one, m) for one in self.sets for m in one.members.values() if m.phase is Phase.READY]
        if step % 6 == 5 and step < QUIET_FROM and serving:
            one, victim = self.draw.choice(serving)
            one.members[victim.name] = replace(victim, finished="killed", ready=False)
            self.killed += 1

    def _moved_on(self, one: Simulated, member: Member, now: datetime) -> Member:
        age = now - member.created_at
        if member.finished is not None or member.phase is Phase.DRAINING:
            return member
        if one.name == BROKEN and age >= BREAKS_AFTER:
            return replace(member, finished="exit code 1", ready=False)
        if age >= LOADS_FOR:
            return replace(member, phase=Phase.READY, ready=True, ready_since=member.created_at + LOADS_FOR)
        return replace(member, phase=Phase.LOADING, bound_to=member.pin)

    def _reconcile(self, one: Simulated, asked: dict[str, Asked], step: int, now: datetime) -> None:
        facts, name = one.facts(), f"default/{one.name}"
        policy, signals = (
            policy_of(one.newest.spec),
            zero_signals(one.load, all_ready_since(facts.groups), now),
        )
        scaled = None if policy is None else decide(signals, policy, current=one.memory.wanted)
        others = {other: asks for other, asks in asked.items() if other != name and asks.groups}
        seen = SetSeen(
            facts=facts,
            around=self._around(step),
            asks=Asks(others=others, own=asked[name], version=step),
            last_round=self.last_round,
            load=one.load,
            scaled=scaled,
        )
        taken = next_step(seen, now)
        assert taken is not None
        if taken.room.made is not None:
            self.rounds += 1
            self.last_round = taken.room.made
        self._carry_out(one, taken, now)
        started = {group.name for group in taken.started}
        rest = tuple(group for group in taken.room.asked.groups if group.name not in started)
        asked[name] = replace(taken.room.asked, groups=rest)

    def _carry_out(self, one: Simulated, taken: Step, now: datetime) -> None:
        for ended in taken.ended:
            for member in ended.members:
                one.members[member.name] = replace(member, leaves=True)
        for departure in taken.departures:
            for member in departure.group.members:
                if departure.drained.step is DrainStep.BEGIN:
                    begun = replace(member, drain_epoch=epoch_of(now), phase=Phase.DRAINING)
                    one.members[member.name] = begun
                elif departure.drained.step is DrainStep.DELETE:
                    one.members[member.name] = replace(member, leaves=True)
        for identity in taken.started:
            one.started.append(identity.name)
            one.members[identity.name] = self._pod(one, identity, now)
        listed = {waiting.name: Listed(phase=Phase.WAITING, since=waiting.since) for waiting in taken.waiting}
        one.memory = replace(
            one.memory,
            wanted=taken.me.replicas,
            waiting=len(taken.waiting),
            listed=listed,
            backoff=taken.demand.backoff,
            rollout=taken.rollout,
        )

    def _pod(self, one: Simulated, identity: GroupIdentity, now: datetime) -> Member:
        assert one.newest.asks is not None
        return Member(
            name=identity.name,
            uid=f"uid-{identity.name}",
            group=identity.name,
            revision=identity.revision,
            phase=Phase.BINDING,
            created_at=now,
            server_id=identity.server_id,
            pin=identity.nodes[0],
            may_bind_since=now,
            asks=one.newest.asks.requests,
        )


def simulated(steps: int) -> Hour:
    hour = Hour()
    hour.run(steps)
    return hour


def test_ten_sets_with_failing_groups_keep_what_they_want_for_an_hour() -> None:
    hour = simulated(STEPS)
    assert hour.killed > 40
    assert 0 < hour.most_used <= 8, "no node was given away twice"
    for one in hour.sets:
        assert len(set(one.started)) == len(one.started), "no group has the name of another"
        if one.name not in (BROKEN, ON_CALL):
            assert one.serving() == one.replicas, one.name
    (broken,) = (one for one in hour.sets if one.name == BROKEN)
    assert broken.serving() == 0
    assert 8 < len(broken.started) / broken.replicas < 25, "it backs off for up to five minutes"
    assert 0 < hour.rounds <= STEPS, "sets share a round"


def test_a_set_on_call_serves_while_it_is_called_and_a_minute_longer() -> None:
    hour = simulated(STEPS)
    first, second = CALLED
    assert hour.served_on_call, "it has served"
    for step in hour.served_on_call:
        assert any(called.start < step <= called.stop + 6 + 3 for called in CALLED), step
    loads = LOADS_FOR // STEP
    assert first.start + loads + 1 in hour.served_on_call
    assert second.stop in hour.served_on_call
    assert hour.sets[0].members == {}


def test_the_same_minutes_are_the_same_again() -> None:
    first, second = simulated(60), simulated(60)
    assert [one.started for one in first.sets] == [one.started for one in second.sets]
