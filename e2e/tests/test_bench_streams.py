"""How the streams benchmark counts the ends of streams, on records that are made up."""

from typing import Any

import pytest

from streams.__main__ import PHASES, WANTED, Phases, result
from streams.load import Outcome
from wanted import misses

KILLED = "chat-2"


def record(outcome: Outcome, phase: str, *, replica: str = "chat-1") -> dict[str, Any]:
    """A stream that ended in this phase."""
    ended_at = 10.0 * PHASES.index(phase) + 5
    return {"outcome": outcome, "ended_at": ended_at, "replica": replica, "problem": "the connection broke"}


def counted(*records: dict[str, Any], hit_by_kill: int = 1) -> dict[str, Any]:
    began = {phase: 10.0 * number for number, phase in enumerate(PHASES)}
    hit = [record(Outcome.CLEAN_ERROR, "kill", replica=KILLED)] * hit_by_kill
    return result(200, [*records, *hit], Phases(began=began, killed=KILLED))


def missed(figures: dict[str, Any]) -> set[str]:
    return {miss.wanted.path[0] for miss in misses({**figures, "cancelled_drain_serves": True}, WANTED)}


def test_whole_streams_miss_nothing() -> None:
    figures = counted(*(record(Outcome.WHOLE, phase) for phase in PHASES))
    assert figures["streams"] == 200
    assert figures["whole"] == len(PHASES)
    assert missed(figures) == set()


@pytest.mark.holds("performance.md", "The streams benchmark counts a broken stream where it belongs")
@pytest.mark.parametrize("phase", PHASES)
def test_a_broken_stream_is_counted_in_the_phase_in_which_it_ended(phase: str) -> None:
    figures = counted(record(Outcome.WHOLE, phase), record(Outcome.CLEAN_ERROR, phase))
    assert {key for key, count in figures.items() if key.startswith("broken_by") and count} == {
        f"broken_by_{phase}"
    }
    assert (figures["whole"], figures["unclean_ends"]) == (1, 0)
    assert missed(figures) == {f"broken_by_{phase}"}


def test_those_of_the_killed_replica_may_end_with_an_error_while_it_dies_and_no_other() -> None:
    broken = record(Outcome.CLEAN_ERROR, "kill", replica=KILLED)
    assert missed(counted(broken)) == set()
    assert counted(broken)["ended_by_kill"] == 2
    later = record(Outcome.CLEAN_ERROR, "node_drain", replica=KILLED)
    assert missed(counted(later)) == {"broken_by_node_drain"}


def test_a_kill_that_met_no_stream_shows_nothing() -> None:
    assert missed(counted(hit_by_kill=0)) == {"ended_by_kill"}


@pytest.mark.holds("performance.md", "The streams benchmark counts a broken stream where it belongs")
def test_an_end_that_a_client_cannot_tell_from_a_good_one_is_never_right() -> None:
    assert missed(counted(record(Outcome.UNCLEAN, "kill", replica=KILLED))) == {"unclean_ends"}
    assert missed(counted(record(Outcome.UNCLEAN, "update"))) == {"unclean_ends", "broken_by_update"}


def test_a_drain_that_was_called_off_and_leaves_its_replica_idle_is_missed() -> None:
    figures = {**counted(), "cancelled_drain_serves": False}
    assert [miss.wanted.path[0] for miss in misses(figures, WANTED)] == ["cancelled_drain_serves"]
