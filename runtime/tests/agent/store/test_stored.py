"""What an earlier version has left in Redis is understood: a task's hash and journal, the counts of a minute.

stored/task.json was read out of a real Redis in which version 0.1.0 had run the task. It is never written
anew: a change of what is stored gets another file beside it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, config_of, program_of, run
from flotilla_runtime.agent.budgets import Amount
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.journal import EndReason, Entry, Other, TaskStatus, decode
from flotilla_runtime.agent.protocols import Finish
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.redis_facts import RedisFacts
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import StoreFigures, TaskRecord
from flotilla_runtime.contract import Priority, QueueConfig, TaskLimits
from flotilla_runtime.gateway.figures import fleet_status
from flotilla_runtime.gateway.history import History
from flotilla_runtime.gateway.views import task_view

STORED = json.loads((Path(__file__).parent / "stored" / "task.json").read_text())
KEYS = "flotilla:{default/support}:"
TASK_ID = "01JD0000000000000000000001"
NOW = (
    *("waiting", "running", "suspended", "unknown_effects", "waiting_for_approval", "dead_letters"),
    "stored_bytes",
)
PROGRAM = program_of(built_in, config=config_of(indexes=("manual", "wiki")))


def entries(count: int | None = None) -> list[Entry]:
    return [decode(text) for text in STORED["journal"][:count]]


@pytest.mark.parametrize(
    ("written", "calls"),
    [
        pytest.param(1, ["retrieve/manual", "retrieve/wiki", "answer/1"], id="nothing has begun"),
        pytest.param(6, ["retrieve/wiki", "answer/1"], id="a worker was lost amid the searches"),
        pytest.param(8, ["answer/1"], id="the searches are done"),
        pytest.param(9, ["answer/1"], id="a worker was lost while the model was asked"),
        pytest.param(10, ["answer/2"], id="the model has found the prompt too long"),
        pytest.param(11, ["answer/2"], id="a worker was lost while it was asked again"),
        pytest.param(12, [], id="the answer is there"),
    ],
)
async def test_a_journal_goes_on_where_it_had_come_to(written: int, calls: list[str]) -> None:
    store = MemoryStore()
    store.submit("t1", STORED["task"]["input"])
    store.restore("t1", entries(written))
    task = store.tasks["t1"]
    scripted = ScriptedCalls()
    assert await run(store, PROGRAM, scripted) is RunOutcome.ENDED
    assert scripted.made == calls
    assert task.finish is not None
    assert task.finish.status is TaskStatus.SUCCEEDED
    if not calls:
        assert task.finish.result["answer"] == "VACUUM does [1]."
        assert task.finish.result["missing"] == {"wiki": "no answer within 1.5 s"}


def test_a_whole_journal_is_known_and_shown() -> None:
    assert not [entry for entry in entries() if isinstance(entry, Other)]
    record = TaskRecord.of(STORED["task"])
    assert (record.id, record.priority, record.attempts) == (TASK_ID, Priority.INTERACTIVE, 2)
    assert (record.limits, record.metadata) == (TaskLimits(), {"team": "docs"})
    history = History()
    events = [event for entry in entries() if (event := history.told(entry)) is not None]
    shown = task_view(record, history, tuple(events), record.submitted_at)
    assert (shown.usage.steps, shown.usage.tokens, shown.attempts) == (3, 320, 2)
    assert [moment.event for moment in shown.timeline][-2:] == ["callEnded", "ended"]


def test_the_counts_of_a_minute_are_the_figures_of_the_fleet() -> None:
    window = {name: int(count) for name, count in STORED["window"].items()}
    now = StoreFigures.of(
        {
            **dict.fromkeys(NOW, 0),
            "counts": {},
            "demand": {},
            "workers": {},
        }
    )
    redis = RedisFacts.of({}, None)
    status = fleet_status(fleet="default/support", now=now, windows=[window], redis=redis)
    assert (status.ended, status.recovered, status.steps, status.tokens) == ({"Completed": 1}, 1, 3, 320)
    assert status.busy_seconds == {
        "Queue": 0.002,
        "Model/smollm2": 0.9,
        "Index/wiki": 1.5,
        "Index/manual": 0.05,
    }


@pytest.mark.services
async def test_a_task_that_was_left_half_done_is_claimed_and_ended(redis_server: Any) -> None:
    fields = [part for field in STORED["task"].items() for part in field]
    redis_server.ask("hset", f"{KEYS}task:{TASK_ID}", *fields)
    redis_server.ask("rpush", f"{KEYS}journal:{TASK_ID}", *STORED["journal"][:12])
    redis_server.ask("zadd", f"{KEYS}leases", "0", TASK_ID)
    config = QueueConfig(
        fleet="default/support", url=redis_server.url, password_path=redis_server.password_path
    )
    store = TaskStore(connect(config), config)
    (claim,) = await store.claim("support-worker-2", 1)
    assert (claim.id, claim.token > 2) == (TASK_ID, True)
    task = await store.load(TASK_ID)
    assert task is not None
    assert list(task.entries[:12]) == entries(12)
    assert (task.record.attempts, task.record.used) == (3, Amount(steps=3, tokens=320))
    assert task.budget is not None
    assert (task.budget.reserved, task.budget.most_tokens) == (Amount(), 200_000)
    finish = Finish(status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, busy_ms={}, calls={})
    await store.finish(claim, finish)
    ended = await store.load(TASK_ID)
    assert ended is not None
    assert (ended.record.status, ended.record.reason) == (TaskStatus.SUCCEEDED, "Completed")
    await store.close()
