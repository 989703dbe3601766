"""Placeholders that come and go: the decision alone. What a set makes of it: test_placeholders; with a real
autoscaler: test_node_provisioning.
"""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla_operator.replicas.provisioning import (
    LONGEST_PAUSE,
    MOST_SLOTS,
    Attempts,
    Placeholder,
    PlaceholderId,
    Provisioning,
    Unplaced,
    decide,
)
from tests.builders.pods import NOW

TIMEOUT = timedelta(seconds=900)


def asked(replicas: int, *, starting: int = 0, stages: int = 1, held_back: bool = False) -> Unplaced:
    return Unplaced(replicas=replicas, starting=starting, stages=stages, timeout=TIMEOUT, held_back=held_back)


def held(
    slot: int, stage: int = 0, *, node: str | None = None, age: float = 10, useful: bool = True
) -> Placeholder:
    return Placeholder(
        name=f"{slot}-{stage}",
        uid=f"uid-{slot}-{stage}",
        id=PlaceholderId(slot=slot, stage=stage),
        created_at=NOW - timedelta(seconds=age),
        node=node,
        useful=useful,
    )


def made(done: Provisioning) -> list[str]:
    return [f"{place.slot}-{place.stage}" for place in done.create]


def removed(done: Provisioning) -> list[str]:
    return [placeholder.name for placeholder in done.remove]


ROWS = [
    pytest.param(asked(0), [], [], [], id="nothing waits; nothing is asked for"),
    pytest.param(asked(2), [], ["0-0", "1-0"], [], id="two replicas wait; two slots"),
    pytest.param(
        asked(1, stages=2), [], ["0-0", "0-1"], [], id="a replica of two stages; both are asked for"
    ),
    pytest.param(asked(2), [held(0), held(1)], [], [], id="what is asked for already; nothing more"),
    pytest.param(
        asked(1), [held(0), held(1, node="a")], [], ["0-0"], id="one waits less; the one without a node goes"
    ),
    pytest.param(asked(0, starting=1), [held(0, node="a")], [], [], id="its replica is on the way; it stays"),
    pytest.param(asked(0), [held(0, node="a")], [], ["0-0"], id="the replica is bound; its placeholder goes"),
    pytest.param(
        asked(1, starting=1), [held(1)], [], [], id="one was preempted by the replica; it is not made again"
    ),
    pytest.param(
        asked(1, stages=2),
        [held(0, 1, node="a")],
        ["0-0"],
        [],
        id="a slot that lost a pod to another pod is filled again",
    ),
    pytest.param(
        asked(1, stages=2),
        [held(0, 0), held(1, 1, node="a")],
        ["1-0"],
        ["0-0"],
        id="of two broken slots the one with a node is kept and filled",
    ),
    pytest.param(
        asked(3, stages=2, held_back=True),
        [held(0, 0), held(1, 0), held(1, 1, node="a")],
        [],
        [],
        id="nobody knows whether they fit; what is there stays and nothing is added",
    ),
    pytest.param(
        asked(1, held_back=True),
        [held(slot, node="a" if slot == 3 else None) for slot in range(5)],
        [],
        ["0-0", "1-0", "2-0", "4-0"],
        id="held back and scaled from five to one; one slot stays",
    ),
    pytest.param(
        asked(2, held_back=True),
        [held(0, age=900), held(1)],
        [],
        ["0-0"],
        id="what has timed out goes all the same",
    ),
    pytest.param(asked(1), [held(0, useful=False)], ["0-0"], ["0-0"], id="of the wrong shape; replaced"),
    pytest.param(asked(1), [held(0, age=901)], [], ["0-0"], id="past the time-out; it goes, none comes"),
    pytest.param(
        asked(1, stages=2),
        [held(0, 0, node="a", age=901), held(0, 1, age=901)],
        [],
        ["0-0", "0-1"],
        id="half a replica's nodes past the time-out; all of it goes",
    ),
    pytest.param(
        asked(2),
        [held(0, age=901), held(1, age=10)],
        [],
        ["0-0"],
        id="a younger slot beside one past the time-out; it stays",
    ),
    pytest.param(
        asked(1, starting=1),
        [held(0, node="a", age=901)],
        [],
        [],
        id="past the time-out while a replica is on the way; nobody knows yet which node it empties",
    ),
]


