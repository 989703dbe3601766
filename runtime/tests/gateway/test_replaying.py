"""Replays of dead letters through a gateway, with a real Redis; what is kept is in the agent's tests.

A test plays the worker with the store.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from flotilla_runtime.agent.conversations import turn_messages
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Done,
    EndReason,
    Entry,
    Intended,
    Submitted,
    TaskStatus,
)
from flotilla_runtime.agent.protocols import Finish
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim, child_id
from flotilla_runtime.contract import Effect
from leaks.planted import planted

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("gateway")]


@pytest.fixture
async def store(callers: Any) -> AsyncIterator[TaskStore]:
    opened = TaskStore(connect(callers.queue), callers.queue)
    await opened.claim("w1", 1)
    yield opened
    await opened.close()


def tool(name: str, effect: Effect, outcome: CallOutcome = CallOutcome.SUCCEEDED) -> list[Entry]:
    intent = Intended(at=1, call=name, kind=CallKind.TOOL, target=name, effect=effect, reserved_tokens=5)
    return [intent, Done(at=2, call=name, outcome=outcome, took_ms=9, value={"of": name}, input_tokens=3)]


def approval(name: str) -> list[Entry]:
    intent = Intended(at=1, call=name, kind=CallKind.APPROVE, target=name, until=9 * 10**12)
    value = {"approved": True, "by": "secret:boss", "comment": None}
    return [intent, Done(at=2, call=name, outcome=CallOutcome.SUCCEEDED, took_ms=0, value=value)]


STORY = [
    *tool("look", Effect.PURE),
    *tool("pay", Effect.UNSAFE),
    *tool("thank", Effect.PURE, CallOutcome.FAILED),
]


def end(status: TaskStatus = TaskStatus.FAILED) -> Finish:
    reason = EndReason.TOOL_FAILED if status is TaskStatus.FAILED else EndReason.COMPLETED
    return Finish(status=status, reason=reason, message="no", busy_ms={}, calls={})


async def submitted(callers: Any, key: str = planted("ann"), **fields: Any) -> str:
    async with callers.client(key) as client:
        return str((await client.post("/v1/tasks", json={"input": "go", **fields})).json()["id"])


async def claimed(store: TaskStore, task: str) -> Claim:
    [claim] = await store.claim("w1", 1)
    assert claim.id == task
    return claim


async def failed(callers: Any, store: TaskStore, story: Sequence[Entry] = STORY, **fields: Any) -> str:
    """A task of ann's that has failed after these calls."""
    task = await submitted(callers, **fields)
    claim = await claimed(store, task)
    await store.append(claim, 2, list(story))
    await store.finish(claim, end())
    return task


async def replay(
    callers: Any, task: str, body: Mapping[str, Any] = MappingProxyType({}), key: str = planted("ann")
) -> tuple[int, dict[str, Any]]:
    async with callers.client(key) as client:
        answer = await client.post(f"/v1/tasks/{task}/replay", json=dict(body))
        return answer.status_code, answer.json()


def kind(problem: dict[str, Any]) -> str:
    return str(problem["type"]).rsplit("/")[-1]


@pytest.mark.holds(
    "tasks.md", "A failed task is kept with its journal for `queue.deadLetterTTLSeconds`, and counted"
)
async def test_a_dead_letter_is_counted_and_goes_on_as_a_new_task(callers: Any, store: TaskStore) -> None:
    limits = {"maxSteps": 7, "maxWallSeconds": 50}
    task = await failed(callers, store, metadata={"a": "b"}, priority="Batch", limits=limits)
    assert (await callers.get(f"{callers.status_url}/v1/status")).json()["deadLetters"] == 1
    status, receipt = await replay(callers, task)
    assert (status, receipt["status"]) == (201, "Waiting")
    assert receipt["id"] != task
    async with callers.client(planted("ann")) as ann:
        shown = (await ann.get(f"/v1/tasks/{receipt['id']}")).json()
    assert (shown["replayOf"], shown["input"], shown["metadata"], shown["priority"], shown["tenant"]) == (
        *(task, "go", {"a": "b"}, "Batch", "ann"),
    )
    assert (shown["limits"]["maxSteps"], shown["usage"]["tokens"]) == (7, 0)
    claim = await claimed(store, receipt["id"])
    loaded = await store.load(receipt["id"])
    assert loaded is not None
    assert [type(entry) for entry in loaded.entries[:2]] == [Submitted, Intended]
    begun = [entry for entry in loaded.entries if isinstance(entry, Done)]
    assert [(done.call, done.value, done.input_tokens) for done in begun] == [
        ("look", {"of": "look"}, 0),
        ("pay", {"of": "pay"}, 0),
    ]
    assert all(entry.at >= loaded.record.submitted_at for entry in loaded.entries)
    written = await store.append(claim, len(loaded.entries), tool("thank", Effect.PURE))
    assert written.refused == ()


