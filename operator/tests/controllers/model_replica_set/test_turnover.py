"""Scaling and updating as arithmetic over groups; a model of the whole update shows that it ends and
never dips.
"""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.turnover import RemovalReason, Turnover, decide
from tests.builders.pods import NOW


def member(
    name: str,
    phase: Phase = Phase.READY,
    *,
    revision: str = "new",
    age: float = 60,
    in_flight: int | None = None,
) -> ReplicaGroup:
    return ReplicaGroup(
        name=name,
        pod_name=name,
        uid=name,
        pinned=False,
        phase=phase,
        revision=revision,
        server_id=1,
        node="a",
        created_at=NOW - timedelta(seconds=age),
        in_flight=in_flight,
    )


def old(name: str, phase: Phase = Phase.READY) -> ReplicaGroup:
    return member(name, phase, revision="old")


@pytest.mark.parametrize(
    ("groups", "wanted", "create", "surge", "removed"),
    [
        pytest.param([], 2, 2, 0, [], id="nothing is there"),
        pytest.param([member("a"), member("b")], 2, 0, 0, [], id="all is there"),
        pytest.param(
            [member("a"), member("b", Phase.DRAINING)], 2, 1, 0, [], id="one that leaves does not count"
        ),
        pytest.param([member("a"), member("b", Phase.LOADING)], 1, 0, 0, ["b"], id="not ready leaves first"),
        pytest.param(
            [member("a", in_flight=3), member("b", in_flight=1)],
            1,
            0,
            0,
            ["b"],
            id="then the one with fewest requests",
        ),
        pytest.param([member("a", age=60), member("b", age=30)], 1, 0, 0, ["b"], id="then the youngest"),
        pytest.param([member("a"), member("b")], 0, 0, 0, ["a", "b"], id="scaled to zero"),
        pytest.param([old("a"), old("b")], 2, 0, 1, [], id="an update adds one first"),
        pytest.param([old("a"), old("b"), member("c", Phase.LOADING)], 2, 0, 0, [], id="and waits for it"),
        pytest.param(
            [old("a"), old("b"), member("c")], 2, 0, 1, ["a"], id="then one leaves and the next comes"
        ),
        pytest.param([old("a"), member("c")], 2, 0, 1, [], id="and so on"),
        pytest.param([old("a"), member("b"), member("c")], 2, 0, 0, ["a"], id="until none is left"),
        pytest.param(
            [old("a"), old("b", Phase.LOADING)],
            2,
            1,
            0,
            ["b"],
            id="an old one that never got ready leaves at once",
        ),
        pytest.param([old("a"), old("b"), old("c")], 1, 0, 1, ["a", "b"], id="scaled down while updating"),
    ],
)
def test_decide(groups: list[ReplicaGroup], wanted: int, create: int, surge: int, removed: list[str]) -> None:
    turnover = decide(groups, wanted=wanted, revision="new")
    assert (turnover.create, turnover.surge) == (create, surge)
    assert sorted(removal.group.name for removal in turnover.removals) == removed


def test_each_removal_says_why() -> None:
    turnover = decide([old("a"), member("b"), member("c"), member("d")], wanted=2, revision="new")
    assert {removal.reason for removal in turnover.removals} == set(RemovalReason)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([Phase.READY, Phase.LOADING])), max_size=6),
    st.integers(0, 5),
)
def test_every_update_ends_and_never_serves_with_fewer(start: list[tuple[bool, Phase]], wanted: int) -> None:
    groups = [
        member(f"g{i}", phase, revision="new" if is_new else "old") for i, (is_new, phase) in enumerate(start)
    ]
    serving = sum(g.phase is Phase.READY for g in groups)
    for step in range(40):
        turnover = decide(groups, wanted=wanted, revision="new")
        if turnover == Turnover(create=0, surge=0, removals=(), outdated=0) and all(
            g.phase is Phase.READY for g in groups
        ):
            break
        leaving = {removal.group.name for removal in turnover.removals}
        groups = [g for g in groups if g.name not in leaving]
        still = sum(g.phase is Phase.READY for g in groups)
        assert still >= min(serving, wanted), "an update took away what served"
        groups = [replace(g, phase=Phase.READY) for g in groups]
        groups += [member(f"s{step}-{i}", Phase.LOADING) for i in range(turnover.wanted_new)]
        assert len(groups) <= max(len(start), wanted + 1)
        serving = sum(g.phase is Phase.READY for g in groups)
    assert len(groups) == wanted
    assert all(g.revision == "new" for g in groups)
