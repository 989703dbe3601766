"""`status.load` from what routers say: what is known, and that noise writes nothing. The sum over routers:
test_router_load; when a status is written: tests/controllers/test_reconciler; what real routers tell:
runtime/tests/router/test_agent_load.py.
"""

from bisect import bisect
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import Slo
from flotilla_operator.controllers.model_replica_set.tell.load import load_status
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.revisions.answers import Answers
from tests.builders.model_replica_set import gpu_set
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_plan import observed
from tests.support.planned import plan_of_set as plan

QUIET = RouterLoad(waiting=0, running=0)
PROMISE = Slo(ttft_seconds=2)


@pytest.mark.holds("router.md", "`sessions` counts the conversations of the last ten minutes")
@pytest.mark.parametrize(
    ("sessions", "told", "shown"),
    [
        pytest.param({}, None, 0, id="none"),
        pytest.param({"a": 30, "b": 12}, None, 42, id="those of all replicas"),
        pytest.param({"a": 1234}, None, 1200, id="two digits"),
        pytest.param({"a": 1290}, 1200, 1200, id="noise keeps what was told"),
        pytest.param({"a": 1330}, 1200, 1300, id="a tenth more is news"),
        pytest.param({"a": 1070}, 1200, 1100, id="so is a tenth less"),
        pytest.param({"a": 4}, 3, 4, id="of few, one more is news"),
        pytest.param({}, 3, 0, id="and so is none"),
        pytest.param({"a": 1}, 0, 1, id="the first is news"),
    ],
)
def test_the_conversations(sessions: dict[str, int], told: int | None, shown: int) -> None:
    held = {} if told is None else {"sessions": told}
    assert load_status(replace(QUIET, sessions=sessions), None, held) == {
        "waiting": 0,
        "running": 0,
        "sessions": shown,
    }


@pytest.mark.holds("router.md", "`attainment` is the share of the last half hour that kept the promise")
@pytest.mark.parametrize(
    ("slo", "kept", "told", "shown"),
    [
        pytest.param(PROMISE, 962, None, 0.96, id="the share of the answers of all replicas"),
        pytest.param(Slo(e2e_seconds=30), 1000, None, 1.0, id="a promise of the whole time"),
        pytest.param(PROMISE, 968, 0.96, 0.96, id="noise keeps what was told"),
        pytest.param(PROMISE, 944, 0.96, 0.94, id="a hundredth is news"),
        pytest.param(Slo(), 965, None, None, id="no time is promised"),
        pytest.param(None, 965, 0.9, None, id="nothing is promised"),
    ],
)
def test_the_share_that_kept_the_promise(
    slo: Slo | None, kept: int, told: float | None, shown: float | None
) -> None:
    answers = {"a": Answers(count=400, kept=400), "b": Answers(count=600, failed=1, kept=kept - 400)}
    said = load_status(replace(QUIET, answers=answers), slo, {} if told is None else {"attainment": told})
    assert said is not None
    assert said.get("attainment") == shown


@pytest.mark.holds(
    "router.md", "`status.load` sums what routers say, and is told anew when it changed enough"
)
@pytest.mark.parametrize(
    ("exact", "told", "shown"),
    [
        pytest.param(None, 3.0, None, id="not known any more"),
        pytest.param(0.0, None, 0.0, id="none"),
        pytest.param(12.345, None, 12.0, id="two digits"),
        pytest.param(109.0, 100.0, 100.0, id="noise keeps what was told"),
        pytest.param(111.0, 100.0, 110.0, id="a tenth more is news"),
        pytest.param(89.0, 100.0, 89.0, id="so is a tenth less"),
        pytest.param(1.2, 1.0, 1.0, id="of few, chance makes more than a tenth"),
        pytest.param(1.3, 1.0, 1.3, id="but not as much"),
        pytest.param(0.0, 0.017, 0.0, id="none at all is news"),
        pytest.param(1 / 60, 0.0, 0.017, id="and so is the first"),
    ],
)
def test_the_rates(exact: float | None, told: float | None, shown: float | None) -> None:
    names = ("arrivalPerSecond", "goodputPerSecond")
    held = {} if told is None else dict.fromkeys(names, told)
    said = load_status(replace(QUIET, arrivals_per_second=exact, kept_per_second=exact), PROMISE, held)
    assert said is not None
    assert [said.get(name) for name in names] == [shown, shown]


@pytest.mark.parametrize("slo", [None, Slo()], ids=["nothing is promised", "no time is promised"])
def test_without_a_promise_there_is_no_goodput(slo: Slo | None) -> None:
    load = replace(QUIET, arrivals_per_second=2.0, kept_per_second=2.0)
    said = load_status(load, slo, {"goodputPerSecond": 1.0})
    assert said == {"waiting": 0, "running": 0, "sessions": 0, "arrivalPerSecond": 2.0}


@pytest.mark.holds(
    "router.md", "`status.load` sums what routers say, and is told anew when it changed enough"
)
@pytest.mark.parametrize("per_second", [0.02, 1, 100])
def test_callers_that_come_evenly_write_seldom(per_second: float) -> None:
    """Of the 360 looks at a set in an hour; where few come, a request that runs writes as often."""
    random = Random(7)
    came = list(accumulate(random.expovariate(per_second) for _ in range(int(4000 * per_second))))
    told: dict[str, Any] = {}
    written = 0
    for now in range(60, 3660, 10):
        exact = (bisect(came, now) - bisect(came, now - 60)) / 60
        said = load_status(replace(QUIET, arrivals_per_second=exact), None, told) or {}
        written, told = written + (said != told), said
    assert written < 60


@pytest.mark.holds(
    "router.md", "`kvUsage` is the mean over the replicas that serve, absent where fewer than half are known"
)
@pytest.mark.parametrize(
    ("exact", "told", "shown"),
    [
        pytest.param(None, 0.4, None, id="not known"),
        pytest.param(0.123, None, 0.12, id="in hundredths"),
        pytest.param(0.44, 0.4, 0.4, id="noise keeps what was told"),
        pytest.param(0.46, 0.4, 0.46, id="five hundredths are news"),
    ],
)
def test_how_full_the_caches_are(exact: float | None, told: float | None, shown: float | None) -> None:
    said = load_status(replace(QUIET, kv_usage=exact), None, {} if told is None else {"kvUsage": told})
    assert said is not None
    assert said.get("kvUsage") == shown


def test_without_answers_there_is_no_share_and_without_routers_no_load() -> None:
    assert load_status(QUIET, PROMISE, {}) == {"waiting": 0, "running": 0, "sessions": 0}
    assert load_status(RouterLoad(), PROMISE, {"sessions": 3}) is None


def test_a_settled_set_whose_figures_only_tremble_has_the_same_status() -> None:
    def planned(sessions: int, kept: int, status: dict[str, Any] | None) -> dict[str, Any]:
        load = replace(QUIET, sessions={"a": sessions}, answers={"a": Answers(count=1000, kept=kept)})
        manifest = gpu_set(replicas=0, slo={"ttftSeconds": 2})
        done = plan(observed({**manifest, "status": status or {}}, load=load), NOW)
        assert done.status is not None
        return dict(done.status)

    status = planned(500, 950, None)
    assert (status["load"]["sessions"], status["load"]["attainment"]) == (500, 0.95)
    for sessions, kept in ((510, 953), (480, 946), (545, 958), (455, 941)):
        assert planned(sessions, kept, status) == status
