"""The figures of GET /v1/status, and what makes a Redis unfit; no server but where one is named."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.redis_facts import RedisFacts
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import StoreFigures
from flotilla_runtime.contract import (
    FleetStatus,
    ModelDemand,
    QueueConfig,
    RedisTopology,
    RevisionTasks,
    StoreProblem,
    percentile,
)
from flotilla_runtime.gateway.figures import fleet_status

NOBODY_ASKED = RedisFacts.of({}, None)
EMPTY = StoreFigures(
    waiting=0,
    running=0,
    suspended=0,
    unknown_effects=0,
    waiting_for_approval=0,
    dead_letters=0,
    stored_bytes=0,
    oldest_waiting_ms=None,
    counts={},
    workers={},
    calls={},
    callers={},
)
FIT = {
    "redis_version": "7.0.15",
    "maxmemory": 400 * 1024 * 1024,
    "maxmemory_policy": "noeviction",
    "used_memory": 30 * 1024 * 1024,
    "aof_enabled": 1,
    "connected_slaves": 3,
    "slave0": {"state": "online"},
    "slave1": {"state": "wait_bgsave"},
    "slave2": {"state": "online"},
}


def figures(windows: Any = (), now: StoreFigures = EMPTY, **fields: Any) -> FleetStatus:
    return fleet_status(fleet="d/s", now=now, windows=windows, **{"redis": NOBODY_ASKED, **fields})


@given(st.lists(st.floats(0.06, 3000), min_size=1, max_size=60), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_percentile_is_within_a_tick_of_the_truth(seconds: list[float], share: float) -> None:
    ticks: dict[str, int] = {}
    for each in seconds:
        tick = str(math.ceil(4 * math.log2(each / 0.05)))
        ticks[tick] = ticks.get(tick, 0) + 1
    found = percentile(ticks, share)
    exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    assert found is not None
    assert exact / 2**0.26 <= found <= exact * 2**0.26


def test_figures_without_tasks_are_unknown_and_not_zero() -> None:
    status = figures()
    assert (status.p50_seconds, status.p95_seconds, status.oldest_waiting_seconds) == (None, None, None)
    assert (status.used_mib, status.limit_mib, status.replicas, status.store_problem) == (None,) * 4


def test_figures_sum_the_minutes_up() -> None:
    minute = {"reason:Completed": 2, "took:8": 2, "waited:0": 2, "recovered": 1, "busy:Model/m": 1500}
    status = figures([minute, minute, {"tokens": 7, "nano": 2_500_000_000}])
    assert status.ended == {"Completed": 4}
    assert (status.recovered, status.tokens, status.cost_usd) == (2, 7, 2.5)
    assert status.busy_seconds == {"Model/m": 3.0}
    assert status.p95_seconds is not None
    assert 0.15 < status.p95_seconds <= 0.2


def test_one_unknown_price_makes_the_cost_of_the_hour_unknown() -> None:
    assert figures([{"nano": 5}, {"nano": 5, "unpriced": 1}]).cost_usd is None


def test_what_there_is_now_is_told() -> None:
    now = StoreFigures(
        waiting=3,
        running=2,
        suspended=4,
        unknown_effects=1,
        waiting_for_approval=2,
        dead_letters=5,
        stored_bytes=1024 * 1024,
        oldest_waiting_ms=700,
        counts={"7f3a": RevisionTasks(waiting=3, running=2, suspended=4)},
        workers={"w1": 2, "w2": 0},
        calls={},
        callers={},
    )
    status = figures(now=now, redis=RedisFacts.of(FIT, None))
    assert (status.waiting, status.in_flight, status.suspended, status.unknown_effects) == (3, 2, 4, 1)
    assert (status.oldest_waiting_seconds, status.workers) == (0.7, {"w1": 2, "w2": 0})
    assert status.revisions == {"7f3a": RevisionTasks(waiting=3, running=2, suspended=4)}
    assert (status.used_mib, status.limit_mib, status.replicas) == (30, 300, 2)
    own = figures(now=now, redis=RedisFacts.of(FIT, 50), max_stored_mib=50)
    assert (own.used_mib, own.limit_mib) == (1, 50), "the limit is for what the fleet stores"


@pytest.mark.holds(
    "tasks.md", "`/v1/status` says what makes a Redis unfit, and what the fleet asks of each model"
)
@pytest.mark.parametrize(
    ("now", "window", "demand"),
    [
        pytest.param({}, {}, ModelDemand(), id="nothing"),
        pytest.param({"waiting": 5}, {}, ModelDemand(waiting_tasks=5), id="tasks wait"),
        pytest.param(
            {"running": 4, "calls": {"m": 3}, "callers": {"m": 2}},
            {"reason:Completed": 2, "reason:MaxSteps": 2, "calls:Model/m": 10, "busy:Model/m": 25_000},
            ModelDemand(calls=3, tasks_between_calls=2, calls_per_task=2.5, seconds_per_call=2.5),
            id="two of four tasks make three calls",
        ),
        pytest.param(
            {},
            {"calls:Model/other": 10, "busy:Model/other": 10, "reason:Completed": 1},
            ModelDemand(),
            id="another model was called",
        ),
    ],
)
def test_what_a_fleet_asks_of_a_model(
    now: dict[str, Any], window: dict[str, int], demand: ModelDemand
) -> None:
    from dataclasses import replace

    assert figures([window], replace(EMPTY, **now), models=("m",)).models["m"] == demand


def test_what_the_cache_answered_is_counted_beside_the_calls() -> None:
    status = figures(
        [{"calls:Cache/Hit": 3, "calls:Tool/t": 1}, {"calls:Cache/Miss": 1, "calls:Cache/Hit": 2}]
    )
    assert (status.cache_hits, status.cache_misses) == (5, 1)


@pytest.mark.holds(
    "tasks.md", "`/v1/status` says what makes a Redis unfit, and what the fleet asks of each model"
)
@pytest.mark.parametrize(
    ("changes", "limit_mib", "problem"),
    [
        pytest.param({}, None, None, id="fit"),
        pytest.param({"redis_version": "6.2.14"}, None, StoreProblem.TOO_OLD, id="an old one"),
        pytest.param({"maxmemory_policy": "allkeys-lru"}, None, StoreProblem.EVICTS, id="one that evicts"),
        pytest.param({"aof_enabled": 0}, None, StoreProblem.NO_APPEND_ONLY_FILE, id="no append-only file"),
        pytest.param({"maxmemory": 0}, None, StoreProblem.NO_LIMIT, id="no limit"),
        pytest.param({"maxmemory": 0}, 100, None, id="the fleet's own limit"),
        pytest.param(
            {"maxmemory": 0, "maxmemory_policy": "allkeys-lru"},
            100,
            None,
            id="never full",
        ),
        pytest.param(
            {"redis_version": "6.0", "aof_enabled": 0}, None, StoreProblem.TOO_OLD, id="the gravest of two"
        ),
    ],
)
def test_what_makes_a_redis_unfit(
    changes: dict[str, Any], limit_mib: float | None, problem: StoreProblem | None
) -> None:
    assert RedisFacts.of({**FIT, **changes}, limit_mib).problem is problem


GUARDED = {"min_slaves_good_slaves": 2}


@pytest.mark.holds("tasks.md", "A Redis that fails over and takes writes without a replica is told")
@pytest.mark.parametrize(
    ("changes", "fails_over", "problem"),
    [
        pytest.param({}, True, StoreProblem.NO_REPLICA_REQUIRED, id="a primary that needs no replica"),
        pytest.param(GUARDED, True, None, id="one that needs some"),
        pytest.param({}, False, None, id="nothing takes its place"),
        pytest.param({"maxmemory": 0}, True, StoreProblem.NO_REPLICA_REQUIRED, id="graver than no limit"),
        pytest.param(
            {"aof_enabled": 0}, True, StoreProblem.NO_APPEND_ONLY_FILE, id="less grave than no file"
        ),
    ],
)
def test_a_redis_that_fails_over_must_require_a_replica(
    changes: dict[str, Any], fails_over: bool, problem: StoreProblem | None
) -> None:
    assert RedisFacts.of({**FIT, **changes}, None, fails_over=fails_over).problem is problem
    assert RedisFacts.of({}, None, fails_over=fails_over).problem is None


@pytest.mark.parametrize("hidden", [*FIT, "all"])
def test_what_a_managed_service_does_not_tell_is_no_problem(hidden: str) -> None:
    told = {} if hidden == "all" else {name: value for name, value in FIT.items() if name != hidden}
    assert RedisFacts.of(told, None).problem is None


def test_a_service_that_lists_no_replicas_may_count_them() -> None:
    assert RedisFacts.of({"connected_slaves": 2}, None).replicas == 2


@pytest.mark.parametrize(
    ("version", "confirms_files"),
    [
        pytest.param("7.0.15", False, id="7.0"),
        pytest.param("7.2.4", True, id="Valkey"),
        ("8.10.1", True),
    ],
)
def test_files_of_replicas_are_asked_for_from_7_2_on(version: str, confirms_files: bool) -> None:
    assert RedisFacts.of({**FIT, "redis_version": version}, None).confirms_files is confirms_files
    assert not RedisFacts.of({**FIT, "redis_version": version, "aof_enabled": 0}, None).confirms_files


@pytest.mark.holds(
    "tasks.md", "`/v1/status` says what makes a Redis unfit, and what the fleet asks of each model"
)
@pytest.mark.holds("tasks.md", "A Redis that fails over and takes writes without a replica is told")
@pytest.mark.services
async def test_a_real_redis_says_what_makes_it_unfit(redis_server: Any) -> None:
    config = QueueConfig(fleet="d/s", url=redis_server.url, password_path=redis_server.password_path)
    store = TaskStore(connect(config), config)
    assert (await store.facts()).problem is StoreProblem.NO_LIMIT
    redis_server.ask("config", "set", "maxmemory", "400mb")
    facts = await store.facts()
    assert (facts.problem, facts.limit_mib, facts.replicas) == (None, 300, 0)
    assert facts.used_mib is not None
    sentinel = TaskStore(connect(config), config.model_copy(update={"topology": RedisTopology.SENTINEL}))
    assert (await sentinel.facts()).problem is StoreProblem.NO_REPLICA_REQUIRED
    redis_server.ask("config", "set", "min-replicas-to-write", "1")
    assert (await sentinel.facts()).problem is None
    redis_server.ask("config", "set", "min-replicas-to-write", "0")
    await sentinel.close()
    redis_server.ask("config", "set", "maxmemory-policy", "volatile-ttl")
    assert (await store.facts()).problem is StoreProblem.EVICTS
    redis_server.ask("config", "set", "appendonly", "no", "maxmemory-policy", "noeviction")
    assert (await store.facts()).problem is StoreProblem.NO_APPEND_ONLY_FILE
    redis_server.ask("acl", "setuser", "default", "-info")
    assert await store.facts() == NOBODY_ASKED
    await store.close()
