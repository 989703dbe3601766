"""Conversations in a real Redis: their tasks run in order, and each is told what was said before."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from flotilla_runtime.agent.conversations import MOST_TEXT_BYTES, Message, Role, turn_messages
from flotilla_runtime.agent.journal import EndReason, TaskStatus, WaitKind
from flotilla_runtime.agent.protocols import Finish, Waits
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import CancelOutcome, Claim, NewTask, SubmitOutcome
from flotilla_runtime.contract import Priority, QueueConfig, TaskLimits
from redis_servers import RedisServer

pytestmark = pytest.mark.services

QUESTION = "How is space reclaimed?"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One for all tests of this file; each begins with an empty one."""
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
async def store(server: Any, tmp_path: Path) -> AsyncIterator[TaskStore]:
    server.ask("flushall")
    opened = open_store(server)
    assert await opened.claim("w0", 1) == [], "a worker has come, so tasks wait in lines"
    await opened.leave("w0")
    yield opened
    await opened.close()


def open_store(server: Any, **settings: Any) -> TaskStore:
    config = QueueConfig(
        fleet="default/support",
        url=server.url,
        password_path=server.password_path,
        **{"lease_seconds": 30, **settings},
    )
    return TaskStore(connect(config), config)


async def submitted(store: TaskStore, task: str, conversation: str | None = "talk", **fields: Any) -> None:
    made = {"input": QUESTION, "caller": "ann", "limits": TaskLimits(), **fields}
    new = NewTask(id=task, conversation_id=conversation, **made)
    assert (await store.submit(new)).outcome is SubmitOutcome.CREATED


async def claimed(store: TaskStore) -> list[str]:
    return sorted(claim.id for claim in await store.claim("w", 10))


async def one(store: TaskStore) -> Claim:
    [claim] = await store.claim("w", 10)
    return claim


def ended(answer: str, status: TaskStatus = TaskStatus.SUCCEEDED) -> Finish:
    said = turn_messages((), QUESTION, {"answer": answer}) if status is TaskStatus.SUCCEEDED else ()
    reason = EndReason.COMPLETED if said else EndReason.TIMEOUT
    return Finish(status=status, reason=reason, result={"answer": answer}, busy_ms={}, calls={}, said=said)


async def history(store: TaskStore, task: str) -> list[tuple[str, str]]:
    loaded = await store.load(task)
    assert loaded is not None
    return [(str(message.role), message.text) for message in loaded.history]


@pytest.mark.holds(
    "tasks.md", "Tasks of one conversation run in order, and each is told what was said before"
)
async def test_the_next_task_waits_until_the_one_before_has_ended_and_is_told_what_was_said(
    store: TaskStore,
) -> None:
    await submitted(store, "t1")
    await submitted(store, "t2", priority=Priority.INTERACTIVE)
    await submitted(store, "other", conversation="another")
    first, other = sorted(await store.claim("w", 10), key=lambda claim: claim.id, reverse=True)
    assert [first.id, other.id, await claimed(store)] == ["t1", "other", []]
    await store.finish(first, ended("by VACUUM"))
    second = await one(store)
    assert second.id == "t2"
    assert await history(store, "t2") == [("user", QUESTION), ("assistant", "by VACUUM")]
    assert await history(store, "other") == []


@pytest.mark.holds(
    "tasks.md",
    "A task that waits for the one before it counts for the limits of the queue, and needs no worker",
)
async def test_a_task_that_waits_for_another_needs_no_worker_but_a_place(
    server: Any, store: TaskStore
) -> None:
    for task in ("t1", "t2"):
        await submitted(store, task, revision="r")
    figures = await store.figures()
    tasks = figures.counts["r"]
    assert (figures.waiting, tasks.waiting, tasks.suspended) == (1, 1, 1)
    small = open_store(server, max_waiting=2)
    new = NewTask(id="t3", input="why?", caller="bob", limits=TaskLimits())
    assert (await small.submit(new)).outcome is SubmitOutcome.FULL
    await small.close()
    [claim] = await store.claim("w", 10, revisions=["r"])
    await store.finish(claim, ended("so"))
    [claim] = await store.claim("w", 10, revisions=["r"])
    await store.finish(claim, ended("so"))
    assert (await store.figures()).counts == {}, "every count has come to nothing"


