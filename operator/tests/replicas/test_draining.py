"""A drain's next step from the group, what the routers say, and the time; which groups leave is in
test_turnover.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.leaving.draining import (
    Because,
    DrainStep,
    RouterSeen,
    began_at,
    epoch_of,
    next_step,
)
from flotilla_runtime.contract import RouterServer, RouterStatus, ServerState
from tests.builders.groups import member
from tests.builders.pods import NOW
from tests.support.generated import seldom_drawn

EPOCH = epoch_of(NOW - timedelta(seconds=20))
DEADLINE = timedelta(seconds=60)


def drains(**fields: Any) -> ReplicaGroup:
    return replace(member("a"), phase=Phase.DRAINING, **({"drain_epoch": EPOCH} | fields))


def in_doubt(group: ReplicaGroup) -> ReplicaGroup:
    return replace(group, members=tuple(replace(one, unseen=True) for one in group.members))


def router(
    *,
    epoch: int | None = EPOCH,
    in_flight: int = 0,
    queued: int = 0,
    looks: int = 2,
    group: str = "a",
    state: ServerState = ServerState.DRAINING,
) -> RouterSeen:
    server = RouterServer(
        name=group,
        id=1,
        address="10.0.0.1:8000",
        state=state,
        in_flight=in_flight,
        queued=queued,
        acknowledged_drain_epoch=epoch,
        idle_looks=looks,
    )
    status = RouterStatus(
        name="llama",
        synced=True,
        draining=False,
        live_routers=1,
        waiting=0,
        in_flight=0,
        max_connections_per_replica=1,
        queue_limit=1,
        servers=(server,),
        refused={},
        unusable={},
    )
    return RouterSeen(name="r", status=status)


SILENT = RouterSeen(name="silent")


@pytest.mark.holds(
    "draining.md", "The operator writes the epoch of the drain and routers acknowledge that epoch"
)
@pytest.mark.holds(
    "draining.md",
    "Pods are deleted only with the proof of every router and of the engine, or at the deadline",
)
@pytest.mark.holds("draining.md", "A router that does not answer has not acknowledged")
@pytest.mark.holds("draining.md", "A replica that has not given its first answer is deleted without a drain")
@pytest.mark.parametrize(
    ("group", "routers", "step", "because"),
    [
        pytest.param(
            member("a", Phase.LOADING),
            [],
            DrainStep.DELETE,
            Because.NEVER_SERVED,
            id="what never served needs no drain",
        ),
        pytest.param(
            member("a", Phase.LOADING),
            [SILENT, router(epoch=None)],
            DrainStep.DELETE,
            Because.NEVER_SERVED,
            id="nor what routers know and send nothing",
        ),
        pytest.param(
            member("a", Phase.LOADING, used=True),
            [router(epoch=None, state=ServerState.READY)],
            DrainStep.BEGIN,
            Because.NOT_DRAINING_YET,
            id="a router knows sooner than we that it is ready",
        ),
        pytest.param(
            in_doubt(member("a", Phase.BINDING)),
            [],
            DrainStep.WAIT,
            Because.IN_DOUBT,
            id="nobody knows whether its pod exists",
        ),
        pytest.param(
            member("a", Phase.LOADING, started=True),
            [],
            DrainStep.BEGIN,
            Because.NOT_DRAINING_YET,
            id="what has lost its readiness may still have requests",
        ),
        pytest.param(member("a"), [router()], DrainStep.BEGIN, Because.NOT_DRAINING_YET, id="a drain begins"),
        pytest.param(
            drains(drain_epoch=0),
            [router()],
            DrainStep.BEGIN,
            Because.NOT_DRAINING_YET,
            id="an annotation that somebody else wrote is no drain of ours",
        ),
        pytest.param(
            drains(),
            [router(), router(epoch=None)],
            DrainStep.WAIT,
            Because.NOT_ACKNOWLEDGED,
            id="one router",
        ),
        pytest.param(
            drains(),
            [router(), router(epoch=EPOCH - 1)],
            DrainStep.WAIT,
            Because.NOT_ACKNOWLEDGED,
            id="the acknowledgement of an earlier drain",
        ),
        pytest.param(
            drains(),
            [router(), SILENT],
            DrainStep.WAIT,
            Because.NOT_ACKNOWLEDGED,
            id="a router that does not answer may have requests in flight",
        ),
        pytest.param(
            drains(),
            [router(), router(group="b")],
            DrainStep.WAIT,
            Because.NOT_ACKNOWLEDGED,
            id="a router that does not know the group yet",
        ),
        pytest.param(
            drains(),
            [router(in_flight=1), router()],
            DrainStep.WAIT,
            Because.IN_FLIGHT,
            id="a stream is open",
        ),
        pytest.param(
            drains(), [router(queued=1)], DrainStep.WAIT, Because.IN_FLIGHT, id="a request waits for it"
        ),
        pytest.param(
            drains(),
            [router(looks=1), router(looks=0)],
            DrainStep.WAIT,
            Because.ENGINE_NOT_IDLE,
            id="the engine was idle in one look only",
        ),
        pytest.param(
            drains(),
            [],
            DrainStep.WAIT,
            Because.ENGINE_NOT_IDLE,
            id="without a router nobody has looked at the engine",
        ),
        pytest.param(
            drains(),
            [router(), router(looks=0)],
            DrainStep.DELETE,
            Because.IDLE,
            id="nothing is left anywhere",
        ),
        pytest.param(
            drains(drain_epoch=epoch_of(NOW - DEADLINE)),
            [router(in_flight=3), SILENT],
            DrainStep.DELETE,
            Because.DEADLINE_PASSED,
            id="the deadline has passed",
        ),
    ],
)
def test_next_step(group: ReplicaGroup, routers: list[RouterSeen], step: DrainStep, because: Because) -> None:
    judged = next_step(group, routers, deadline=DEADLINE, now=NOW)
    assert (judged.step, judged.because) == (step, because)


def test_the_figures_that_decided_are_told() -> None:
    judged = next_step(drains(), [router(in_flight=2), SILENT], deadline=DEADLINE, now=NOW)
    assert (judged.routers, judged.acknowledged, judged.in_flight) == (2, 1, 2)
    assert judged.seconds_left == 40


@pytest.mark.holds(
    "draining.md", "The operator writes the epoch of the drain and routers acknowledge that epoch"
)
def test_an_epoch_says_when_the_drain_began() -> None:
    moment = NOW + timedelta(milliseconds=123)
    assert began_at(epoch_of(moment)) == moment


Answer = tuple[int | None, int, int] | None
IDLE, LOOKED_AT_ONCE, BUSY = (EPOCH, 0, 2), (EPOCH, 0, 1), (EPOCH, 1, 2)
OF_AN_EARLIER_DRAIN, OF_NO_DRAIN = (EPOCH - 1, 0, 2), (None, 0, 2)
ANSWERS: st.SearchStrategy[list[Answer]] = st.lists(
    st.sampled_from([IDLE, IDLE, IDLE, LOOKED_AT_ONCE, BUSY, OF_AN_EARLIER_DRAIN, OF_NO_DRAIN, None]),
    max_size=3,
)
SECONDS = st.sampled_from([0, 30, 59, 60, 90])


def is_proven(answers: list[Answer]) -> bool:
    """Every router knows of the drain and has nothing for the group; one has seen its engine idle twice."""
    everywhere = all(one is not None and one[0] == EPOCH and one[1] == 0 for one in answers)
    return everywhere and any(one is not None and one[2] >= 2 for one in answers)


def cases_of(answers: list[Answer], seconds: int) -> Iterator[str]:
    yield f"{'proven' if is_proven(answers) else 'open'} {'in time' if seconds < 60 else 'late'}"


def test_proofs_in_time_are_drawn() -> None:
    assert seldom_drawn(("proven in time", "open in time", "open late"), cases_of, ANSWERS, SECONDS) == {}


@pytest.mark.holds(
    "draining.md",
    "Pods are deleted only with the proof of every router and of the engine, or at the deadline",
)
@given(ANSWERS, SECONDS)
def test_nothing_that_served_is_deleted_without_a_proof(answers: list[Answer], seconds: int) -> None:
    routers = [
        SILENT if one is None else router(epoch=one[0], in_flight=one[1], looks=one[2]) for one in answers
    ]
    now = began_at(EPOCH) + timedelta(seconds=seconds)
    judged = next_step(drains(), routers, deadline=DEADLINE, now=now)
    assert (judged.step is DrainStep.DELETE) == (is_proven(answers) or seconds >= 60)
