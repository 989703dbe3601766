"""A plan's state in plain dicts, to compare the ledger with: every answer is counted anew."""

from collections import Counter

from flotilla_operator.placement import Claim, Group
from flotilla_operator.placement.groups import ZONE
from flotilla_operator.placement.ledger import Positions
from flotilla_operator.placement.topology import HOSTNAME
from tests.builders.placement import group, node

NODES = (
    node("n0", gpus=4, labels={ZONE: "x"}),
    node("n1", gpus=4, labels={ZONE: "x"}, cores=2),
    node("n2", gpus=4, labels={ZONE: "y"}),
    node("n3", gpus=8, labels={ZONE: "y"}),
    node("n4", gpus=4),
    node("n5", gpus=8, labels={ZONE: "y"}, cordoned=True),
)
HERE = range(len(NODES))
GROUPS = {
    one.name: one
    for one in (
        *(group(f"small-{i}", gpus=1, owner="d/a") for i in range(4)),
        *(group(f"half-{i}", gpus=2, owner="d/a") for i in range(3)),
        *(group(f"whole-{i}", gpus=4, owner="d/b") for i in range(3)),
        group("cores", gpus=1, cores=3, owner="d/b"),
        group("largest", gpus=8, owner="d/b"),
        group("wish", gpus=2, owner="d/c", spread_across=ZONE),
        *(group(f"apart-{i}", owner="d/c", spread_across=ZONE, required=True) for i in range(2)),
        group("hosts", owner="d/c", spread_across=HOSTNAME, required=True),
        group("two", gpus=2, owner="d/b", stages=2),
        group("packed", gpus=4, owner="d/b", stages=2, pack_within=ZONE, required=True),
    )
}


class Counted:
    """Bound and reserved resources, and what follows from them."""

    def __init__(self, others: list[Claim], standing: list[tuple[str, str]]) -> None:
        self.others = others
        self.standing = standing
        self.bound: dict[str, Positions] = {}
        self.kept: dict[int, str] = {}

    def free(self, position: int, resource: str) -> int:
        here = NODES[position]
        left = here.allocatable.get(resource, 0)
        left -= sum(claim.requests.get(resource, 0) for claim in self.others if claim.node == here.name)
        for name, positions in self.bound.items():
            left -= positions.count(position) * GROUPS[name].requests.get(resource, 0)
        return left

    def room(self, position: int, asking: Group) -> int:
        return min(max(self.free(position, key), 0) // value for key, value in asking.requests.items())

    def replicas(self, owner: str, label: str) -> Counter[str]:
        lying = [{node} for by, node in self.standing if by == owner]
        lying += [
            {NODES[position].name for position in positions}
            for name, positions in self.bound.items()
            if GROUPS[name].owner == owner
        ]
        of = {one.name: one.label(label) for one in NODES}
        return Counter(domain for nodes in lying for domain in {of[n] for n in nodes} if domain is not None)

    def accepts(self, position: int, asking: Group) -> bool:
        """Whether the node may take the group, whatever is free and reserved."""
        must = (asking.pack_within or asking.spread_across) if asking.required else None
        return not NODES[position].cordoned and (must is None or NODES[position].label(must) is not None)

    def kept_from(self, asking: Group, position: int) -> bool:
        return self.kept.get(position, asking.name) != asking.name

    def crowded(self, position: int, asking: Group) -> bool:
        """Whether the group would go where more replicas of its owner are than elsewhere, and must not."""
        if not asking.required or asking.spread_across is None:
            return False
        counts = self.replicas(asking.owner, asking.spread_across)
        label = NODES[position].label(asking.spread_across)
        domains = {one.label(asking.spread_across) for one in NODES} - {None}
        return label is not None and counts[label] > min(counts[str(domain)] for domain in domains)

    def together(self, asking: Group) -> list[list[int]]:
        """The sets of nodes in one of which all stages must be."""
        if not asking.must_pack:
            return [list(HERE)]
        return [[p for p in HERE if NODES[p].label(ZONE) == zone] for zone in ("x", "y")]

    def fits(self, asking: Group) -> bool:
        rooms = {
            position: self.room(position, asking)
            for position in HERE
            if self.accepts(position, asking)
            and not self.kept_from(asking, position)
            and not self.crowded(position, asking)
        }
        return any(sum(rooms.get(p, 0) for p in nodes) >= asking.stages for nodes in self.together(asking))

    def can_keep(self, asking: Group) -> bool:
        rooms = {
            position: empty_room(position, asking)
            for position in HERE
            if self.accepts(position, asking) and position not in self.kept
        }
        return any(sum(rooms.get(p, 0) for p in nodes) >= asking.stages for nodes in self.together(asking))


def empty_room(position: int, asking: Group) -> int:
    there = NODES[position].allocatable
    return min(there.get(key, 0) // value for key, value in asking.requests.items())
