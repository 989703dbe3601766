"""`status.load` from what routers say: what is known, and that noise writes nothing. The sum over routers:
test_observe; when a status is written: tests/controllers/test_reconciler.
"""

from dataclasses import replace
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import Slo
from flotilla_operator.controllers.model_replica_set.evidence import Answers
from flotilla_operator.controllers.model_replica_set.load import load_status
from flotilla_operator.controllers.model_replica_set.plan import plan
from flotilla_operator.controllers.model_replica_set.seen import RouterLoad
from tests.builders.model_replica_set import gpu_set
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_plan import observed

QUIET = RouterLoad(waiting=0, running=0)
PROMISE = Slo(ttft_seconds=2)


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
