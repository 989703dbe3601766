"""How many tool executors a fleet has, which of them go, and when they are the bottleneck: pure tables."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.autoscaling.workers import WorkerMemory, WorkersReason
from flotilla_operator.controllers.agent_fleet.executors import (
    ExecutorFacts,
    decide_executors,
    executors_to_delete,
    is_current,
)
from flotilla_operator.controllers.agent_fleet.figures import bottleneck
from flotilla_operator.controllers.agent_fleet.rollout import (
    RevisionWorkers,
    Rollout,
    RolloutFacts,
    rollout_of,
)
from flotilla_operator.controllers.live_objects import live_object
from flotilla_runtime import contract
from tests.builders.agent_fleet import spec_of
from tests.controllers.agent_fleet.test_decide import worker_deployment

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
IN_PYTHON: dict[str, Any] = {
    "image": "registry.example/agents:1",
    "tools": [{"name": "t", "python": "app:t"}],
    "toolExecutors": {"maxReplicas": 3, "concurrency": 2},
}
SPEC = spec_of(**IN_PYTHON)
IN_WORKERS = spec_of(**{**IN_PYTHON, "toolExecutors": None})


def figures(**requests: tuple[int, int]) -> contract.FleetStatus:
    """So many calls wait and run, by revision."""
    revisions = {
        revision: contract.ToolRequestsOfRevision(waiting=waiting, running=running)
        for revision, (waiting, running) in requests.items()
    }
    counts = contract.ToolRequestFigures(revisions=revisions)
    return contract.FleetStatus(
        fleet="default/support",
        waiting=0,
        in_flight=1,
        tool_requests=counts,
        revisions={"old": contract.RevisionTasks(running=1)},
    )


def deployed(revision: str) -> RevisionWorkers:
    return RevisionWorkers(revision=revision, deployment=live_object(worker_deployment(revision)))


def rollout(*older: str) -> Rollout:
    """The revision `new` is in force; tasks of the others are left."""
    facts = RolloutFacts(
        revision="new",
        workers={name: deployed(name) for name in ("new", *older)},
        since={},
        figures=figures(),
        deadline_seconds=3600,
        gateways_are_new=True,
    )
    return rollout_of(facts, NOW)


def facts(
    told: contract.FleetStatus | None, replicas: Mapping[str, int], *older: str, spec: Any = SPEC
) -> ExecutorFacts:
    return ExecutorFacts(spec=spec, figures=told, rollout=rollout(*older), replicas=replicas)


ROWS = [
    ("no figures, nothing changes", None, 2, 2, WorkersReason.NO_FIGURES),
    ("no call", figures(), 0, 0, WorkersReason.IDLE),
    ("the first call", figures(new=(1, 0)), 0, 1, WorkersReason.TASKS),
    ("what runs needs its pod", figures(new=(0, 1)), 1, 1, WorkersReason.TASKS),
    ("as many as are busy", figures(new=(3, 2)), 1, 3, WorkersReason.TASKS),
    ("at most", figures(new=(90, 6)), 3, 3, WorkersReason.MAXIMUM),
    ("another revision's calls", figures(other=(9, 9)), 0, 0, WorkersReason.IDLE),
    ("it has just been quiet", figures(), 2, 2, WorkersReason.QUIET_WINDOW),
]


@pytest.mark.parametrize(("why", "told", "current", "wanted", "reason"), ROWS, ids=[row[0] for row in ROWS])
def test_the_number_of_executors(
    why: str, told: contract.FleetStatus | None, current: int, wanted: int, reason: WorkersReason
) -> None:
    decision, _ = decide_executors(facts(told, {"new": current}), WorkerMemory(), NOW)
    assert decision is not None
    assert (decision.newest.wanted, decision.reason) == (wanted, reason), why


@pytest.mark.holds(
    "tools.md",
    "Tool executors come with the first call and go after a quiet minute; each revision has its own",
)
def test_from_zero_to_one_and_back_after_a_quiet_time() -> None:
    memory, current, now, seen = WorkerMemory(), 0, NOW, []
    for told in (figures(new=(1, 0)), figures(new=(0, 1)), *[figures()] * 8):
        decision, memory = decide_executors(facts(told, {"new": current}), memory, now)
        assert decision is not None
        current, now = decision.newest.wanted, now + timedelta(seconds=10)
        seen.append(current)
    assert seen == [1] * 8 + [0] * 2, "a minute after the last call"


def test_checks_in_python_run_in_executors_too() -> None:
    checks = [{"name": "cites", "python": "app:cites"}]
    spec = spec_of(image="registry.example/agents:1", validators=checks, toolExecutors={})
    decision, _ = decide_executors(facts(figures(new=(1, 0)), {}, spec=spec), WorkerMemory(), NOW)
    assert decision is not None
    assert decision.newest.wanted == 1


def test_a_fleet_whose_workers_run_its_tools_has_none() -> None:
    for spec in (IN_WORKERS, spec_of(toolExecutors={"minReplicas": 2, "maxReplicas": 3})):
        decision, _ = decide_executors(facts(figures(new=(9, 9)), {}, spec=spec), WorkerMemory(), NOW)
        assert decision is None


@pytest.mark.holds(
    "tools.md",
    "Tool executors come with the first call and go after a quiet minute; each revision has its own",
)
@pytest.mark.parametrize(
    ("requests", "replicas", "wanted"),
    [((0, 0), 0, 0), ((0, 0), 1, 1), ((1, 0), 0, 1), ((3, 2), 1, 3)],
    ids=["none was ever needed", "one that has started stays with its workers", "the first call", "many"],
)
def test_an_older_revision_has_executors_of_its_own(
    requests: tuple[int, int], replicas: int, wanted: int
) -> None:
    told = facts(figures(old=requests), {"old": replicas, "new": 0}, "old")
    decision, _ = decide_executors(told, WorkerMemory(), NOW)
    assert decision is not None
    assert decision.older == {"old": wanted}


@pytest.mark.parametrize(
    ("spec", "older", "told", "gone"),
    [
        (SPEC, ("old",), figures(), []),
        (SPEC, (), figures(), ["old"]),
        (SPEC, (), figures(old=(0, 1)), []),
        (SPEC, (), None, []),
        (IN_WORKERS, (), figures(), ["new", "old"]),
        (IN_WORKERS, (), figures(new=(1, 0)), ["old"]),
    ],
    ids=[
        "its workers live",
        "they have gone",
        "a call runs",
        "unknown",
        "given up",
        "given up, a call waits",
    ],
)
def test_executors_go_with_the_last_call_after_their_workers(
    spec: Any, older: tuple[str, ...], told: contract.FleetStatus | None, gone: list[str]
) -> None:
    executors = {name: deployed(name) for name in ("new", "old")}
    found = executors_to_delete(spec, told, rollout(*older), executors)
    assert [one.revision for one in found] == gone


def test_a_decision_holds_for_its_spec_and_its_revisions() -> None:
    now = facts(figures(), {"new": 1})
    decision, _ = decide_executors(now, WorkerMemory(), NOW)
    assert is_current(decision, now)
    assert not is_current(None, now)
    assert is_current(None, replace(now, spec=IN_WORKERS, replicas={}))
    more = spec_of(**{**IN_PYTHON, "toolExecutors": {"maxReplicas": 9}})
    assert not is_current(decision, replace(now, spec=more))
    assert not is_current(decision, facts(figures(), {"new": 1, "old": 1}, "old"))


@pytest.mark.holds("tools.md", "`status.bottleneck` is ToolExecutors when calls wait although all are full")
@pytest.mark.parametrize(
    ("requests", "spec", "limits"),
    [
        ((1, 6), SPEC, "ToolExecutors"),
        ((0, 6), SPEC, "None"),
        ((1, 0), SPEC, "None"),
        ((9, 9), IN_WORKERS, "None"),
    ],
    ids=["all are busy and a call waits", "none waits", "the first one starts", "workers run tools"],
)
def test_when_executors_are_the_bottleneck(requests: tuple[int, int], spec: Any, limits: str) -> None:
    assert bottleneck(figures(new=requests), spec) == limits
