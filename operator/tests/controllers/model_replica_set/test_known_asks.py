"""Sets that share placement rounds: no accelerator is given away twice, and no room is left that a round of
its own would use.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla_operator.controllers.model_replica_set.observe.known_asks import KEPT_FOR, KnownAsks
from flotilla_operator.controllers.model_replica_set.observe.parsed_sets import ParsedSet, parsed
from flotilla_operator.placement import Claim, Standing
from flotilla_operator.replicas.rounds import Asked, Asks, Room, room_for, round_of
from flotilla_operator.replicas.surroundings import Surroundings
from tests.builders.model_replica_set import gpu_set
from tests.builders.placement import POLICY, cluster, group, node
from tests.builders.pods import NOW

NODES = ("a", "b", "c")
NAMES = ("one", "two", "three", "four")


def set_named(name: str) -> ParsedSet:
    manifest = gpu_set()
    return parsed({**manifest, "metadata": {**manifest["metadata"], "name": name, "uid": f"uid-{name}"}})


@dataclass
class Played:
    """A set as it is: how many replicas it wants, of which size, and where those run that it has started."""

    seen: ParsedSet
    gpus: int
    wanted: int
    priority: int
    running: dict[str, str] = field(default_factory=dict)

    def asked(self, since: float) -> Asked:
        owner = self.seen.full_name
        free = [name for name in map(str, range(4)) if name not in self.running]
        groups = [
            group(name, gpus=self.gpus, owner=owner, since=since, priority=self.priority)
            for name in free[: self.wanted - len(self.running)]
        ]
        standing = [Standing(owner=owner, nodes=(where,)) for where in self.running.values()]
        return Asked(groups=tuple(groups), standing=tuple(standing))


class Site:
    """Some nodes and sets; a set is looked at when the story says so, and shares rounds with the others."""

    def __init__(self, sets: list[Played]) -> None:
        self.sets, self.known, self.now = sets, KnownAsks(), NOW
        self.foreign: set[str] = set()
        self.rounds = 0

    @property
    def around(self) -> Surroundings:
        running = [(one.gpus, where) for one in self.sets for where in one.running.values()]
        claims = [Claim(node=where, requests=group("", gpus=gpus).requests) for gpus, where in running]
        claims += [Claim(node=where, requests={"nvidia.com/gpu": 8}) for where in sorted(self.foreign)]
        return Surroundings(snapshot=cluster(*map(node, NODES), claims=tuple(claims)), policy=POLICY)

    def look_at(self, one: Played) -> Room:
        by_uid = {other.seen.uid: other for other in self.sets}
        others = [other.seen for other in self.sets if other is not one]

        def ask(seen: ParsedSet) -> Asked:
            return by_uid[seen.uid].asked(self.now.timestamp())

        asks = self.known.seen_by(one.seen, others, ask, self.now)
        mine, name = one.asked(self.now.timestamp()), one.seen.full_name
        room = room_for(name, mine, asks, self.around, self.known.last_round, self.now)
        self.rounds += room.made is not None
        bound = room.placement.bindings if room.placement else ()
        self.known.note(one.seen.uid, name, room, {binding.group.name for binding in bound}, self.now)
        for binding in bound:
            one.running[binding.group.name] = binding.nodes[0]
        if bound:
            self.known.has_changed(one.seen.uid)
        return room

    def check(self) -> None:
        """Assert that no node has given away more than it has. Foreign pods come only to empty nodes."""
        loads = self.around.snapshot
        for where in NODES:
            held = sum(claim.requests["nvidia.com/gpu"] for claim in loads.claims if claim.node == where)
            assert held <= 8, f"{where} has given away {held}"

    def settle(self) -> None:
        for _ in range(3):
            for one in self.sets:
                self.look_at(one)
                self.check()

    def unused(self) -> int:
        """How many groups a round of its own would place, now that all sets have been looked at."""
        everyone = {one.seen.full_name: one.asked(self.now.timestamp()) for one in self.sets}
        first, *_ = everyone
        fresh = round_of(first, everyone.pop(first), Asks(others=everyone), self.around, self.now)
        return len(fresh.placement.bindings)


played = st.builds(
    Played,
    seen=st.just(None),
    gpus=st.sampled_from([1, 2, 4, 8]),
    wanted=st.integers(0, 4),
    priority=st.sampled_from([0, 0, 10]),
)
Step = Callable[[Site], None]


def look(index: int) -> Step:
    def step(site: Site) -> None:
        site.look_at(site.sets[index])

    return step


def lose(index: int) -> Step:
    def step(site: Site) -> None:
        one = site.sets[index]
        if one.running:
            one.running.pop(min(one.running))
            site.known.has_changed(one.seen.uid)

    return step


def want(index: int, wanted: int) -> Step:
    def step(site: Site) -> None:
        one = site.sets[index]
        one.wanted = max(wanted, len(one.running))
        site.known.has_changed(one.seen.uid)

    return step


def foreign(where: str) -> Step:
    def step(site: Site) -> None:
        taken = {used for one in site.sets for used in one.running.values()}
        if where in site.foreign or where not in taken:
            site.foreign ^= {where}

    return step


def wait(seconds: int) -> Step:
    def step(site: Site) -> None:
        site.now += timedelta(seconds=seconds)

    return step


steps = st.one_of(
    st.builds(look, st.integers(0, 3)),
    st.builds(look, st.integers(0, 3)),
    st.builds(lose, st.integers(0, 3)),
    st.builds(want, st.integers(0, 3), st.integers(0, 4)),
    st.builds(foreign, st.sampled_from(NODES)),
    st.builds(wait, st.sampled_from([1, 70, 700])),
)


@pytest.mark.holds(
    "placement.md",
    "Sets that wait share one round until something changes; none of the room is lost or given twice",
)
@settings(max_examples=150)
@given(sets=st.lists(played, min_size=4, max_size=4), story=st.lists(steps, max_size=25))
def test_shared_rounds_give_nothing_twice_and_leave_no_room_unused(
    sets: list[Played], story: list[Step]
) -> None:
    site = Site([replace(one, seen=set_named(name)) for one, name in zip(sets, NAMES, strict=True)])
    for step in story:
        step(site)
        site.check()
    site.settle()
    assert site.unused() == 0


def waiting_site(count: int) -> Site:
    """Sets of one whole node each, more than there are nodes."""
    names = [f"set-{index}" for index in range(count)]
    return Site([Played(seen=set_named(name), gpus=8, wanted=1, priority=0) for name in names])


@pytest.mark.holds(
    "placement.md",
    "Sets that wait share one round until something changes; none of the room is lost or given twice",
)
def test_many_sets_that_wait_share_one_round() -> None:
    site = waiting_site(30)
    site.settle()
    assert sum(len(one.running) for one in site.sets) == len(NODES)
    assert site.rounds == 1


def test_room_that_becomes_free_costs_one_more() -> None:
    site = waiting_site(30)
    site.settle()
    lucky = next(one for one in site.sets if one.running)
    lucky.running.clear()
    lucky.wanted = 0
    site.known.has_changed(lucky.seen.uid)
    site.settle()
    assert sum(len(one.running) for one in site.sets) == len(NODES)
    assert site.rounds == 2


def test_a_set_that_has_not_changed_is_asked_again_only_after_a_while() -> None:
    known, me, other, asked = KnownAsks(), set_named("me"), set_named("other"), []

    def ask(seen: ParsedSet) -> Asked:
        asked.append(seen.uid)
        return Asked()

    def look(*others: ParsedSet, later: timedelta = timedelta()) -> int:
        asked.clear()
        known.seen_by(me, others, ask, NOW + later)
        return len(asked)

    assert [look(other), look(other)] == [1, 0]
    assert look(set_named("other")) == 1, "its object was written"
    known.has_changed(other.uid)
    assert [look(other), look(other)] == [1, 0]
    known.all_changed()
    assert [look(other), look(other, later=KEPT_FOR)] == [1, 1]
    assert look() == 0
    assert other.uid not in known.kept, "it is gone"
