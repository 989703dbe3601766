"""Scaling, updating and emptying nodes as arithmetic over groups; a model of the whole way shows that it
ends, never dips and never has too many. How a group leaves is in test_draining.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.leaving.turnover import Goal, Pace, RemovalReason, Turnover, decide
from tests.builders.groups import member

LOADING = Phase.LOADING


def old(name: str, phase: Phase = Phase.READY, **fields: Any) -> ReplicaGroup:
    return member(name, phase, revision="old", **fields)


def moving(name: str, **fields: Any) -> ReplicaGroup:
    return member(name, node_leaves=True, **fields)


def draining(group: ReplicaGroup) -> ReplicaGroup:
    return replace(group, phase=Phase.DRAINING, drain_epoch=7)


def going(group: ReplicaGroup) -> ReplicaGroup:
    return replace(group, phase=Phase.DRAINING, going=True)


def names(groups: tuple[ReplicaGroup, ...]) -> str:
    return " ".join(sorted(group.name for group in groups))


def leaving(turnover: Turnover) -> str:
    return names(tuple(removal.group for removal in turnover.removals))


@pytest.mark.holds("draining.md", "The victim of a scale-down is chosen in the order of the page")
@pytest.mark.holds("draining.md", "Where there is no room for a replacement the replica stays")
@pytest.mark.parametrize(
    ("groups", "wanted", "new", "removed"),
    [
        pytest.param([], 2, (2, 0), "", id="nothing is there"),
        pytest.param([member("a"), member("b")], 2, (0, 0), "", id="all is there"),
        pytest.param([member("a"), going(member("b"))], 2, (1, 0), "", id="one that goes does not count"),
        pytest.param([member("a"), member("b", LOADING)], 1, (0, 0), "b", id="not ready leaves first"),
        pytest.param(
            [member("a", sessions=3), member("b", sessions=1)], 1, (0, 0), "b", id="then fewest sessions"
        ),
        pytest.param(
            [member("a", in_flight=3), member("b", in_flight=1)], 1, (0, 0), "b", id="open ones count too"
        ),
        pytest.param(
            [member("a", others_on_nodes=2), member("b", others_on_nodes=1)],
            1,
            (0, 0),
            "b",
            id="then the one that leaves its node emptiest",
        ),
        pytest.param([member("a", age=60), member("b", age=30)], 1, (0, 0), "b", id="then the youngest"),
        pytest.param([member("a"), member("b")], 0, (0, 0), "a b", id="scaled to zero"),
        pytest.param([old("a"), old("b")], 2, (0, 1), "", id="an update adds one first"),
        pytest.param([old("a"), old("b"), member("c", LOADING)], 2, (0, 0), "", id="and waits for it"),
        pytest.param([old("a"), old("b"), member("c")], 2, (0, 0), "a", id="then one drains"),
        pytest.param(
            [draining(old("a")), old("b"), member("c")],
            2,
            (0, 0),
            "a",
            id="and the next comes only when it is gone, since it holds its accelerators",
        ),
        pytest.param([going(old("a")), old("b"), member("c")], 2, (0, 1), "", id="and so on"),
        pytest.param([old("a"), member("b"), member("c")], 2, (0, 0), "a", id="until none is left"),
        pytest.param(
            [old("a"), old("b", LOADING)], 2, (1, 1), "b", id="an old one that never got ready leaves at once"
        ),
        pytest.param([old("a"), old("b"), old("c")], 1, (0, 0), "a b", id="scaled down while updating"),
        pytest.param([moving("a"), member("b")], 2, (0, 1), "", id="a node that leaves: another comes first"),
        pytest.param(
            [member("a", moved=True), member("b")], 2, (0, 1), "", id="a rebalancing: another comes first"
        ),
        pytest.param(
            [member("a", moved=True), member("b"), member("c")], 2, (0, 0), "a", id="and the moved one goes"
        ),
        pytest.param(
            [moving("a"), moving("b"), member("c")], 2, (0, 0), "a", id="then one moves, and not the other"
        ),
        pytest.param(
            [draining(moving("a")), moving("b"), member("c"), member("d")],
            2,
            (0, 0),
            "a",
            id="nor while the first one drains, whatever could be spared",
        ),
    ],
)
def test_decide(groups: list[ReplicaGroup], wanted: int, new: tuple[int, int], removed: str) -> None:
    turnover = decide(groups, Goal(wanted=wanted, revision="new"))
    assert (turnover.create, turnover.surge) == new
    assert leaving(turnover) == removed
    assert turnover.returning == ()


def in_doubt(group: ReplicaGroup) -> ReplicaGroup:
    return replace(group, members=tuple(replace(one, unseen=True) for one in group.members))


@pytest.mark.parametrize(
    "held",
    [
        pytest.param(in_doubt(old("b", LOADING)), id="nobody knows whether it exists"),
        pytest.param(old("b", LOADING, used=True), id="a router uses it"),
    ],
)
def test_what_leaves_but_not_at_once_still_takes_its_place(held: ReplicaGroup) -> None:
    turnover = decide([old("a"), held], Goal(wanted=2, revision="new"))
    assert leaving(turnover) == "b"
    assert turnover.wanted_new == 1


@pytest.mark.holds(
    "draining.md", "`maxSurge` and `maxUnavailable` bound an update, draining replicas included"
)
@pytest.mark.parametrize(
    ("groups", "pace", "new", "removed"),
    [
        pytest.param("abc", Pace(max_surge=2), (0, 2), "", id="two at a time"),
        pytest.param("abc", Pace(max_surge=0, max_unavailable=1), (0, 0), "a", id="no room: one goes first"),
        pytest.param("abc", Pace(max_surge=1, max_unavailable=1), (1, 0), "a", id="both"),
        pytest.param("abc", Pace(max_surge=0, max_unavailable=3), (0, 0), "a b c", id="all at once"),
        pytest.param("bc", Pace(max_surge=0, max_unavailable=1), (1, 0), "", id="when it is gone, one comes"),
    ],
)
def test_the_pace_of_an_update(groups: str, pace: Pace, new: tuple[int, int], removed: str) -> None:
    turnover = decide([old(name) for name in groups], Goal(wanted=3, revision="new", pace=pace))
    assert (turnover.create, turnover.surge) == new
    assert leaving(turnover) == removed


@pytest.mark.holds(
    "draining.md",
    "A drain is called off when replicas are wanted again; the replica with the most conversations "
    "comes back",
)
@pytest.mark.parametrize(
    ("groups", "wanted", "returning", "create"),
    [
        pytest.param(
            [member("a"), draining(member("b", sessions=1)), draining(member("c", sessions=9))],
            2,
            "c",
            0,
            id="the one with the most sessions comes back, and none is created",
        ),
        pytest.param([member("a"), draining(member("b"))], 1, "", 0, id="not wanted, it goes on leaving"),
        pytest.param([member("a"), going(member("b"))], 2, "", 1, id="one that is being deleted cannot"),
        pytest.param(
            [draining(moving("a")), member("b")],
            2,
            "a",
            0,
            id="of too few, one on a leaving node serves on",
        ),
        pytest.param(
            [draining(old("a")), old("b"), member("c", LOADING)],
            2,
            "a",
            0,
            id="an old one serves on when the new one that took its place has failed",
        ),
        pytest.param(
            [draining(old("a", LOADING)), old("b"), member("c", LOADING)], 2, "", 0, id="if it can serve"
        ),
    ],
)
def test_a_drain_is_called_off(groups: list[ReplicaGroup], wanted: int, returning: str, create: int) -> None:
    turnover = decide(groups, Goal(wanted=wanted, revision="new"))
    assert names(turnover.returning) == returning
    assert turnover.create == create
    assert not set(leaving(turnover).split()) & set(returning.split())


def test_what_is_ready_comes_back_in_place_of_its_replacement_that_still_loads() -> None:
    """As when a node is uncordoned, and the pace had let its replica leave first."""
    goal = Goal(wanted=1, revision="new", pace=Pace(max_surge=1, max_unavailable=1))
    loading = decide([draining(member("a")), member("b", LOADING)], goal)
    assert (names(loading.returning), leaving(loading)) == ("a", "b")
    taken_over = decide([draining(member("a")), member("b")], goal)
    assert (names(taken_over.returning), leaving(taken_over)) == ("", "a")


@pytest.mark.parametrize(
    ("groups", "wanted", "reason"),
    [
        pytest.param([member("a")], 0, RemovalReason.SCALED_DOWN, id="it is not wanted any more"),
        pytest.param([old("a"), member("b")], 1, RemovalReason.OUTDATED, id="it is of an older revision"),
        pytest.param([moving("a"), member("b")], 1, RemovalReason.NODE_LEAVES, id="its node leaves"),
        pytest.param(
            [member("a", moved=True), member("b")], 1, RemovalReason.REBALANCED, id="it has moved elsewhere"
        ),
        pytest.param(
            [member("a", shares_id=True), member("b")],
            1,
            RemovalReason.SERVER_ID_TAKEN,
            id="routers send its requests to another one",
        ),
        pytest.param(
            [old("a", node_leaves=True, moved=True), member("b")],
            1,
            RemovalReason.OUTDATED,
            id="it is outdated, wherever it is",
        ),
        pytest.param(
            [moving("a", moved=True), member("b")],
            1,
            RemovalReason.NODE_LEAVES,
            id="its node leaves before it has moved",
        ),
    ],
)
def test_each_removal_says_why(groups: list[ReplicaGroup], wanted: int, reason: RemovalReason) -> None:
    (removal,) = decide(groups, Goal(wanted=wanted, revision="new")).removals
    assert (removal.group.name, removal.reason) == ("a", reason)


def test_the_groups_are_counted_for_the_status() -> None:
    groups = [old("a"), draining(old("b")), member("c"), moving("d")]
    turnover = decide(groups, Goal(wanted=3, revision="new"))
    assert (turnover.updated, turnover.outdated, turnover.moving) == (1, 2, 1)


HOLDS = Goal(wanted=2, revision="new", pace=Pace(max_surge=1, max_unavailable=2), replaces=False)


@pytest.mark.holds(
    "engine.md",
    "A folder of the node that is not listed is `NodePathNotListed`; no pod is made, and what runs stays",
)
@pytest.mark.parametrize(
    ("groups", "removed", "returning"),
    [
        pytest.param([old("a"), old("b")], "", "", id="outdated ones serve on"),
        pytest.param([old("a"), old("b", LOADING)], "", "", id="one that loads goes on"),
        pytest.param([moving("a"), member("b")], "", "", id="none moves"),
        pytest.param([old("a"), draining(old("b"))], "", "b", id="one that drains is needed again"),
        pytest.param([old("a"), old("b"), draining(old("c"))], "c", "", id="one too many drains on"),
        pytest.param([old("a"), old("b"), old("c", LOADING)], "c", "", id="one too many leaves"),
        pytest.param([member("a"), old("b"), member("c")], "b", "", id="an outdated one before others"),
    ],
)
def test_while_nothing_can_start_nothing_is_replaced(
    groups: list[ReplicaGroup], removed: str, returning: str
) -> None:
    turnover = decide(groups, HOLDS)
    assert (leaving(turnover), names(turnover.returning)) == (removed, returning)


START = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.sampled_from([Phase.READY, LOADING]), st.booleans()),
    max_size=6,
)


@pytest.mark.holds(
    "draining.md", "`maxSurge` and `maxUnavailable` bound an update, draining replicas included"
)
@given(
    START,
    st.integers(0, 5),
    st.tuples(st.integers(0, 2), st.integers(0, 2)).filter(any),
    st.randoms(use_true_random=False),
)
def test_every_way_ends_never_dips_and_never_has_too_many(
    start: list[tuple[bool, bool, Phase, bool]], wanted: int, limits: tuple[int, int], luck: object
) -> None:
    """Drains end and groups become ready when they like; a group is gone only after it drained."""
    pace = Pace(max_surge=limits[0], max_unavailable=limits[1])
    goal = Goal(wanted=wanted, revision="new", pace=pace)
    groups = [
        member(f"g{i}", phase, revision="new" if new else "old", node_leaves=leaves)
        for i, (new, leaves, phase, _) in enumerate(start)
    ]
    groups = [draining(g) if drains else g for g, (*_, drains) in zip(groups, start, strict=True)]
    for step in range(80):
        before = sum(g.ready and g.lives for g in groups)
        turnover = decide(groups, goal)
        if (
            turnover.wanted_new == 0
            and not turnover.removals
            and not turnover.returning
            and all(g.ready for g in groups)
        ):
            break
        groups = _carried_out(groups, turnover, step, luck)
        serving = sum(g.ready and g.lives for g in groups)
        assert serving >= min(before, goal.floor), "what served was taken away"
        assert len(groups) <= max(len(start), wanted + pace.max_surge)
    assert len(groups) == wanted
    assert all(g.revision == "new" and not g.node_leaves for g in groups)


def _carried_out(
    groups: list[ReplicaGroup], turnover: Turnover, step: int, luck: "object"
) -> list[ReplicaGroup]:
    leave = {removal.group.name for removal in turnover.removals}
    back = {group.name for group in turnover.returning}
    kept = []
    for group in groups:
        if group.name in back:
            kept.append(replace(group, phase=Phase.READY if group.ready else LOADING, drain_epoch=None))
        elif group.name not in leave:
            lucky = luck.random() < 0.7  # type: ignore[attr-defined]
            kept.append(replace(group, phase=Phase.READY, ready=True) if lucky else group)
        elif group.drain_epoch is None and group.may_have_requests:
            kept.append(draining(group))
        elif group.drain_epoch is not None and luck.random() < 0.5:  # type: ignore[attr-defined]
            kept.append(group)
    return [*kept, *(member(f"s{step}-{i}", LOADING) for i in range(turnover.wanted_new))]
