"""The state of agents, against a real Redis: whose it is, and that a write happens once, within bounds."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.stores import END, intent, length, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.budgets import LimitName
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended
from flotilla_runtime.agent.protocols import StateOperation, StateRequest
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim

pytestmark = pytest.mark.services

GET, PUT, SWAP = StateOperation.GET, StateOperation.PUT, StateOperation.COMPARE_AND_SWAP


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server))
    yield opened
    await opened.close()


def asking(key: str) -> Intended:
    return intent(f"state/{key}", kind=CallKind.STATE, target=key, reserved_tokens=0)


async def asked(
    store: TaskStore,
    claim: Claim,
    operation: StateOperation,
    key: str = "k",
    value: str = "",
    expected: str = "",
    agent: str = "",
) -> Done:
    request = StateRequest(agent=agent, operation=operation, key=key, value=value, expected=expected)
    written = await store.state(claim, await length(store, claim.id), asking(key), request)
    assert written.done is not None
    return written.done


@pytest.mark.holds(
    "agent-code.md",
    "`ctx.state` keeps values for each tenant and agent; a read is replayed, and a write happens once",
)
@pytest.mark.attack("An agent reads or writes the state of another tenant")
async def test_a_value_is_kept_for_the_tenant_and_the_agent(store: TaskStore) -> None:
    claim = await running(store, task("t1", tenant="red"))
    assert (await asked(store, claim, GET)).value is None
    assert (await asked(store, claim, PUT, value='{"é":[1]}')).outcome is CallOutcome.SUCCEEDED
    assert (await asked(store, claim, GET, agent="other")).value is None
    assert [type(entry) for entry in (await loaded(store, "t1")).entries[-2:]] == [Intended, Done]
    await store.finish(claim, END)
    for name, tenant, value in (("t2", "red", {"é": [1]}), ("t3", "blue", None)):
        other = await running(store, task(name, tenant=tenant))
        assert (await asked(store, other, GET)).value == value
        await store.finish(other, END)


@pytest.mark.holds(
    "agent-code.md",
    "`ctx.state` keeps values for each tenant and agent; a read is replayed, and a write happens once",
)
async def test_of_two_tasks_that_swap_one_value_one_succeeds(store: TaskStore) -> None:
    first, second = await running(store, task("t1")), await running(store, task("t2"), "w2")
    assert (await asked(store, first, SWAP, value="1")).value is True
    assert (await asked(store, second, SWAP, value="2")).value is False
    assert (await asked(store, second, SWAP, expected="1", value="2")).value is True
    assert (await asked(store, first, GET)).value == 2
    assert (await asked(store, first, PUT)).value is True
    assert (await asked(store, first, GET)).value is None
    assert (await store.figures()).stored_bytes > 0


@pytest.mark.holds(
    "agent-code.md",
    "`ctx.state` keeps values for each tenant and agent; a read is replayed, and a write happens once",
)
async def test_a_write_whose_answer_was_lost_happens_once(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    request = StateRequest(agent="", operation=SWAP, key="k", value="1")
    first = await store.state(claim, 2, asking("k"), request, "w")
    assert await store.state(claim, 2, asking("k"), request, "w") == first
    assert first.done is not None
    assert first.done.value is True
    with pytest.raises(LeaseLostError):
        await store.state(claim, 2, asking("k"), request)


async def test_who_lost_the_task_writes_no_state(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await store.release(claim, "w1")
    (again,) = await store.claim("w2", 1)
    with pytest.raises(LeaseLostError):
        await store.state(claim, 4, asking("k"), StateRequest(agent="", operation=PUT, key="k", value="1"))
    assert (await asked(store, again, GET)).value is None


@pytest.mark.holds(
    "tasks.md",
    "What a replay begins with, and the copies of state in journals, need room in their caller's share",
)
@pytest.mark.attack("One caller's tasks fill Redis with what their calls answer")
async def test_values_of_the_state_are_not_copied_beyond_the_callers_share(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server, queue_percent=50, max_stored_mib=0.2))
    claim = await running(store, task("t1"))
    text = '"' + "x" * 20_000 + '"'
    assert (await asked(store, claim, PUT, value=text)).outcome is CallOutcome.SUCCEEDED
    for _ in range(4):
        assert (await asked(store, claim, GET)).value == "x" * 20_000
    before = await length(store, "t1")
    request = StateRequest(agent="", operation=GET, key="k")
    refused = await store.state(claim, before, asking("k"), request, "w")
    assert await store.state(claim, before, asking("k"), request, "w") == refused
    assert (refused.done, refused.length) == (None, before)
    assert [(one.call, one.limit, one.may_change) for one in refused.refused] == [
        ("state/k", LimitName.SHARE, False)
    ]
    assert (await asked(store, claim, PUT)).value is True, "what takes little room is written"
    await store.close()


@pytest.mark.holds("agent-code.md", "Keys, values and states are bounded")
async def test_a_state_is_bounded_by_keys_and_bytes(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "flotilla_runtime.agent.store.worker_tasks"
    monkeypatch.setattr(f"{module}.MOST_STATE_KEYS", 2)
    monkeypatch.setattr(f"{module}.MOST_STATE_BYTES", 1000)
    claim = await running(store, task("t1"))
    before = (await store.figures()).stored_bytes
    for key in ("a", "b"):
        assert (await asked(store, claim, PUT, key, value="1")).outcome is CallOutcome.SUCCEEDED
    full = await asked(store, claim, PUT, "c", value="1")
    assert (full.outcome, full.value) == (CallOutcome.FAILED, None)
    assert "has 2 keys, or 1000 bytes, at most" in (full.problem or "")
    assert (await asked(store, claim, PUT, "a", value='"' + "x" * 1000 + '"')).outcome is CallOutcome.FAILED
    assert (await asked(store, claim, SWAP, "b", expected="1", value="2")).value is True
    assert (await asked(store, claim, PUT, "a")).outcome is CallOutcome.SUCCEEDED
    assert (await asked(store, claim, PUT, "c", value="1")).outcome is CallOutcome.SUCCEEDED
    for key in ("b", "c"):
        await asked(store, claim, PUT, key)
    await store.finish(claim, END)
    assert before > 0
    left = await store._client.hgetall(f"{store.keys.prefix}state-bytes")
    assert left == {}
