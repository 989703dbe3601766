"""Which moves of standing groups would make their places better, and what each costs.

A move restarts a whole group, so only moves that raise the score are listed, the most gain for the fewest
restarted accelerators first. What is tried: one group to the place that it would get today, and all groups of
one node to other nodes, which gives a whole node back. The moves are in an order in which each finds its
nodes free when those before it are done and its own group is gone. The work is bounded: so many trials, then
so many steps, each tried again when its turn comes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from flotilla_operator.placement.choice import choose
from flotilla_operator.placement.groups import Group, Policy, Snapshot
from flotilla_operator.placement.ledger import Ledger, Positions
from flotilla_operator.placement.score import Like, Score, Scorer

TRIALS = 200
STEPS = 20
LEAST_GAIN = 1e-6  # what is less is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A group that stands on its nodes; `sessions` are the conversations that it keeps warm, None when that
    is not known.
    """

    group: Group
    nodes: tuple[str, ...]
    sessions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One group to other nodes. Moves of one step belong together, and `gain` is that of the whole step."""

    step: int
    group: Group
    from_nodes: tuple[str, ...]
    to_nodes: tuple[str, ...]
    gain: float
    accelerators_restarted: int
    sessions_lost: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalancing:
    """The moves in order, and the score of all standing groups before and after them."""

    moves: tuple[Move, ...]
    before: Score
    after: Score


def rebalance(snapshot: Snapshot, settled: Sequence[Settled], policy: Policy) -> Rebalancing:
    """The moves that would raise the score."""
    search = _Search(snapshot, settled, policy)
    before = search.score()
    moves: list[Move] = []
    steps = 0
    for step in search.ranked():
        if steps == STEPS:
            break
        done = search.carry_out(step, steps + 1)
        moves += done
        steps += bool(done)
    return Rebalancing(moves=tuple(moves), before=before, after=search.score())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Groups that go together; with a node, they leave it."""

    groups: tuple[Settled, ...]
    vacated: int | None
    gain: float = 0.0

    @property
    def merit(self) -> tuple[float, float, int, list[str]]:
        """The lower the better: gain for each accelerator that restarts, gain, groups, names."""
        restarted = sum(one.group.accelerators for one in self.groups)
        names = [f"{one.group.owner}/{one.group.name}" for one in self.groups]
        return -self.gain / restarted, -self.gain, len(self.groups), names


class _Search:
    """The standing groups as if this plan had placed them, so that moves can be tried and undone."""

    def __init__(self, snapshot: Snapshot, settled: Sequence[Settled], policy: Policy) -> None:
        known = snapshot.topology.positions
        ours = [one for one in settled if all(node in known for node in one.nodes)]
        self._settled = {
            (one.group.owner, one.group.name): one
            for one in sorted(ours, key=lambda one: (one.group.owner, one.group.name))
        }
        theirs = Counter((one.owner, one.nodes) for one in snapshot.standing)
        theirs.subtract((one.group.owner, one.nodes) for one in ours)
        others = [one for one in snapshot.standing if theirs[one.owner, one.nodes] > 0]
        self._ledger = Ledger(replace(snapshot, standing=others), policy)
        self._scorer = Scorer(snapshot.topology, self._ledger.loads, policy)
        for one in self._settled.values():
            positions = tuple(known[node] for node in one.nodes)
            for position in positions:
                self._ledger.loads.take(position, one.group.requests, -1)
            self._ledger.take(one.group, positions)

    def score(self) -> Score:
        """The score of all groups where they are now."""
        by_owner: dict[tuple[str, str, str | None], list[Positions]] = {}
        for key, one in self._settled.items():
            like = (one.group.owner, one.group.accelerator, one.group.spread_across)
            by_owner.setdefault(like, []).append(self._ledger.bound[key][1])
        return self._scorer.of_many(
            [Like(groups, accelerator, label) for (_, accelerator, label), groups in by_owner.items()]
        )

    def ranked(self) -> list[_Step]:
        """The steps that would be worth something now, the best first."""
        before = self.score().exact or 0.0
        worth = []
        for step in islice(self._candidates(), TRIALS):
            mark = self._ledger.mark()
            if self._apply(step):
                gain = (self.score().exact or 0.0) - before
                if gain >= LEAST_GAIN:
                    worth.append(replace(step, gain=gain))
            self._ledger.undo_to(mark)
        return sorted(worth, key=lambda step: step.merit)

    def carry_out(self, step: _Step, number: int) -> list[Move]:
        """The moves of a step, done; none, and nothing changed, when it is worth nothing any more."""
        mark, before = self._ledger.mark(), self.score().exact or 0.0
        from_nodes = [self._nodes(one) for one in step.groups]
        gain = (self.score().exact or 0.0) - before if self._apply(step) else 0.0
        if gain < LEAST_GAIN:
            self._ledger.undo_to(mark)
            return []
        return [
            Move(
                step=number,
                group=one.group,
                from_nodes=nodes,
                to_nodes=self._nodes(one),
                gain=gain,
                accelerators_restarted=one.group.accelerators,
                sessions_lost=one.sessions,
            )
            for one, nodes in zip(step.groups, from_nodes, strict=True)
        ]

    def _candidates(self) -> Iterator[_Step]:
        """Groups that lie apart, nodes with the least in use, then single groups."""
        at: dict[int, list[Settled]] = {}
        for key, one in self._settled.items():
            for position in dict.fromkeys(self._ledger.bound[key][1]):
                at.setdefault(position, []).append(one)
        apart = [one for one in self._settled.values() if len(set(self._nodes(one))) > 1]
        for one in apart:
            yield _Step(groups=(one,), vacated=None)
        in_use = {p: sum(one.group.wanted for one in ours) for p, ours in at.items()}
        for position in sorted(at, key=lambda p: (in_use[p], p)):
            largest_first = sorted(
                at[position], key=lambda one: (-one.group.accelerators, one.group.owner, one.group.name)
            )
            yield _Step(groups=tuple(largest_first), vacated=position)
        for one in self._settled.values():
            if one not in apart:
                yield _Step(groups=(one,), vacated=None)

    def _apply(self, step: _Step) -> bool:
        """Move the groups one after the other; False when one of them finds no other place."""
        ledger = self._ledger
        for one in step.groups:
            before = ledger.bound[one.group.owner, one.group.name][1]
            ledger.give_back(one.group)
            if step.vacated is not None:
                ledger.kept_for[step.vacated] = NOBODY
            after = choose(ledger, one.group)
            ledger.kept_for.pop(step.vacated if step.vacated is not None else -1, None)
            if after is None or after == before:
                return False
            ledger.take(one.group, after)
        return True

    def _nodes(self, one: Settled) -> tuple[str, ...]:
        positions = self._ledger.bound[one.group.owner, one.group.name][1]
        return tuple(self._ledger.topology.nodes[position].name for position in positions)


# A node that is to be vacated is kept for nobody, so no group goes back to it.
NOBODY = Group(owner="", name="", accelerator="", requests={"": 1}, waiting_since_seconds=0)
