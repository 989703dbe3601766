"""Counts an owner's replicas in each domain: those that run and those that this plan adds.

A replica whose stages are in several domains counts in each of them, because losing any of them ends it.
"""

from collections import Counter
from collections.abc import Iterable

from flotilla_operator.placement.groups import Policy, Snapshot

Counts = Counter[str | None]
Where = tuple[str, tuple[int, ...]]  # the owner of a replica, and the node of each stage


class Spread:
    """Replicas by owner and domain; a label is counted when it is first asked for."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self._topology = snapshot.topology
        self._policy = policy
        self._groups: dict[str, list[tuple[int, ...]]] = {}
        self._counts: dict[str, dict[str, Counts]] = {}
        for owner, positions in standing_in(snapshot):
            self._groups.setdefault(owner, []).append(positions)

    def counts(self, owner: str, label: str) -> Counts:
        """The owner's replicas in each domain of the label."""
        by_label = self._counts.setdefault(owner, {})
        if (known := by_label.get(label)) is None:
            known = by_label[label] = Counter()
            for positions in self._groups.get(owner, ()):
                known.update(self._domains(label, positions))
        return known

    def add(self, owner: str, positions: Iterable[int]) -> None:
        """Count one replica more."""
        self._groups.setdefault(owner, []).append(tuple(positions))
        for label, counts in self._counts.get(owner, {}).items():
            counts.update(self._domains(label, positions))

    def remove(self, owner: str, positions: Iterable[int]) -> None:
        """Count one replica less."""
        self._groups[owner].remove(tuple(positions))
        for label, counts in self._counts.get(owner, {}).items():
            counts.subtract(self._domains(label, positions))

    def check(self, expected: Iterable[Where]) -> None:
        """Assert that these replicas are counted, and no others, in each domain of each label."""
        counted = [(owner, positions) for owner, groups in self._groups.items() for positions in groups]
        assert sorted(counted) == sorted(expected), "a replica is not counted, or one that is gone still is"
        for owner, by_label in self._counts.items():
            for label, counts in by_label.items():
                domains = [self._domains(label, positions) for positions in self._groups.get(owner, ())]
                anew = Counter(domain for of_one in domains for domain in of_one)
                assert counts == anew, f"{owner} has {anew} replicas in the domains of {label}, not {counts}"

    def _domains(self, label: str, positions: Iterable[int]) -> set[str | None]:
        of = self._topology.partition(self._policy.path(label)).of
        return {of[position] for position in positions} - {None}


def standing_in(snapshot: Snapshot) -> list[Where]:
    """The replicas that stand. Nodes that are not in the topology are left out."""
    positions = snapshot.topology.positions
    return [
        (one.owner, tuple(positions[node] for node in one.nodes if node in positions))
        for one in snapshot.standing
    ]