@pytest.mark.holds(
    "tasks.md", "A replay is told what was said in the conversation of the old task, and adds nothing to it"
)
async def test_a_replay_hears_a_conversation_and_adds_nothing_to_it(callers: Any, store: TaskStore) -> None:
    async def succeeded(task: str, answer: str) -> list[str]:
        """Play the worker of a task; what was said before it."""
        claim, loaded = await claimed(store, task), await store.load(task)
        assert loaded is not None
        said = turn_messages((), loaded.record.input, answer)
        await store.finish(claim, replace(end(TaskStatus.SUCCEEDED), result=answer, said=said))
        return [message.text for message in loaded.history]

    task = await failed(callers, store, conversationId="c")
    assert await succeeded(await submitted(callers, conversationId="c"), "later") == []
    _, receipt = await replay(callers, task)
    async with callers.client(planted("ann")) as ann:
        assert (await ann.get(f"/v1/tasks/{receipt['id']}")).json()["conversationId"] is None
    assert await succeeded(receipt["id"], "replayed") == ["go", "later"]
    assert await succeeded(await submitted(callers, conversationId="c"), "last") == ["go", "later"]


@pytest.mark.holds(
    "tasks.md",
    "A replay that is sent again with its key makes no second task, and `flotilla replay` sends one",
)
@pytest.mark.attack("A replay repeats a payment")
async def test_a_replay_with_a_key_is_made_once_of_each_task(callers: Any, store: TaskStore) -> None:
    task, other = await failed(callers, store, idempotencyKey="k"), await failed(callers, store)
    body = {"idempotencyKey": "k", "repeatEffects": True}
    status, first = await replay(callers, task, body)
    assert status == 201
    assert first["id"] != task, "the key of a submission is another one"
    assert await replay(callers, task, {**body, "from": "look"}) == (200, first)
    status, second = await replay(callers, other, body)
    assert (status, second["id"] not in (first["id"], task)) == (201, True)


@pytest.mark.holds(
    "tasks.md",
    "Effects that a replay would repeat are named, in spawned tasks too, and refused without `repeatEffects`",
)
async def test_effects_that_would_happen_again_are_named_and_refused(callers: Any, store: TaskStore) -> None:
    task = await failed(callers, store, [*STORY, *tool("mail", Effect.IDEMPOTENT)])
    status, problem = await replay(callers, task, {"from": "pay"})
    assert (status, kind(problem)) == (409, "effects-again")
    assert problem["errors"] == [
        {"field": "pay", "problem": "Unsafe Tool pay"},
        {"field": "mail", "problem": "Idempotent Tool mail"},
    ]
    assert "repeatEffects" in problem["detail"]
    assert (await replay(callers, task, {"from": "pay", "repeatEffects": True}))[0] == 201
    status, problem = await replay(callers, task, {"from": "nothing"})
    assert (status, [error["field"] for error in problem["errors"]]) == (400, ["from"])


@pytest.mark.holds(
    "tasks.md",
    "Effects that a replay would repeat are named, in spawned tasks too, and refused without `repeatEffects`",
)
async def test_effects_of_spawned_tasks_are_named_too(callers: Any, store: TaskStore) -> None:
    task = await submitted(callers)
    claim = await claimed(store, task)
    spawn = Intended(at=1, call="s", kind=CallKind.SPAWN, target="", child=child_id(task, "s"))
    await store.spawn(claim, 2, spawn, "part")
    child = await claimed(store, child_id(task, "s"))
    await store.append(child, 2, tool("pay", Effect.UNSAFE))
    await store.finish(child, end(TaskStatus.SUCCEEDED))
    ended = Done(at=2, call="s", outcome=CallOutcome.SUCCEEDED, took_ms=0, value={"status": "Succeeded"})
    await store.append(claim, 3, [ended, *tool("thank", Effect.PURE, CallOutcome.FAILED)])
    await store.finish(claim, end())
    assert (await replay(callers, task))[0] == 201, "the spawned task's result is kept"
    status, problem = await replay(callers, task, {"from": "s"})
    assert (status, problem["errors"]) == (409, [{"field": "s: pay", "problem": "Unsafe Tool pay"}])
    callers.redis.ask("del", store.keys.journal(child.id))
    status, problem = await replay(callers, task, {"from": "s"})
    assert problem["errors"] == [{"field": "s", "problem": "a spawned task whose journal is gone"}]
    status, problem = await replay(callers, child.id)
    assert (status, kind(problem)) == (409, "spawned")
    assert task in problem["detail"]


LARGE = "y" * 100 * 1024


