"""The checkpoints of graphs, against a real Redis: whose they are, for how long, and within which bounds."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.stores import END, open_store, running, task, with_lines
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.protocols import CheckpointChange
from flotilla_runtime.agent.store.checkpoints import MOST_CHECKPOINT_BYTES
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import caller_key, checkpoint_space

pytestmark = pytest.mark.services

FIRST = CheckpointChange(put={'["c",1]': "one", '["c",2]': "two"})


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server, conversation_ttl_seconds=0))
    yield opened
    await opened.close()


async def stored(store: TaskStore, caller: str = "ann") -> int:
    held: Any = await store._client.hget(f"{store.keys.prefix}stored", caller_key(caller))
    return int(held or 0)


async def kept(store: TaskStore, space: str) -> dict[str, str | None]:
    fields = sorted(await store.checkpoint_fields(space))
    return dict(zip(fields, await store.checkpoint_texts(space, fields), strict=True))


async def test_what_is_put_replaces_and_what_is_added_does_not(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    before = await stored(store)
    first = await store.checkpoint(claim, FIRST)
    assert await store.checkpoint(claim, FIRST) == first, "a change that is sent again leaves the same"
    change = CheckpointChange(
        put={'["c",1]': "other"}, add={'["c",2]': "no", '["c",3]': "é"}, drop=('["c",9]',)
    )
    second = await store.checkpoint(claim, change)
    assert await kept(store, "t1") == {'["c",1]': "other", '["c",2]': "two", '["c",3]': "é"}
    assert await stored(store) - before == second.bytes
    third = await store.checkpoint(claim, CheckpointChange(drop=('["c",1]', '["c",3]')))
    assert await kept(store, "t1") == {'["c",2]': "two"}
    assert await stored(store) - before == third.bytes == first.bytes // 2


@pytest.mark.holds(
    "graphs.md",
    "Checkpoints are fenced, bounded, count for the caller, and end with the task or its conversation",
)
async def test_they_are_gone_with_the_task_and_so_are_their_bytes(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    before = (await store.figures()).stored_bytes
    written = await store.checkpoint(claim, FIRST)
    assert (await store.figures()).stored_bytes == before + written.bytes
    await store.finish(claim, END)
    assert await kept(store, "t1") == {}
    assert await store._client.exists(store.keys.checkpoints("t1")) == 0
    assert (await store.figures()).stored_bytes < before + written.bytes


@pytest.mark.holds(
    "graphs.md",
    "Checkpoints are fenced, bounded, count for the caller, and end with the task or its conversation",
)
@pytest.mark.attack("A worker that lost a task writes its graph's checkpoints")
async def test_who_lost_the_task_writes_none(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await store.checkpoint(claim, FIRST)
    await store.release(claim, "w1")
    (again,) = await store.claim("w2", 1)
    with pytest.raises(LeaseLostError):
        await store.checkpoint(claim, CheckpointChange(put={'["c",1]': "stale"}, drop=('["c",2]',)))
    assert await kept(store, "t1") == FIRST.put
    await store.checkpoint(again, CheckpointChange(drop=('["c",2]',)))
    assert await kept(store, "t1") == {'["c",1]': "one"}


@pytest.mark.holds(
    "graphs.md",
    "Checkpoints are fenced, bounded, count for the caller, and end with the task or its conversation",
)
async def test_those_of_a_conversation_outlive_the_task_and_count_for_who_wrote_last(
    store: TaskStore,
) -> None:
    space = ""
    for name, caller in (("t1", "ann"), ("t2", "bob")):
        claim = await running(store, task(name, caller=caller, tenant="red", conversation_id="c"))
        found = await store.load(name)
        assert found is not None
        space = checkpoint_space(name, found.record.conversation)
        before = await stored(store, caller)
        written = await store.checkpoint(claim, CheckpointChange(put={f'["c","{name}"]': name}))
        assert await stored(store, caller) == before + written.bytes
        await store.finish(claim, END)
    assert await kept(store, space) == {'["c","t1"]': "t1", '["c","t2"]': "t2"}
    other = await running(store, task("t3", tenant="blue", conversation_id="c"))
    await store.checkpoint(other, FIRST)
    assert len(await kept(store, space)) == 2, "a conversation of another tenant with the same name"
    await store.finish(other, END)
    held = await stored(store, "bob")
    assert await store.forget_conversations() == 2
    assert await kept(store, space) == {}
    assert await stored(store, "bob") < held


@pytest.mark.holds(
    "graphs.md",
    "Checkpoints are fenced, bounded, count for the caller, and end with the task or its conversation",
)
async def test_too_large_checkpoints_and_a_full_share_are_refused_as_a_whole(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server, max_stored_mib=1, queue_percent=10))
    claim = await running(store, task("t1"))
    refused = await store.checkpoint(claim, CheckpointChange(put={'["c",1]': "x" * 200_000, '["c",2]': "y"}))
    assert refused.problem is not None
    assert "queuePercent" in refused.problem
    huge = await store.checkpoint(claim, CheckpointChange(put={'["c",1]': "x" * MOST_CHECKPOINT_BYTES}))
    assert huge.is_too_large
    assert await kept(store, "t1") == {}
    await store.close()
