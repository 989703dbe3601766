"""Groups among those that wait that get their pods now, and their server ids."""

from datetime import timedelta

import pytest

from flotilla_operator.placement import Binding, Refusal
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.start import StartReason, start
from tests.builders.outlooks import bound, outlook, refused, waiting
from tests.builders.pods import NOW

BACKS_OFF = Backoff(failures=3, failed_at=NOW, why="it crashed")
HAS_BACKED_OFF = Backoff(failures=3, failed_at=NOW - timedelta(minutes=5), why="it crashed")


@pytest.mark.parametrize(
    ("names", "outcomes", "lacks", "backoff", "reason", "started"),
    [
        pytest.param("", (), False, None, StartReason.NONE_WAITS, "", id="none waits"),
        pytest.param("x", (bound("x"),), True, None, StartReason.SOMETHING_IS_MISSING, "", id="a secret"),
        pytest.param("x", (bound("x"),), False, BACKS_OFF, StartReason.BACKS_OFF, "", id="it backs off"),
        pytest.param("xy", (refused("x"), refused("y")), False, None, StartReason.NO_ROOM, "", id="no room"),
        pytest.param(
            "xy", (refused("x"), bound("y")), False, None, StartReason.ROOM_FOR_SOME, "y", id="one has room"
        ),
        pytest.param(
            "xy", (bound("x"), bound("y")), False, HAS_BACKED_OFF, StartReason.ALL_START, "xy", id="all do"
        ),
    ],
)
def test_groups_with_room_start(
    names: str,
    outcomes: tuple[Binding | Refusal, ...],
    lacks: bool,
    backoff: Backoff | None,
    reason: StartReason,
    started: str,
) -> None:
    seen = outlook(waiting=waiting(*names), outcomes=outcomes, lacks=lacks, backoff=backoff)
    found = start(seen, NOW)
    assert (found.reason, "".join(group.name for group in found.groups)) == (reason, started)
    assert all(group.nodes == ("a",) for group in found.groups)


def test_without_an_accelerator_the_scheduler_chooses_the_nodes() -> None:
    found = start(outlook(waiting=waiting("x"), outcomes=None, accelerated=False), NOW)
    assert found.reason is StartReason.ALL_START
    assert found.groups[0].nodes == ()


def test_a_group_takes_the_smallest_free_id_and_keeps_its_age() -> None:
    """Routers hash on ids, so it gets the keys of a group that was lost."""
    seen = outlook(waiting=waiting("x", "y"), outcomes=None, accelerated=False, server_ids=(1, 3))
    found = start(seen, NOW)
    assert [group.server_id for group in found.groups] == [2, 4]
    assert [group.waiting_since for group in found.groups] == [one.since for one in seen.demand.waiting]
