"""What is free on each node while one plan is made; private to that plan.

Nodes lie in buckets by the number of accelerators they have free, so the node with the least left over is
found without a look at all the others.
"""

from bisect import insort
from collections.abc import Iterator

from flotilla_operator.placement.groups import Snapshot
from flotilla_operator.placement.quantities import Amounts

Buckets = dict[int, list[int]]


class Loads:
    """What is free on each node."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._free = [dict(node.allocatable) for node in snapshot.topology.nodes]
        self._buckets: dict[str, Buckets] = {}
        positions = snapshot.topology.positions
        for claim in snapshot.claims:
            if (position := positions.get(claim.node)) is not None:
                self.take(position, claim.requests)

    def free(self, position: int, resource: str) -> int:
        """What is left of a resource on the node at this position; below zero when pods ask for more than
        it has.
        """
        return self._free[position].get(resource, 0)

    def take(self, position: int, requests: Amounts, times: int = 1) -> None:
        """Give an amount away; a negative number of times gives it back."""
        free = self._free[position]
        for resource, value in requests.items():
            before = free.get(resource, 0)
            free[resource] = before - value * times
            if (buckets := self._buckets.get(resource)) is not None and value:
                buckets[before].remove(position)
                insort(buckets.setdefault(free[resource], []), position)

    def lacks(self, position: int, requests: Amounts) -> frozenset[str]:
        """The resources of which the node has too little left."""
        return frozenset(
            resource for resource, value in requests.items() if value > self.free(position, resource)
        )

    def overdrawn(self, position: int) -> frozenset[str]:
        """The resources of which pods ask for more than the node has."""
        return frozenset(resource for resource, left in self._free[position].items() if left < 0)

    def holds(self, position: int, requests: Amounts) -> bool:
        """Whether the node has enough left."""
        free = self._free[position]
        for resource, value in requests.items():  # noqa: SIM110 (asked most often of all: twice as fast)
            if value > free.get(resource, 0):
                return False
        return True

    def room(self, position: int, requests: Amounts) -> int:
        """How many times the node could give this amount."""
        return times_in(self._free[position], requests)

    def fullest_first(self, resource: str, at_least: int) -> Iterator[int]:
        """The nodes that have so much of a resource left, least left first, equal ones by name."""
        buckets = self._of(resource)
        for amount in sorted(amount for amount in buckets if amount >= at_least):
            yield from buckets[amount]

    def total(self, resource: str) -> int:
        """What is left on all nodes together."""
        return sum(amount * len(nodes) for amount, nodes in self._of(resource).items() if amount > 0)

    def _of(self, resource: str) -> Buckets:
        if (known := self._buckets.get(resource)) is None:
            known = self._buckets[resource] = {}
            for position, free in enumerate(self._free):
                known.setdefault(free.get(resource, 0), []).append(position)
        return known


def times_in(free: Amounts, requests: Amounts) -> int:
    """How many times an amount is contained in what is free."""
    counts = [max(free.get(resource, 0), 0) // value for resource, value in requests.items() if value > 0]
    return min(counts, default=0)
