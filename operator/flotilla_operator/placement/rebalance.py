"""Moves of running replicas that would raise the placement score, each with its cost.

A move restarts a whole replica, so only moves that raise the score are listed, those first that gain the most
for each accelerator that restarts. Two kinds are tried: one replica to the place that it would get today, and
all replicas of one node to other nodes, so that the node becomes free. The moves are in an order in which
each finds its nodes free after the earlier moves, when its own replica has left. The work is bounded by a
number of trials and a number of steps; each step is tried again when its turn comes.
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
LEAST_GAIN = 1e-6  # a smaller gain is a rounding error


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A replica that runs on its nodes. `sessions` counts the conversations that it keeps warm, if known."""

    group: Group
    nodes: tuple[str, ...]
    sessions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedMove:
    """One replica to other nodes. `gain` is that of the whole step, which may have several moves."""

    step: int
    group: Group
    from_nodes: tuple[str, ...]
    to_nodes: tuple[str, ...]
    gain: float
    accelerators_restarted: int
    sessions_lost: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalancing:
    """The moves in order, and the score of all replicas before and after them."""

    moves: tuple[ProposedMove, ...]
    before: Score
    after: Score


def rebalance(snapshot: Snapshot, settled: Sequence[Settled], policy: Policy) -> Rebalancing:
    """The moves that would raise the score."""
    search = _Search(snapshot, settled, policy)
    before = search.score()
    moves: list[ProposedMove] = []
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
    """Replicas that move together; `vacated` is the node that they leave, if the step frees one."""

    groups: tuple[Settled, ...]
    vacated: int | None
    gain: float = 0.0

    @property
    def merit(self) -> tuple[float, float, int, list[str]]:
        """The rank, lower is better: gain for each restarted accelerator, gain, number of replicas, names."""
        restarted = sum(one.group.accelerators for one in self.groups)
        names = [f"{one.group.owner}/{one.group.name}" for one in self.groups]
        return -self.gain / restarted, -self.gain, len(self.groups), names


class _Search:
    """The running replicas as if this plan had placed them, so that moves can be tried and undone."""

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
            self._ledger.adopt(one.group, positions)

    def score(self) -> Score:
        """The score of all replicas where they are now."""
        by_owner: dict[tuple[str, str, str | None], list[Positions]] = {}
        for one in self._settled.values():
            like = (one.group.owner, one.group.accelerator, one.group.spread_across)
            by_owner.setdefault(like, []).append(self._ledger.positions_of(one.group))
        return self._scorer.of_many(
            [Like(groups, accelerator, label) for (_, accelerator, label), groups in by_owner.items()]
        )

    def ranked(self) -> list[_Step]:
        """The steps that would raise the score now, the best first."""
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

    def carry_out(self, step: _Step, number: int) -> list[ProposedMove]:
        """Do a step and return its moves; do nothing and return none when it no longer raises the score."""
        mark, before = self._ledger.mark(), self.score().exact or 0.0
        from_nodes = [self._nodes(one) for one in step.groups]
        gain = (self.score().exact or 0.0) - before if self._apply(step) else 0.0
        if gain < LEAST_GAIN:
            self._ledger.undo_to(mark)
            return []
        return [
            ProposedMove(
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
        """Steps to try: replicas on several nodes, nodes with the fewest accelerators in use, single ones."""
        at: dict[int, list[Settled]] = {}
        for one in self._settled.values():
            for position in dict.fromkeys(self._ledger.positions_of(one.group)):
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
        """Move the replicas one after another; False when one of them finds no other place."""
        ledger = self._ledger
        for one in step.groups:
            before = ledger.positions_of(one.group)
            ledger.give_back(one.group)
            after = choose(ledger, one.group, without=step.vacated)
            if after is None or after == before:
                return False
            ledger.take(one.group, after)
        return True

    def _nodes(self, one: Settled) -> tuple[str, ...]:
        positions = self._ledger.positions_of(one.group)
        return tuple(self._ledger.topology.nodes[position].name for position in positions)
