"""Stored values of an earlier version are understood: a task's hash and journal, the counts of a minute.

stored/task.json was read out of a real Redis in which version 0.1.0 had run the task. It is never written
anew: a change of what is stored gets another file beside it.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, config_of, program_of, run
from agent_support.stores import END, open_store, task
from flotilla_runtime.agent.budgets import Amount
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.journal import EndReason, Entry, Other, TaskStatus, decode
from flotilla_runtime.agent.protocols import Finish
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.redis_facts import RedisFacts
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import StoreFigures, TaskRecord
from flotilla_runtime.contract import Priority, QueueConfig, RevisionTasks, TaskLimits
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


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = open_store(redis_server)
    yield opened
    await opened.close()


def put(server: Any, journal: list[str], place: str, **changed: str) -> None:
    """A task as version 0.1.0 left it: held by a worker that was lost, or waiting in its stream."""
    fields = {**STORED["task"], "status": "Running" if place == "held" else "Waiting", **changed}
    server.ask("hset", f"{KEYS}task:{TASK_ID}", *(part for field in fields.items() for part in field))
    server.ask("rpush", f"{KEYS}journal:{TASK_ID}", *journal)
    if place == "held":
        server.ask("zadd", f"{KEYS}leases", "0", TASK_ID)
    else:
        entry = STORED["task"]["entry"]
        server.ask("xadd", f"{KEYS}queue:Interactive", entry, "task", TASK_ID)


@pytest.mark.services
@pytest.mark.parametrize("place", ["held", "waiting"])
async def test_a_task_that_is_adopted_is_counted_as_any_other(
    store: TaskStore, redis_server: Any, place: str
) -> None:
    put(redis_server, STORED["journal"][:9], place)
    (claim,) = await store.claim("w1", 1)
    figures = await store.figures()
    assert (figures.counts, figures.running, figures.calls) == ({"": RevisionTasks(running=1)}, 1, {})
    await store.finish(claim, END)
    assert (await store.figures()).counts == {}


@pytest.mark.holds("tasks.md", "One of version 0.1.0 that cannot be read ends too, and holds nobody up")
@pytest.mark.services
@pytest.mark.parametrize("place", ["held", "waiting"])
@pytest.mark.parametrize(
    ("journal", "changed", "named"),
    [
        pytest.param(["{"], {}, "its journal, in entry 3", id="half an entry"),
        pytest.param(["7"], {}, "its journal, in entry 3", id="an entry that is no object"),
        pytest.param(
            ['{"type":"Intended","call":"a","kind":"Model","target":"m","reserved_tokens":null}'],
            {},
            "its journal, in entry 3",
            id="a reserve that is no number",
        ),
        pytest.param(
            ['{"type":"Done","call":[]}'], {}, "its journal, in entry 3", id="a call without a name"
        ),
        pytest.param([], {"limits": "{}x"}, "its limits", id="limits"),
        pytest.param([], {"limits": '{"max_steps":"many"}'}, "its limits", id="a limit that is no number"),
    ],
)
async def test_a_task_of_the_version_before_that_cannot_be_read_ends_and_says_so(
    store: TaskStore, redis_server: Any, place: str, journal: list[str], changed: dict[str, str], named: str
) -> None:
    put(redis_server, [*STORED["journal"][:2], *journal], place, **changed)
    await store.submit(task("other"))
    assert [claim.id for claim in await store.claim("w1", 9)] == ["other"], "nobody else is held up"
    status, reason, message = (
        redis_server.ask("hget", f"{KEYS}task:{TASK_ID}", field).strip()
        for field in ("status", "reason", "message")
    )
    assert (status, reason) == ("Failed", "Infrastructure")
    assert message == f"what version 0.1.0 has stored of this task cannot be read: {named}"
    figures = await store.figures()
    assert (figures.counts, figures.waiting, figures.running) == ({"": RevisionTasks(running=1)}, 0, 1)