@pytest.mark.holds("node-autoscalers.md", "Leftover placeholders go only when the replica's pods are bound")
@pytest.mark.parametrize(("what", "there", "comes", "goes"), ROWS)
def test_the_next_step(what: Unplaced, there: list[Placeholder], comes: list[str], goes: list[str]) -> None:
    done = decide(what, there, Attempts(), NOW)
    assert made(done) == comes
    assert removed(done) == goes


def test_a_time_out_says_what_did_not_come_and_when_it_is_tried_again() -> None:
    there = [held(0, 0, node="a", age=901), held(0, 1, age=901)]
    done = decide(asked(1, stages=2), there, Attempts(), NOW)
    assert done.attempts == Attempts(
        timeouts=1,
        last_timeout="1 of 2 placeholder pods found no node within 900 s",
        retry_at=NOW + TIMEOUT,
    )
    assert done.look_again_seconds == 900
    paused = decide(asked(1, stages=2), [], done.attempts, NOW + timedelta(seconds=899))
    assert (made(paused), paused.attempts) == ([], done.attempts)
    again = decide(asked(1, stages=2), [], done.attempts, NOW + timedelta(seconds=900))
    assert made(again) == ["0-0", "0-1"]


def test_nodes_that_came_and_did_not_help_are_said_to_have_come() -> None:
    done = decide(asked(1), [held(0, node="a", age=901)], Attempts(), NOW)
    assert done.attempts.last_timeout == (
        "every placeholder pod found a node within 900 s, and still no replica fits"
    )


@pytest.mark.holds(
    "node-autoscalers.md", "The next try comes after as long again, twice as long, up to an hour"
)
def test_each_pause_is_twice_the_last_up_to_an_hour() -> None:
    attempts, pauses, now = Attempts(), [], NOW
    for _ in range(60):
        attempts = decide(asked(1), [held(0, age=901 - (now - NOW).total_seconds())], attempts, now).attempts
        assert attempts.retry_at is not None
        pauses.append((attempts.retry_at - now).total_seconds())
        now = attempts.retry_at
    assert pauses == [900, 1800] + [3600] * 58
    assert timedelta(seconds=pauses[-1]) == LONGEST_PAUSE


def test_a_second_slot_that_times_out_in_the_pause_belongs_to_the_same_attempt() -> None:
    before = Attempts(timeouts=1, last_timeout="…", retry_at=NOW + timedelta(seconds=60))
    done = decide(asked(2), [held(1, age=901)], before, NOW)
    assert (removed(done), done.attempts) == (["1-0"], before)


@pytest.mark.holds(
    "node-autoscalers.md",
    "While replicas are held back it asks for nothing new, and a time-out is not counted",
)
def test_the_autoscaler_is_not_blamed_for_replicas_that_are_held_back() -> None:
    for before in (Attempts(), Attempts(timeouts=1, last_timeout="…", retry_at=NOW)):
        done = decide(asked(1, held_back=True), [held(0, node="a", age=901)], before, NOW)
        assert (removed(done), done.attempts) == (["0-0"], before)


def test_a_set_that_fits_forgets_what_failed() -> None:
    before = Attempts(timeouts=3, last_timeout="…", retry_at=NOW + timedelta(seconds=60))
    assert decide(asked(0), [], before, NOW).attempts == Attempts()


@pytest.mark.holds("node-autoscalers.md", "A set asks for at most 50 replicas at a time")
def test_a_set_of_a_thousand_replicas_asks_for_some_at_a_time() -> None:
    assert len(made(decide(asked(1000), [], Attempts(), NOW))) == MOST_SLOTS


PLACES = st.tuples(st.integers(0, 4), st.integers(0, 1))


@settings(max_examples=60)
@given(
    pods=st.dictionaries(PLACES, st.tuples(st.sampled_from([None, "a", "b"]), st.booleans()), max_size=8),
    replicas=st.integers(0, 4),
    starting=st.integers(0, 2),
)
def test_never_more_than_is_missing_and_settled_after_one_step(
    pods: dict[tuple[int, int], tuple[str | None, bool]], replicas: int, starting: int
) -> None:
    what = asked(replicas, starting=starting, stages=2)
    there = [held(*place, node=node, useful=useful) for place, (node, useful) in pods.items()]
    done = decide(what, there, Attempts(), NOW)
    after = [*done.kept, *(held(place.slot, place.stage) for place in done.create)]
    assert len({pod.id for pod in after}) == len(after)
    assert len({pod.id.slot for pod in after}) <= replicas + starting
    assert len(after) >= replicas * 2
    assert {*done.kept, *done.remove} == set(there)
    again = decide(what, after, done.attempts, NOW)
    assert (again.create, again.remove) == ((), ())