@pytest.mark.holds(
    "tasks.md", "Tasks of one conversation run in order, and each is told what was said before"
)
async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_line(store: TaskStore) -> None:
    for task in ("t1", "t2", "t3"):
        await submitted(store, task, revision="")
    first = await one(store)
    assert await store.cancel("t2") is CancelOutcome.CANCELLED
    await store.finish(first, ended("so"))
    third = await one(store)
    assert third.id == "t3"
    assert len(await history(store, "t3")) == 2
    await store.finish(third, ended("so"))
    assert (await store.figures()).counts == {}


@pytest.mark.holds(
    "tasks.md", "Tasks of one conversation run in order, and each is told what was said before"
)
async def test_a_task_that_fails_or_is_suspended_holds_the_line_until_it_has_ended(store: TaskStore) -> None:
    for task in ("t1", "t2"):
        await submitted(store, task)
    first = await one(store)
    assert await store.suspend(first, 2, Waits(kind=WaitKind.EFFECT, call="pay", until=2**52))
    assert await claimed(store) == []
    await store.cancel("t1")
    second = await one(store)
    assert await history(store, second.id) == [], "only what has a result was said"
    await store.finish(second, ended("", TaskStatus.FAILED))
    await submitted(store, "t3")
    assert await history(store, (await one(store)).id) == []


@pytest.mark.holds("tasks.md", "Another tenant's conversation of the same id is another one")
@pytest.mark.attack("A caller names the conversation of another tenant")
async def test_the_conversation_of_another_tenant_is_another_one(store: TaskStore) -> None:
    await submitted(store, "t1", tenant="blue")
    await store.finish(await one(store), ended("a secret"))
    await submitted(store, "t2", tenant="red")
    await submitted(store, "t3", tenant="blue")
    assert await claimed(store) == ["t2", "t3"], "neither waits for the other"
    assert await history(store, "t2") == []
    assert await history(store, "t3") != []


async def test_what_was_submitted_with_a_task_is_said_before_it_and_kept(store: TaskStore) -> None:
    before = (Message(role=Role.USER, text="hi"), Message(role=Role.ASSISTANT, text="hello"))
    await submitted(store, "t1", history=before)
    claim = await one(store)
    assert await history(store, "t1") == [("user", "hi"), ("assistant", "hello")]
    said = turn_messages(before, QUESTION, "so")
    await store.finish(
        claim,
        Finish(
            status=TaskStatus.SUCCEEDED,
            reason=EndReason.COMPLETED,
            result="so",
            busy_ms={},
            calls={},
            said=said,
        ),
    )
    await submitted(store, "t2")
    assert [text for _, text in await history(store, "t2")] == ["hi", "hello", QUESTION, "so"]


@pytest.mark.holds(
    "tasks.md", "A conversation is bounded, counts for its callers, and is forgotten after its last task"
)
@pytest.mark.attack("A caller's conversation has no end")
async def test_a_conversation_keeps_its_end_and_is_forgotten_with_its_bytes(
    server: Any, store: TaskStore
) -> None:
    long = "x" * 2 * MOST_TEXT_BYTES
    for number in range(12):
        await submitted(store, f"t{number:02}", input="why?")
        await store.finish(await one(store), ended(f"{number} {long}"))
    await submitted(store, "last", input="why?")
    told = await history(store, "last")
    assert told[-1][1].startswith("11 ")
    assert 200_000 < sum(len(text) for _, text in told) <= 262_144
    await store.finish(await one(store), ended("so"))
    assert await store.forget_conversations() == 0, "it is young"
    old = open_store(server, conversation_ttl_seconds=0, result_ttl_seconds=0, journal_ttl_seconds=0)
    assert await old.forget_conversations() == 1
    await old.forget_ended()
    await old.close()
    assert (await store.figures()).stored_bytes == 0
    assert server.ask("keys", "*turns:*").strip() == server.ask("keys", "*conversation*").strip() == ""


@pytest.mark.holds(
    "tasks.md", "A conversation is bounded, counts for its callers, and is forgotten after its last task"
)
async def test_a_live_conversation_is_not_forgotten(server: Any, store: TaskStore) -> None:
    await submitted(store, "t1")
    await store.finish(await one(store), ended("so"))
    await submitted(store, "t2")
    old = open_store(server, conversation_ttl_seconds=0)
    assert await old.forget_conversations() == 0
    await old.close()
    assert len(await history(store, "t2")) == 2
