"""Free amounts on each node while one plan is made; each plan has its own.

Nodes are sorted into buckets by their number of free accelerators, so the node with the fewest left is found
without looking at all others. Whoever only reads is given `Free`, which has no method that changes anything.
"""

from bisect import insort
from collections.abc import Iterator, Sequence

from flotilla_operator.objects.quantities import Amounts
from flotilla_operator.placement.groups import Snapshot

Buckets = dict[int, list[int]]


class Free:
    """Answers what is free on each node."""

    def __init__(self, amounts: Sequence[Amounts]) -> None:
        self._free = [dict(amount) for amount in amounts]
        self._buckets: dict[str, Buckets] = {}

    def free(self, position: int, resource: str) -> int:
        """Return the free amount of a resource; negative when pods ask for more than there is."""
        return self._free[position].get(resource, 0)

    def lacks(self, position: int, requests: Amounts) -> frozenset[str]:
        """The resources of which the node has less free than is asked for."""
        return frozenset(
            resource for resource, value in requests.items() if value > self.free(position, resource)
        )

    def overdrawn(self, position: int) -> frozenset[str]:
        """The resources of which pods ask for more than the node has."""
        return frozenset(resource for resource, left in self._free[position].items() if left < 0)

    def holds(self, position: int, requests: Amounts) -> bool:
        """Whether the node has all of this free."""
        free = self._free[position]
        for resource, value in requests.items():  # noqa: SIM110 (asked most often of all: twice as fast)
            if value > free.get(resource, 0):
                return False
        return True

    def room(self, position: int, requests: Amounts) -> int:
        """How often the node could give this amount."""
        return times_in(self._free[position], requests)

    def fullest_first(self, resource: str, at_least: int) -> Iterator[int]:
        """The nodes with at least this much free, those with the least free first, then by name."""
        buckets = self._of(resource)
        for amount in sorted(amount for amount in buckets if amount >= at_least):
            yield from buckets[amount]

    def total(self, resource: str) -> int:
        """Return the free amount on all nodes together."""
        return sum(amount * len(nodes) for amount, nodes in self._of(resource).items() if amount > 0)

    def exceeds(self, other: "Free") -> bool:
        """Whether any node has more free of anything than in `other`, which is about the same nodes."""
        return any(
            left > there.get(resource, 0)
            for here, there in zip(self._free, other._free, strict=True)
            for resource, left in here.items()
        )

    def check(self, expected: Sequence[Amounts]) -> None:
        """Assert that this much is free on each node, and that each node is in its bucket."""
        for position, (free, amounts) in enumerate(zip(self._free, expected, strict=True)):
            for resource in free.keys() | amounts.keys():
                found, right = free.get(resource, 0), amounts.get(resource, 0)
                assert found == right, f"{found} {resource} are free on node {position}, not {right}"
        for resource, buckets in self._buckets.items():
            listed = sorted((position, left) for left, nodes in buckets.items() for position in nodes)
            frees = [(position, free.get(resource, 0)) for position, free in enumerate(self._free)]
            assert listed == frees, f"a node is in no bucket or in a wrong one of {resource}"
            assert all(nodes == sorted(nodes) for nodes in buckets.values()), "a bucket is not sorted"

    def _of(self, resource: str) -> Buckets:
        if (known := self._buckets.get(resource)) is None:
            known = self._buckets[resource] = {}
            for position, free in enumerate(self._free):
                known.setdefault(free.get(resource, 0), []).append(position)
        return known


class Loads(Free):
    """Free amounts on each node, less those that are taken."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__([node.allocatable for node in snapshot.topology.nodes])
        positions = snapshot.topology.positions
        for claim in snapshot.claims:
            if (position := positions.get(claim.node)) is not None:
                self.take(position, claim.requests)

    def take(self, position: int, requests: Amounts, times: int = 1) -> None:
        """Give an amount away; a negative `times` gives it back."""
        free = self._free[position]
        for resource, value in requests.items():
            before = free.get(resource, 0)
            free[resource] = before - value * times
            if (buckets := self._buckets.get(resource)) is not None and value:
                buckets[before].remove(position)
                insort(buckets.setdefault(free[resource], []), position)


def times_in(free: Amounts, requests: Amounts) -> int:
    """How often an amount fits into what is free."""
    counts = [max(free.get(resource, 0), 0) // value for resource, value in requests.items() if value > 0]
    return min(counts, default=0)
