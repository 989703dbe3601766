"""The state of a plan, against plain dicts that are counted anew for each question.

Whatever is taken, given back, moved, reserved and undone in whatever order, the ledger agrees with the model
and its indexes agree with each other. What whole plans decide: test_place.py, test_gangs.py,
test_properties.py.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flotilla_operator.placement import Claim, Group, Standing
from flotilla_operator.placement.choice import choose
from flotilla_operator.placement.groups import ZONE
from flotilla_operator.placement.keep import keep_nodes
from flotilla_operator.placement.ledger import Ledger, Positions
from flotilla_operator.placement.repair import Repair
from flotilla_operator.placement.topology import HOSTNAME
from tests.builders.placement import GPU, POLICY, cluster, used
from tests.support.counted_ledger import GROUPS, HERE, NODES, Counted, empty_room
from tests.support.generated import ENOUGH, EXAMPLES

OWNERS = ("d/a", "d/b", "d/c")
STEPS = 30
CASES = (
    "more is held than there is",
    "a group takes nodes",
    "a group fits nowhere",
    "a group goes to another node",
    "others move to make room",
    "there is no room to make",
    "nodes are reserved",
    "no nodes can be reserved",
    "a node is refused",
    "a reserved node with room is refused",
    "a group comes back",
    "a reservation ends",
)


class LedgerMachine(RuleBasedStateMachine):
    """Steps of a plan in any order."""

    def saw(self, case: str) -> None:
        event(case)

    @initialize(
        others=st.lists(st.builds(used, st.sampled_from(["n0", "n3", "n4", "gone"]), st.integers(1, 5))),
        standing=st.lists(
            st.tuples(st.sampled_from(OWNERS), st.sampled_from(["n0", "n2", "n4"])), max_size=2
        ),
        running=st.dictionaries(
            st.sampled_from(["half-0", "wish", "two"]), st.tuples(st.sampled_from([0, 2, 3])), max_size=2
        ),
    )
    def begin(
        self, others: list[Claim], standing: list[tuple[str, str]], running: dict[str, Positions]
    ) -> None:
        """Others' pods hold something, some replicas stand, and some run that may be moved."""
        self.model = Counted(others, standing)
        self.model.bound = {name: of * GROUPS[name].stages for name, of in running.items()}
        claims = [
            Claim(node=NODES[position].name, requests=GROUPS[name].requests)
            for name, positions in self.model.bound.items()
            for position in positions
        ]
        replicas = tuple(Standing(owner=owner, nodes=(name,)) for owner, name in standing)
        self.ledger = Ledger(cluster(*NODES, claims=(*others, *claims), standing=replicas), POLICY)
        for name, positions in self.model.bound.items():
            self.ledger.adopt(GROUPS[name], positions)
        self.at_start = [self.model.free(position, GPU) for position in HERE]
        self.marks: list[tuple[int, dict[str, Positions], dict[int, str]]] = []
        if min(self.at_start) < 0:
            self.saw("more is held than there is")

    def unbound(self) -> list[str]:
        return [name for name in GROUPS if name not in self.model.bound]

    def waiting(self, data: st.DataObject) -> Group:
        return GROUPS[data.draw(st.sampled_from(self.unbound()))]

    def placed(self, data: st.DataObject) -> Group:
        return GROUPS[data.draw(st.sampled_from(sorted(self.model.bound)))]

    def take(self, asking: Group, positions: Positions) -> None:
        self.ledger.take(asking, positions)
        self.model.bound[asking.name] = positions

    def give_back(self, leaving: Group) -> Positions:
        self.ledger.give_back(leaving)
        return self.model.bound.pop(leaving.name)

    @rule(data=st.data())
    def place(self, data: st.DataObject) -> None:
        """A group takes the nodes that are chosen for it, if it fits."""
        asking = self.waiting(data)
        positions = choose(self.ledger, asking)
        assert (positions is not None) == self.model.fits(asking)
        self.saw("a group fits nowhere" if positions is None else "a group takes nodes")
        if positions is not None:
            assert all(self.model.accepts(p, asking) and not self.model.crowded(p, asking) for p in positions)
            self.take(asking, positions)

    @rule(data=st.data())
    def take_any(self, data: st.DataObject) -> None:
        """A group asks for any nodes, and gets them only if they have room and are not another's."""
        asking = self.waiting(data)
        drawn = data.draw(st.lists(st.sampled_from(HERE), min_size=asking.stages, max_size=asking.stages))
        positions = tuple(drawn)
        full = any(positions.count(p) > self.model.room(p, asking) for p in positions)
        if not full and not any(self.model.kept_from(asking, p) for p in positions):
            self.take(asking, positions)
            return
        self.saw("a node is refused")
        with pytest.raises(AssertionError):
            self.ledger.take(asking, positions)

    @precondition(lambda self: self.model.bound)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.give_back(self.placed(data))

    @precondition(lambda self: self.model.bound)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """A group goes to other nodes than its first, or stays if there are none."""
        moving = self.placed(data)
        mark = self.ledger.mark()
        before = self.give_back(moving)
        positions = choose(self.ledger, moving, without=before[0])
        if positions is None:
            self.ledger.undo_to(mark)
            self.model.bound[moving.name] = before
            self.saw("a group comes back")
            return
        assert before[0] not in positions
        self.take(moving, positions)
        self.saw("a group goes to another node")

    @rule(data=st.data())
    def repair(self, data: st.DataObject) -> None:
        """Others move so that a group fits; if that fails, nothing has changed."""
        lacking = [name for name in self.unbound() if not self.model.fits(GROUPS[name])]
        if not lacking:
            return
        asking = GROUPS[data.draw(st.sampled_from(lacking))]
        made = Repair(self.ledger).make_room(asking)
        self.saw("there is no room to make" if made is None else "others move to make room")
        if made is not None:
            after = {one.name: positions for one, positions in self.ledger.bound()}
            assert after.keys() == self.model.bound.keys() | {asking.name}, "a group lost its place"
            self.model.bound = after

    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        """Nodes that are not reserved yet are reserved for the whole of a group."""
        asking = self.waiting(data)
        if asking.name in self.model.kept.values():
            return
        could, kept = self.model.can_keep(asking), keep_nodes(self.ledger, asking)
        assert kept == could
        self.saw("nodes are reserved" if kept else "no nodes can be reserved")
        new = [p for p in HERE if p not in self.model.kept and self.ledger.is_kept(p)]
        assert not kept or sum(empty_room(p, asking) for p in new) >= asking.stages
        self.model.kept |= dict.fromkeys(new, asking.name)

    @precondition(lambda self: self.model.kept)
    @rule(data=st.data())
    def ask_for_reserved(self, data: st.DataObject) -> None:
        """A reserved node is not reserved again, and no other group gets it."""
        position = data.draw(st.sampled_from(sorted(self.model.kept)))
        asking = self.waiting(data)
        with pytest.raises(AssertionError):
            self.ledger.keep(asking, [position])
        if self.model.kept_from(asking, position):
            if self.model.room(position, asking) >= asking.stages:
                self.saw("a reserved node with room is refused")
            with pytest.raises(AssertionError):
                self.ledger.take(asking, (position,) * asking.stages)

    @rule()
    def mark(self) -> None:
        self.marks.append((self.ledger.mark(), dict(self.model.bound), dict(self.model.kept)))

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        """Everything is as it was at a mark."""
        del self.marks[data.draw(st.integers(1, len(self.marks))) :]
        mark, bound, kept = self.marks.pop()
        self.ledger.undo_to(mark)
        if bound.keys() - self.model.bound.keys():
            self.saw("a group comes back")
        if self.model.kept.keys() - kept.keys():
            self.saw("a reservation ends")
        self.model.bound, self.model.kept = bound, kept

    @rule(owner=st.sampled_from(OWNERS), label=st.sampled_from([ZONE, HOSTNAME]))
    def ask_for_replicas(self, owner: str, label: str) -> None:
        found = self.ledger.replicas(owner, label)
        assert {domain: count for domain, count in found.items() if count} == self.model.replicas(
            owner, label
        )

    @rule(asked=st.sampled_from([GPU, "cpu"]), least=st.integers(1, 8))
    def ask_for_what_is_free(self, asked: str, least: int) -> None:
        free = {position: self.model.free(position, asked) for position in HERE}
        assert self.ledger.loads.total(asked) == sum(max(left, 0) for left in free.values())
        enough = [position for position, left in free.items() if left >= least]
        assert list(self.ledger.loads.fullest_first(asked, least)) == sorted(
            enough, key=lambda p: (free[p], p)
        )

    @invariant()
    def the_ledger_agrees(self) -> None:
        self.ledger.check()
        assert {one.name: positions for one, positions in self.ledger.bound()} == self.model.bound
        for position in HERE:
            for resource in NODES[position].allocatable:
                assert self.ledger.loads.free(position, resource) == self.model.free(position, resource)
            there = {name for name, positions in self.model.bound.items() if position in positions}
            assert {one.name for one in self.ledger.bound_at(position)} == there
            assert self.ledger.is_kept(position) == (position in self.model.kept)
            for one in GROUPS.values():
                assert self.ledger.kept_from(one, position) == self.model.kept_from(one, position)


@pytest.mark.holds("placement.md", "A group is placed whole or not at all, and no GPU is given twice")
def test_the_ledger_agrees_with_what_is_counted_anew() -> None:
    run_state_machine_as_test(
        LedgerMachine, settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS)
    )


def test_the_cases_of_the_machine_are_drawn() -> None:
    seen: Counter[str] = Counter()

    class Watched(LedgerMachine):
        def saw(self, case: str) -> None:
            seen[case] += 1

    run_state_machine_as_test(
        Watched,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    assert few(seen) == {}


def few(seen: Counter[str]) -> dict[str, int]:
    return {case: seen[case] for case in CASES if seen[case] < ENOUGH}
