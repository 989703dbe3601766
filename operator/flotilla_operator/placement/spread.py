"""How many replicas of an owner lie in each domain: those that stand and those this plan adds.

A replica whose stages lie in several domains counts in each, since the loss of any of them ends it.
"""

from collections import Counter
from collections.abc import Iterable

from flotilla_operator.placement.groups import Policy, Snapshot

Counts = Counter[str | None]


class Spread:
    """Replicas by owner and domain; counted for a label when it is first asked about."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self._topology = snapshot.topology
        self._policy = policy
        self._groups: dict[str, list[tuple[int, ...]]] = {}
        self._counts: dict[str, dict[str, Counts]] = {}
        positions = snapshot.topology.positions
        for standing in snapshot.standing:
            known = tuple(positions[node] for node in standing.nodes if node in positions)
            self._groups.setdefault(standing.owner, []).append(known)

    def counts(self, owner: str, label: str) -> Counts:
        """The owner's replicas in each domain of the label."""
        by_label = self._counts.setdefault(owner, {})
        if (known := by_label.get(label)) is None:
            known = by_label[label] = Counter()
            for positions in self._groups.get(owner, ()):
                known.update(self._domains(label, positions))
        return known

    def add(self, owner: str, positions: Iterable[int]) -> None:
        """A replica more."""
        self._groups.setdefault(owner, []).append(tuple(positions))
        for label, counts in self._counts.get(owner, {}).items():
            counts.update(self._domains(label, positions))

    def remove(self, owner: str, positions: Iterable[int]) -> None:
        """A replica less."""
        self._groups[owner].remove(tuple(positions))
        for label, counts in self._counts.get(owner, {}).items():
            counts.subtract(self._domains(label, positions))

    def _domains(self, label: str, positions: Iterable[int]) -> set[str | None]:
        of = self._topology.partition(self._policy.path(label)).of
        return {of[position] for position in positions} - {None}
