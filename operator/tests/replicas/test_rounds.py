"""A placement round answers a set until what it rests on has changed.

Sets that share rounds: controllers/model_replica_set/test_known_asks.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.placement import Claim, Group, Snapshot, Standing
from flotilla_operator.replicas.backoff import RefusedPods
from flotilla_operator.replicas.memory import Remembered
from flotilla_operator.replicas.rounds import (
    Asked,
    Asks,
    Round,
    foreseen,
    may_ask,
    room_for,
    round_of,
)
from flotilla_operator.replicas.surroundings import Surroundings
from tests.builders.model_replica_set import spec_of
from tests.builders.placement import GPU, POLICY, cluster, group, node, used

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SINCE = NOW.timestamp()


def around(*claims: Claim, nodes: Sequence[str] = ("a",), **changes: object) -> Surroundings:
    shown = [node(name, **changes) for name in nodes]  # type: ignore[arg-type]
    return Surroundings(snapshot=cluster(*shown, claims=claims), policy=POLICY)


def eight(name: str, owner: str, **changes: object) -> Group:
    return group(name, gpus=8, owner=owner, **{"since": SINCE, **changes})  # type: ignore[arg-type]


def asked(*groups: Group) -> Asked:
    return Asked(groups=groups)


MINE, THEIRS = asked(eight("x", "ns/a")), asked(eight("y", "ns/b"))
HELD = Claim(node="a", requests=MINE.groups[0].requests)


def first_round(there: Surroundings | None = None, others: Asked = THEIRS) -> Round:
    """Where a's group takes the only node, and b's is refused."""
    return round_of("ns/a", MINE, Asks(others={"ns/b": others}), there or around(), NOW)


def answer_for_b(last: Round, there: Surroundings, asks: Asks, mine: Asked = THEIRS) -> str:
    """Answer to b: a node, a refusal or nothing."""
    found = last.answer("ns/b", mine, asks, there, NOW)
    if found is None:
        return "nothing"
    return found.bindings[0].nodes[0] if found.bindings else "refused"


ASKS = Asks(others={"ns/a": MINE}, own=THEIRS)
STARTED = Asks(others={}, own=THEIRS)


@pytest.mark.parametrize(
    ("there", "asks", "told"),
    [
        pytest.param(around(), ASKS, "refused", id="nothing has changed"),
        pytest.param(around(HELD), STARTED, "refused", id="the other has started as it was bound"),
        pytest.param(around(HELD, used("a", 0)), STARTED, "refused", id="somebody holds more"),
        pytest.param(around(), STARTED, "nothing", id="the other no longer asks and holds nothing"),
        pytest.param(around(nodes=("a", "b")), ASKS, "nothing", id="a node came"),
        pytest.param(around(cordoned=True), ASKS, "nothing", id="a node is cordoned"),
        pytest.param(around(), replace(ASKS, version=1), "nothing", id="a set asks for something new"),
    ],
)
def test_a_refusal_stands_until_there_may_be_room(there: Surroundings, asks: Asks, told: str) -> None:
    assert answer_for_b(first_round(), there, asks) == told


def test_room_that_was_freed_since_voids_the_round() -> None:
    last = first_round(around(used("a", 8)))
    assert not last.placement.bindings
    assert answer_for_b(last, around(used("a", 8)), ASKS) == "refused"
    assert answer_for_b(last, around(), ASKS) == "nothing"


@pytest.mark.holds("placement.md", "A binding is checked against the newest facts before its pods are made")
@pytest.mark.parametrize(
    ("there", "told"),
    [
        pytest.param(around(), ("a",), id="its node is as free as it was"),
        pytest.param(around(used("a", 1)), None, id="somebody took what it was bound to"),
        pytest.param(around(ready=False), None, id="its node is not ready any more"),
    ],
)
def test_a_binding_is_checked_against_the_newest_facts(
    there: Surroundings, told: tuple[str, ...] | None
) -> None:
    found = first_round().answer("ns/a", MINE, Asks(others={"ns/b": THEIRS}, own=MINE), there, NOW)
    assert (found.bindings[0].nodes if found else None) == told


@pytest.mark.parametrize(
    ("mine", "told"),
    [
        pytest.param(asked(eight("z", "ns/b", since=SINCE + 5)), "refused", id="under another name"),
        pytest.param(asked(eight("y", "ns/b", priority=1)), "nothing", id="more urgent"),
        pytest.param(asked(eight("y", "ns/b", left_out=frozenset("a"))), "nothing", id="not on that node"),
        pytest.param(asked(eight("y", "ns/b"), eight("z", "ns/b")), "nothing", id="for one more"),
        pytest.param(asked(group("y", gpus=4, owner="ns/b")), "nothing", id="for less"),
    ],
)
def test_the_answer_is_for_what_was_asked(mine: Asked, told: str) -> None:
    assert answer_for_b(first_round(), around(), ASKS, mine) == told


def test_the_names_of_the_answer_are_those_of_the_one_who_asks() -> None:
    renamed = asked(eight("new", "ns/a"))
    found = first_round().answer("ns/a", renamed, Asks(others={"ns/b": THEIRS}, own=MINE), around(), NOW)
    assert found is not None
    assert found.binding_of("ns/a", "new") is not None


def test_a_set_that_lost_what_it_had_started_stands_in_line_again() -> None:
    """Else it would get its node back although another has waited longer."""
    last, again = first_round(), Asks(others={"ns/b": THEIRS}, own=asked())
    assert last.answer("ns/a", MINE, again, around(), NOW) is None


def test_what_is_left_over_of_a_partly_served_set_is_told_again() -> None:
    both = asked(eight("x", "ns/a"), eight("z", "ns/a"))
    last = round_of("ns/a", both, Asks(), around(), NOW)
    rest = asked(both.groups[1])
    found = last.answer("ns/a", rest, Asks(own=rest), around(HELD), NOW)
    assert found is not None
    assert [refusal.group.name for refusal in found.refusals] == ["z"]


def test_a_round_ends_when_nodes_are_kept_for_one_who_waits() -> None:
    last = first_round()
    assert last.ages_at == SINCE + POLICY.aging_seconds
    aged = NOW + timedelta(seconds=POLICY.aging_seconds)
    assert last.answer("ns/b", THEIRS, ASKS, around(), aged - timedelta(seconds=1)) is not None
    assert last.answer("ns/b", THEIRS, ASKS, around(), aged) is None


def test_replicas_that_are_spread_are_placed_anew_when_one_more_stands() -> None:
    spread = replace(THEIRS, groups=(eight("y", "ns/b", spread_across="zone"),))
    last = first_round(others=spread)
    stands = replace(spread, standing=(Standing(owner="ns/b", nodes=("a",)),))
    asks = replace(ASKS, own=spread)
    assert answer_for_b(last, around(), asks, spread) == "refused"
    assert answer_for_b(last, around(), asks, stands) == "nothing"


@pytest.mark.parametrize(
    ("before", "now", "holds"),
    [
        pytest.param(MINE, MINE, True, id="the same"),
        pytest.param(MINE, asked(), True, id="less by what was bound"),
        pytest.param(None, MINE, True, id="never looked at, the same"),
        pytest.param(asked(), asked(), True, id="still nothing"),
        pytest.param(asked(), MINE, False, id="again, after it was served"),
        pytest.param(MINE, asked(eight("x", "ns/a"), eight("z", "ns/a")), False, id="more"),
    ],
)
def test_what_a_round_foresees(before: Asked | None, now: Asked, holds: bool) -> None:
    assert foreseen(before, now, first_round(), "ns/a") is holds


def test_without_a_round_only_silence_is_foreseen() -> None:
    assert foreseen(None, asked(), None, "ns/a")
    assert not foreseen(None, MINE, None, "ns/a")
    assert not foreseen(THEIRS, asked(), first_round(), "ns/unknown")


@pytest.mark.holds("architecture.md", "A new round wakes the sets of which it says something else")
@pytest.mark.parametrize(
    ("before", "after", "concerned"),
    [
        pytest.param(None, around(), {"ns/b": False}, id="the first round of all"),
        pytest.param(around(), around(), {}, id="nothing has changed"),
        pytest.param(around(), around(nodes=("a", "b")), {"ns/b": True}, id="a node came"),
        pytest.param(around(nodes=("a", "b")), around(), {"ns/b": False}, id="a node went"),
        pytest.param(around(), around(used("a", 8)), {}, id="it is refused for the same reason"),
        pytest.param(around(), around(cordoned=True), {"ns/b": False}, id="it is refused for another one"),
    ],
)
def test_a_round_concerns_the_sets_of_which_it_says_something_else(
    before: Surroundings | None, after: Surroundings, concerned: dict[str, bool]
) -> None:
    last = first_round(before) if before is not None else None
    assert first_round(after).concerned(last, but="ns/a") == concerned


def test_a_round_concerns_nobody_because_of_names_and_times() -> None:
    renamed = asked(eight("new", "ns/b", since=SINCE + 1))
    assert first_round(others=renamed).concerned(first_round(), but="ns/a") == {}


def test_a_set_that_asks_for_nothing_makes_no_round() -> None:
    room = room_for("ns/a", asked(), ASKS, around(), None, NOW)
    assert (room.placement, room.made) == (None, None)


def test_a_round_that_answers_is_not_made_again() -> None:
    asks = Asks(others={"ns/b": THEIRS}, own=MINE)
    made = room_for("ns/a", MINE, asks, around(), None, NOW)
    assert made.made is not None
    again = room_for("ns/a", MINE, asks, around(), made.made, NOW)
    assert (again.made, again.placement) == (None, made.placement)


def test_devices_and_other_resources_count_as_room_too() -> None:
    last = first_round(around(used("a", 8), Claim(node="a", requests={"cpu": 64000}, of_pod=False)))
    fewer_cores = Snapshot(
        topology=last.snapshot.topology,
        claims=(used("a", 8), Claim(node="a", requests={"cpu": 1000}, of_pod=False)),
    )
    there = Surroundings(snapshot=fewer_cores, policy=POLICY)
    assert answer_for_b(last, there, ASKS) == "nothing"
    assert GPU in last.snapshot.claims[0].requests


GPUS = {"resource": "nvidia.com/gpu", "products": ["H100"]}
QUOTA = RefusedPods(reason=WriteReason.QUOTA_EXCEEDED, message="exceeded quota")


@pytest.mark.parametrize(
    ("spec", "memory", "pods", "asks"),
    [
        pytest.param({}, Remembered(), 4, False, id="it has all its pods"),
        pytest.param({}, Remembered(), 3, True, id="it lacks one"),
        pytest.param({}, Remembered(waiting=1), 4, True, id="its status says that one waits"),
        pytest.param({}, Remembered(of_this_spec=False), 4, True, id="its spec has changed"),
        pytest.param({}, Remembered(invalid=True), 0, False, id="a person must change it first"),
        pytest.param({}, Remembered(refusal=QUOTA), 0, False, id="its pods are refused"),
        pytest.param({"paused": True}, Remembered(waiting=1), 0, False, id="it is paused"),
        pytest.param({"accelerator": None}, Remembered(waiting=1), 0, False, id="the scheduler places it"),
    ],
)
def test_settled_sets_are_not_asked(spec: dict[str, Any], memory: Remembered, pods: int, asks: bool) -> None:
    """Two replicas of two pods each."""
    shape = {"tensor": 4, "pipeline": 2}
    whole = spec_of(**{"replicas": 2, "parallelism": shape, "accelerator": GPUS, **spec})
    assert may_ask(whole, memory, pods) is asks