@pytest.mark.holds(
    "tasks.md",
    "A replay begins with the results up to a call, or with all but what ended the task, and they "
    "cost nothing",
)
async def test_results_that_are_kept_apart_go_with_a_replay(callers: Any, store: TaskStore) -> None:
    task = await submitted(callers)
    claim = await claimed(store, task)
    spawn = Intended(at=1, call="s", kind=CallKind.SPAWN, target="", child=child_id(task, "s"))
    await store.spawn(claim, 2, spawn, "part")
    await store.finish(await claimed(store, child_id(task, "s")), end(TaskStatus.SUCCEEDED))
    look = Intended(at=1, call="look", kind=CallKind.TOOL, target="look", arguments={"for": LARGE})
    found = Done(at=2, call="look", outcome=CallOutcome.SUCCEEDED, took_ms=9, value=LARGE)
    told = replace(found, call="s", value={"status": "Succeeded", "result": LARGE})
    thank = tool("thank", Effect.PURE, CallOutcome.FAILED)
    await store.append(claim, 3, [told, look, found, *thank])
    await store.finish(claim, end())
    status, receipt = await replay(callers, task)
    assert status == 201
    loaded = await store.load(receipt["id"])
    assert loaded is not None
    kept = [await store.whole(receipt["id"], entry) for entry in loaded.entries]
    assert [entry.value for entry in kept if isinstance(entry, Done)] == [told.value, LARGE]
    assert [entry.arguments for entry in kept if isinstance(entry, Intended)] == [None, {"for": LARGE}]
    callers.redis.ask("del", store.keys.payloads(task))
    for body in ({}, {"from": "thank"}):
        status, problem = await replay(callers, task, body)
        assert (status, kind(problem)) == (410, "payload-gone")
        assert "submit the task anew" in problem["detail"]
    assert (await replay(callers, task, {"from": "s"}))[0] == 201, "nothing of it is kept"


@pytest.mark.holds("tasks.md", "A replay takes no approval over for who may not approve")
@pytest.mark.attack("The submitter replays a task to use its approval again")
async def test_an_approval_is_not_taken_over_by_who_may_not_approve(callers: Any, store: TaskStore) -> None:
    story = [*approval("approve/plan"), *approval("pay#approval"), *tool("pay", Effect.UNSAFE)]
    task = await failed(callers, store, [*story, *tool("thank", Effect.PURE, CallOutcome.FAILED)])
    status, problem = await replay(callers, task)
    assert (status, kind(problem)) == (403, "approval-of-another-task")
    again = {"from": "approve/plan", "repeatEffects": True}
    status, receipt = await replay(callers, task, again)
    assert status == 201
    loaded = await store.load(receipt["id"])
    assert loaded is not None
    assert len(loaded.entries) == 1, "everybody is asked anew"
    await store.finish(await claimed(store, receipt["id"]), end())
    task = await failed(callers, store, story[2:] + tool("thank", Effect.PURE, CallOutcome.FAILED))
    status, receipt = await replay(callers, task, {"from": "pay", "repeatEffects": True})
    loaded = await store.load(receipt["id"])
    assert (status, loaded and len(loaded.entries)) == (201, 1), (
        "so is who approved the call that is repeated"
    )


async def test_what_cannot_be_replayed_says_why(callers: Any, store: TaskStore) -> None:
    waiting = await submitted(callers)
    status, problem = await replay(callers, waiting)
    assert (status, kind(problem)) == (409, "not-ended")
    assert (await replay(callers, waiting, key=planted("bob")))[0] == 404
    assert (await replay(callers, waiting, key=planted("boss")))[0] == 404
    claim = await claimed(store, waiting)
    await store.finish(claim, end())
    callers.redis.ask("del", store.keys.journal(waiting))
    status, problem = await replay(callers, waiting)
    assert (status, kind(problem)) == (409, "journal-forgotten")
    assert "deadLetterTTLSeconds" in problem["detail"]
    async with callers.client(planted("ann")) as ann:
        answer = await ann.post(f"/v1/tasks/{waiting}/replay", json={"repeatEffects": "yes"})
        assert [error["field"] for error in answer.json()["errors"]] == ["repeatEffects"]


@pytest.mark.holds(
    "tasks.md", "A failed task is kept with its journal for `queue.deadLetterTTLSeconds`, and counted"
)
async def test_a_dead_letter_outlives_other_tasks_with_its_journal(callers: Any) -> None:
    config = callers.queue.model_copy(
        update={"result_ttl_seconds": 0, "journal_ttl_seconds": 0, "dead_letter_ttl_seconds": 1}
    )
    store = TaskStore(connect(config), config)
    await store.claim("w1", 1)
    good = await submitted(callers)
    await store.finish(await claimed(store, good), end(TaskStatus.SUCCEEDED))
    bad = await failed(callers, store)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 1
    assert await store.load(good) is None
    loaded = await store.load(bad)
    assert loaded is not None
    assert len(loaded.entries) == 3 + len(STORY)
    await asyncio.sleep(1)
    assert await store.forget_ended() == 1
    assert await store.load(bad) is None
    await store.close()
