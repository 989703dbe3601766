"""Proposed moves of standing groups: those that raise the score, each with what it costs."""

import pytest

from flotilla_operator.placement import (
    Claim,
    Group,
    Node,
    Rebalancing,
    Settled,
    Snapshot,
    Topology,
    rebalance,
)
from flotilla_operator.placement.groups import RACK, ZONE
from tests.builders.placement import POLICY, group, node


def settled(one: Group, *nodes: str, sessions: int | None = None) -> Settled:
    return Settled(group=one, nodes=nodes, sessions=sessions)


def balanced(nodes: list[Node], *standing: Settled, others: tuple[Claim, ...] = ()) -> Rebalancing:
    claims = tuple(Claim(node=name, requests=one.group.requests) for one in standing for name in one.nodes)
    return rebalance(Snapshot(topology=Topology.of(nodes), claims=(*claims, *others)), standing, POLICY)


def moves(done: Rebalancing) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(move.group.name, move.from_nodes, move.to_nodes) for move in done.moves]


RACKS = [node(name, labels={ZONE: "x", RACK: rack}) for name, rack in zip("abcd", "1122", strict=True)]


@pytest.mark.holds("placement.md", "Rebalancing lists moves that raise the score, with what each costs")
@pytest.mark.parametrize(
    ("nodes", "standing", "expected"),
    [
        pytest.param(
            [node("a"), node("b")],
            [settled(group("g0", gpus=4), "a"), settled(group("g1", gpus=4), "b")],
            [("g0", ("a",), ("b",))],
            id="two halves become a whole",
        ),
        pytest.param(
            [node("a"), node("b")],
            [
                settled(group("g0", gpus=2), "a"),
                settled(group("g1", gpus=2), "a"),
                settled(group("g2", gpus=4), "b"),
            ],
            [("g2", ("b",), ("a",))],
            id="one group moves rather than two",
        ),
        pytest.param(
            [node("a"), node("b"), node("c")],
            [
                settled(group("g0", gpus=2), "a"),
                settled(group("g1", gpus=2), "a"),
                settled(group("g2", gpus=6), "b"),
                settled(group("g3", gpus=6), "c"),
            ],
            [("g0", ("a",), ("b",)), ("g1", ("a",), ("c",))],
            id="two groups leave a node together",
        ),
        pytest.param(
            RACKS,
            [settled(group("g", gpus=8, stages=2), "a", "c")],
            [("g", ("a", "c"), ("a", "b"))],
            id="stages that lie apart come together",
        ),
        pytest.param(
            [node("a", labels={ZONE: "x"}), node("b", labels={ZONE: "x"}), node("c", labels={ZONE: "y"})],
            [settled(group(name, gpus=8, spread_across=ZONE), at) for name, at in (("g0", "a"), ("g1", "b"))],
            [("g0", ("a",), ("c",))],
            id="replicas keep apart",
        ),
        pytest.param(
            [node("a"), node("b")],
            [settled(group("g0", gpus=8), "a"), settled(group("g1", gpus=4), "b")],
            [],
            id="what is well stays",
        ),
        pytest.param(
            [node("a"), node("b", cordoned=True)],
            [settled(group("g0", gpus=4), "a"), settled(group("g1", gpus=4), "gone")],
            [],
            id="nodes that are gone or cordoned count for nothing",
        ),
    ],
)
def test_moves(
    nodes: list[Node],
    standing: list[Settled],
    expected: list[tuple[str, tuple[str, ...], tuple[str, ...]]],
) -> None:
    done = balanced(nodes, *standing)
    assert moves(done) == expected
    if expected:
        assert (done.after.exact or 0) > (done.before.exact or 0)
        assert all(move.gain > 0 for move in done.moves)


@pytest.mark.holds("placement.md", "Rebalancing lists moves that raise the score, with what each costs")
def test_a_move_says_what_it_costs() -> None:
    standing = [
        settled(group("g0", gpus=4), "a", sessions=12),
        settled(group("g1", gpus=2), "b"),
    ]
    (move,) = balanced([node("a"), node("b")], *standing).moves
    assert (move.group.name, move.accelerators_restarted, move.sessions_lost) == ("g1", 2, None)
    assert move.gain == pytest.approx(6 / 8 - 6 / 16)


@pytest.mark.holds("placement.md", "In their order each move finds its nodes free")
def test_every_move_finds_its_nodes_free_in_its_turn() -> None:
    nodes = [node(f"n{i}") for i in range(8)]
    standing = [settled(group(f"g{i}", gpus=1 + i % 3, owner=f"o/{i % 2}"), f"n{i % 8}") for i in range(16)]
    done = balanced(nodes, *standing)
    assert done.moves
    free = {one.name: 8 - sum(s.group.wanted for s in standing if s.nodes == (one.name,)) for one in nodes}
    for move in done.moves:
        free[move.from_nodes[0]] += move.group.wanted
        free[move.to_nodes[0]] -= move.group.wanted
        assert free[move.to_nodes[0]] >= 0
    before = [one.name for one in nodes if any(s.nodes == (one.name,) for s in standing)]
    assert sum(left == 8 for left in free.values()) > len(nodes) - len(before)
    assert balanced(nodes[::-1], *standing[::-1]) == done, "input order changes nothing"
