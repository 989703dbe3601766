"""When branches begin and what stands for an error: tables, and what the bucket of a rate promises."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.budgets import LimitName, Refusal
from flotilla_runtime.agent.failures import (
    LimitReachedError,
    TaskFailedError,
    ToolFailedError,
)
from flotilla_runtime.agent.journal import CallOutcome, EndReason
from flotilla_runtime.agent.patterns.plans import (
    LONGEST_PROBLEM,
    Bucket,
    Plan,
    Rate,
    Standing,
    begins_at,
    missing_of,
)
from flotilla_runtime.agent.patterns.values import (
    Missing,
    MissingReason,
    PatternEnd,
    PatternKind,
    gathered,
    numbered,
)
from flotilla_runtime.agent.worker.metrics import WorkerMetrics

REFUSAL = Refusal(call="c", limit=LimitName.TOKENS, most=1, committed=1, wanted=1, may_change=False)


@pytest.mark.parametrize(
    ("plan", "running", "last_began", "moment"),
    [
        pytest.param(Plan(kind=PatternKind.RACE), 5, 900, 1000, id="all begin at once"),
        pytest.param(Plan(kind=PatternKind.RACE, at_once=5), 5, 900, None, id="all places are taken"),
        pytest.param(Plan(kind=PatternKind.RACE, at_once=6), 5, 900, 1000, id="a place is free"),
        pytest.param(
            Plan(kind=PatternKind.RACE, stagger_seconds=2),
            1,
            900,
            2900,
            id="two seconds after the one before",
        ),
        pytest.param(
            Plan(kind=PatternKind.RACE, stagger_seconds=2), 0, 900, 1000, id="all before it have failed"
        ),
        pytest.param(Plan(kind=PatternKind.RACE, stagger_seconds=2), 0, None, 1000, id="the first of a race"),
        pytest.param(
            Plan(kind=PatternKind.RACE, stagger_seconds=0.05), 1, 900, 1000, id="its turn has passed"
        ),
        pytest.param(
            Plan(kind=PatternKind.RACE, rate=Rate(per_second=2, burst=4)),
            3,
            900,
            1500,
            id="the bucket has 0 of 1 tokens",
        ),
    ],
)
def test_when_a_branch_begins(plan: Plan, running: int, last_began: int | None, moment: int | None) -> None:
    bucket = Bucket(tokens=0, at=1000) if plan.rate else None
    standing = Standing(running=running, last_began=last_began, bucket=bucket, now=1000)
    assert begins_at(plan, standing, cost=1) == moment


@pytest.mark.holds(
    "patterns.md",
    "Documents are cut at paragraphs, else sentences, in a thread; each chunk has a value or a "
    "reason; all workers share one rate",
)
@given(
    costs=st.lists(st.floats(0.1, 5), min_size=1, max_size=30),
    pauses=st.lists(st.integers(0, 3000), min_size=30, max_size=30),
)
def test_no_rate_is_exceeded_and_every_branch_begins(costs: list[float], pauses: list[int]) -> None:
    rate = Rate(per_second=2, burst=4)
    bucket, now, spent = Bucket(tokens=rate.burst, at=0), 0, 0.0
    for cost, pause in zip(costs, pauses, strict=False):
        now += pause
        bucket = bucket.filled(rate, now)
        opens = bucket.opens_at(rate, cost)
        assert opens <= now + 1000 * (rate.burst + 5) / rate.per_second, (
            "a costly one waits, but not for ever"
        )
        now = max(now, opens)
        bucket = bucket.filled(rate, now).taken(cost)
        spent += cost
        assert spent <= rate.burst + rate.per_second * now / 1000 + max(costs) + 1e-6


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (1, 0), (-1, 1)])
def test_a_rate_that_lets_nothing_begin_is_refused(per_second: float, burst: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Rate(per_second=per_second, burst=burst)


@pytest.mark.holds(
    "patterns.md",
    "A branch that fails or hangs is None with a reason, stops no other one, and is so in every "
    "replay; no finished call is repeated",
)
@pytest.mark.parametrize(
    ("error", "reason", "problem"),
    [
        (ToolFailedError("c", "t", CallOutcome.FAILED, "gone"), MissingReason.FAILED, "t: gone"),
        (ToolFailedError("c", "t", CallOutcome.TIMED_OUT, "late"), MissingReason.TIMED_OUT, "t: late"),
        (TimeoutError("late"), MissingReason.TIMED_OUT, "TimeoutError: late"),
        (LimitReachedError(REFUSAL), MissingReason.LIMIT_REACHED, str(LimitReachedError(REFUSAL))),
        (KeyError("city"), MissingReason.FAILED, "KeyError: 'city'"),
        (ExceptionGroup("two", [KeyError("a"), KeyError("b")]), MissingReason.FAILED, "KeyError: 'a'"),
    ],
)
def test_what_stands_for_a_branch_that_raised(error: Exception, reason: MissingReason, problem: str) -> None:
    assert missing_of(error) == Missing(reason=reason, problem=problem)


@pytest.mark.parametrize(
    "error",
    [
        TaskFailedError(EndReason.INVALID, "no"),
        BaseExceptionGroup("two", [KeyError("a"), TaskFailedError(EndReason.INVALID, "no")]),
        asyncio.CancelledError(),
        SystemExit(1),
    ],
)
def test_what_is_for_the_agent_and_not_for_the_branch(error: BaseException) -> None:
    assert missing_of(error) is None


def test_a_problem_is_kept_short() -> None:
    missing = missing_of(ValueError("x" * 5000))
    assert missing is not None
    assert len(missing.problem) == LONGEST_PROBLEM + 1


def test_a_branch_that_gives_none_is_not_missing() -> None:
    found = gathered(["b", "a"], {"a": None, "b": Missing(reason=MissingReason.FAILED, problem="x")})
    assert (found.values, found.present, found.is_complete) == ({"b": None, "a": None}, {"a": None}, False)


@pytest.mark.holds(
    "patterns.md", "A search may ask one tool or name several times; names that come again are numbered"
)
@pytest.mark.parametrize(
    ("names", "keys"),
    [
        pytest.param(["a", "b"], ["a", "b"], id="each name comes once"),
        pytest.param(["a", "b", "a", "a"], ["a", "b", "a-2", "a-3"], id="one comes again"),
        pytest.param(["a", "a", "a-2", "a"], ["a", "a-3", "a-2", "a-4"], id="a name looks like a number"),
        pytest.param(["a-2", "a-2", "a"], ["a-2", "a-2-2", "a"], id="a name with a number comes again"),
    ],
)
def test_names_that_come_again_are_numbered(names: list[str], keys: list[str]) -> None:
    assert numbered(names) == keys


LOST = Missing(reason=MissingReason.NOT_NEEDED, problem="x")


@pytest.mark.holds("patterns.md", "Branches are counted by how they ended, and races by who won")
@pytest.mark.parametrize(
    ("ended", "was_first", "won_by"),
    [
        ({"b": 1, "a": LOST}, False, "Later"),
        ({"a": 1, "b": LOST}, True, "First"),
        ({"a": LOST, "b": LOST}, None, "Nobody"),
    ],
)
def test_branches_and_races_are_counted(ended: dict[str, Any], was_first: bool | None, won_by: str) -> None:
    end = PatternEnd.of(PatternKind.RACE, ["a", "b"], ended)
    assert end.was_first is was_first
    metrics = WorkerMetrics()
    metrics.count_pattern(end)
    assert metrics.registry.get_sample_value("flotilla_worker_races_total", {"won_by": won_by}) == 1
    labels = {"pattern": "Race", "outcome": "NotNeeded"}
    lost = metrics.registry.get_sample_value("flotilla_worker_branches_total", labels)
    assert lost == sum(one is LOST for one in ended.values())


@pytest.mark.holds(
    "patterns.md",
    "Branches that were not begun are no part of the cancel rate; to the agent they are NotNeeded",
)
def test_branches_that_were_not_begun_are_counted_apart() -> None:
    metrics = WorkerMetrics()
    metrics.count_pattern(
        PatternEnd.of(PatternKind.RACE, ["a", "b", "c"], {"a": LOST, "b": 1, "c": LOST}, not_begun=["c"])
    )
    counted = {
        outcome: metrics.registry.get_sample_value(
            "flotilla_worker_branches_total", {"pattern": "Race", "outcome": outcome}
        )
        for outcome in ("Value", "NotNeeded", "NotBegun")
    }
    assert counted == {"Value": 1, "NotNeeded": 1, "NotBegun": 1}


@pytest.mark.holds(
    "observability.md", "Workers measure how long branches took and the first waited for the last"
)
@pytest.mark.parametrize(
    ("spans", "took", "fan_in"),
    [
        pytest.param([(0, 1000), (100, 3100)], [2, 4.0, 3.0], 2.1, id="the first waits for the last"),
        pytest.param([(0, 500)], [1, 0.5, 0.5], None, id="one branch waits for nobody"),
        pytest.param([], [0, None, None], None, id="branches of a lost run, whose times nobody knows"),
    ],
)
def test_how_long_branches_took_is_measured(
    spans: list[tuple[int, int]], took: list[float | None], fan_in: float | None
) -> None:
    metrics = WorkerMetrics()
    metrics.count_pattern(PatternEnd.of(PatternKind.FAN_OUT, ["a", "b"], {"a": 1, "b": 2}, spans))
    of_fan_outs = {"pattern": "FanOut"}

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"flotilla_worker_{name}", of_fan_outs)

    assert value("pattern_branches_sum") == 2
    assert [
        value("branch_duration_seconds_count") or 0,
        value("branch_duration_seconds_sum"),
        value("slowest_branch_seconds_sum"),
    ] == took
    assert value("fan_in_seconds_sum") == (None if fan_in is None else pytest.approx(fan_in))
