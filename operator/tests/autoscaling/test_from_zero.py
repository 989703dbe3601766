"""The first rule of autoscaling: none or one. How requests are held: runtime's test_router_hold.py."""

from typing import Any

import pytest

from flotilla_operator.autoscaling.from_zero import ZeroPolicy, ZeroReason, ZeroSignals, decide

AFTER = 300.0
START_DEADLINE = 1800.0


def signals(**fields: Any) -> ZeroSignals:
    return ZeroSignals(**{"requests": 0, "idle_seconds": 1000.0, "ready_seconds": 1000.0, **fields})


def policy(**fields: Any) -> ZeroPolicy:
    base = {"min_replicas": 0, "max_replicas": 4, "scale_to_zero_after_seconds": AFTER}
    return ZeroPolicy(**{**base, "start_deadline_seconds": START_DEADLINE, **fields})


@pytest.mark.holds("router.md", "The replica goes when nothing was to do for `scaleToZeroAfterSeconds`")
@pytest.mark.holds("router.md", "While a router does not answer, nothing goes to zero")
@pytest.mark.parametrize(
    ("current", "seen", "wish", "wanted", "reason"),
    [
        pytest.param(0, signals(requests=1), policy(), 1, ZeroReason.HELD, id="a held request wakes the set"),
        pytest.param(0, signals(), policy(), 0, ZeroReason.NO_REQUEST, id="nobody asks"),
        pytest.param(
            0,
            signals(requests=1, idle_seconds=None),
            policy(),
            1,
            ZeroReason.HELD,
            id="one router that holds is enough, whatever the other does",
        ),
        pytest.param(0, None, policy(), 0, ZeroReason.NO_FIGURES, id="unknown wakes nothing"),
        pytest.param(1, None, policy(), 1, ZeroReason.NO_FIGURES, id="unknown is not idle"),
        pytest.param(
            1,
            signals(idle_seconds=None),
            policy(),
            1,
            ZeroReason.NO_FIGURES,
            id="a router that says nothing may be busy",
        ),
        pytest.param(1, signals(requests=3), policy(), 1, ZeroReason.BUSY, id="busy"),
        pytest.param(
            1, signals(idle_seconds=299.0), policy(), 1, ZeroReason.QUIET, id="idle, and not for long enough"
        ),
        pytest.param(1, signals(idle_seconds=300.0), policy(), 0, ZeroReason.IDLE, id="idle for long enough"),
        pytest.param(
            1,
            signals(ready_seconds=None),
            policy(),
            1,
            ZeroReason.STARTING,
            id="a replica that still loads is kept, even if its caller gave up",
        ),
        pytest.param(
            1,
            signals(ready_seconds=None, idle_seconds=1799.0),
            policy(),
            1,
            ZeroReason.STARTING,
            id="it is kept until the deadline of a start",
        ),
        pytest.param(
            1,
            signals(ready_seconds=None, idle_seconds=1800.0),
            policy(),
            0,
            ZeroReason.NEVER_READY,
            id="one that is not ready by then goes",
        ),
        pytest.param(
            1,
            signals(ready_seconds=None, idle_seconds=1800.0),
            policy(scale_to_zero_after_seconds=3600.0),
            1,
            ZeroReason.STARTING,
            id="a time to zero that is longer counts",
        ),
        pytest.param(
            1,
            signals(ready_seconds=None, requests=1, idle_seconds=1800.0),
            policy(),
            1,
            ZeroReason.BUSY,
            id="one that is not ready stays while somebody waits for it",
        ),
        pytest.param(
            1,
            signals(ready_seconds=299.0),
            policy(),
            1,
            ZeroReason.STARTING,
            id="a replica that was woken has the same time to be asked again",
        ),
        pytest.param(
            1,
            signals(),
            policy(scale_to_zero_after_seconds=None),
            1,
            ZeroReason.NEVER_TO_ZERO,
            id="without a time it stays",
        ),
        pytest.param(5, signals(), policy(), 0, ZeroReason.IDLE, id="all go at once"),
        pytest.param(
            0, signals(), policy(min_replicas=2), 2, ZeroReason.NO_REQUEST, id="never below the least number"
        ),
    ],
)
def test_decision(
    current: int, seen: ZeroSignals | None, wish: ZeroPolicy, wanted: int, reason: ZeroReason
) -> None:
    decision = decide(seen, wish, current=current)
    assert (decision.wanted, decision.reason) == (wanted, reason)
    assert decision.message


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        pytest.param(None, "no router reports its requests", id="nothing is known"),
        pytest.param(signals(requests=1, idle_seconds=0.0), "the routers have 1 request", id="one"),
        pytest.param(signals(requests=2, idle_seconds=None), "the routers have 2 requests", id="two"),
        pytest.param(
            signals(idle_seconds=300.0), "the routers have had no request for 300 s", id="none for a time"
        ),
        pytest.param(
            signals(idle_seconds=None), "the routers that answer have no request", id="a router is silent"
        ),
    ],
)
def test_the_message_has_the_figures(seen: ZeroSignals | None, message: str) -> None:
    assert decide(seen, policy(), current=1).message == message
