"""Calls of a worker that executors make, on the queue in memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from agent_support import functions
from agent_support.memory_requests import MemoryRequests
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Certainty, Reconciled, Reply
from flotilla_runtime.agent.tool_requests import (
    MOST_REQUEST_BYTES,
    FunctionKind,
    RequestState,
    Seen,
    ToolRequest,
)
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.executors import AskingSettings, Executors, reply_of_seen
from flotilla_runtime.agent.worker.loading import load_tool, load_validators
from flotilla_runtime.contract import Effect, HttpEndpoint, Reconcile, ToolConfig, ValidatorConfig
from router_support.waiting import until

SETTINGS = AskingSettings(process="w1#x", revision="v1", look_seconds=0.005, most_lost=1)
GOOD = Reply(outcome=CallOutcome.SUCCEEDED, value=21)
NAME = "k/tool/t"  # of the request of `call()`
WEATHER = f"{functions.__name__}:weather"


def call(effect: Effect = Effect.PURE, **fields: Any) -> Call:
    told = {"id": "tool/t", "kind": CallKind.TOOL, "target": "t", "request": {"city": "Bern"}, "key": "k"}
    return Call(**{**told, "effect": effect, **fields})


@asynccontextmanager
async def asking(queue: MemoryRequests, settings: AskingSettings = SETTINGS) -> AsyncIterator[Executors]:
    executors = Executors(queue, settings)
    following = asyncio.create_task(executors.run())
    try:
        yield executors
    finally:
        await executors.close()
        following.cancel()


async def granted(queue: MemoryRequests, token: str = "t1") -> str:
    await until(lambda: any(one.state is RequestState.WAITING for one in queue.kept.values()))
    (found,) = await queue.claim("e1#x", "v1", 1, token)
    return found.request.id


ENDS = [
    (RequestState.LOST, None, Effect.PURE, CallOutcome.FAILED, Certainty.KNOWN, "2 executors were lost"),
    (RequestState.LOST, None, Effect.UNSAFE, CallOutcome.FAILED, Certainty.UNKNOWN, "executor e1 was lost"),
    (RequestState.GONE, None, Effect.UNSAFE, CallOutcome.FAILED, Certainty.UNKNOWN, "has gone"),
    (RequestState.ANSWERED, GOOD, Effect.UNSAFE, CallOutcome.SUCCEEDED, Certainty.KNOWN, ""),
    (
        RequestState.ANSWERED,
        Reply(outcome=CallOutcome.SUCCEEDED, value="x" * 2000),
        Effect.PURE,
        CallOutcome.FAILED,
        Certainty.KNOWN,
        "maxResultKiB is 1",
    ),
    (
        RequestState.ANSWERED,
        Reply(outcome=CallOutcome.TIMED_OUT, problem="late", certainty=Certainty.UNKNOWN),
        Effect.UNSAFE,
        CallOutcome.TIMED_OUT,
        Certainty.UNKNOWN,
        "late",
    ),
]


@pytest.mark.parametrize(("state", "reply", "effect", "outcome", "certainty", "problem"), ENDS)
def test_the_reply_of_a_call_by_the_end_of_its_request(
    state: RequestState,
    reply: Reply | None,
    effect: Effect,
    outcome: CallOutcome,
    certainty: Certainty,
    problem: str,
) -> None:
    request = ToolRequest(id="k", name="t", call="c", key="k", arguments={}, effect=effect, most_lost=1)
    told = reply_of_seen(Seen(state=state, reply=reply, executor="e1#x"), request, 1)
    assert (told.outcome, told.certainty) == (outcome, certainty)
    assert problem in (told.problem or "")


async def test_a_call_gets_the_reply_of_an_executor_also_when_redis_is_away_for_a_while() -> None:
    queue = MemoryRequests(is_away=True)
    async with asking(queue) as executors:
        making = asyncio.create_task(executors.make(call(), "t", most_kib=1))
        await asyncio.sleep(0.01)
        queue.is_away = False
        await queue.answer(await granted(queue), "t1", GOOD)
        assert await making == GOOD


@pytest.mark.holds("tools.md", "A cancelled call is taken back, or its function is stopped")
@pytest.mark.parametrize(
    ("goes_on", "left"),
    [(None, None), (False, None), (True, RequestState.WAITING)],
    ids=["a call without a run", "the agent gave it up or the task was cancelled", "handed over"],
)
async def test_a_cancelled_call_is_withdrawn_unless_another_worker_goes_on_with_it(
    goes_on: bool | None, left: RequestState | None
) -> None:
    queue = MemoryRequests()
    async with asking(queue) as executors:
        said = None if goes_on is None else lambda: bool(goes_on)
        making = asyncio.create_task(executors.make(call(goes_on=said), "t", most_kib=1))
        await until(lambda: NAME in queue.kept)
        making.cancel()
        await asyncio.wait({making})
    assert (queue.kept[NAME].state if NAME in queue.kept else None) is left


@pytest.mark.parametrize("effect", [Effect.PURE, Effect.UNSAFE])
async def test_a_request_that_has_gone_is_put_again_unless_it_may_have_happened(effect: Effect) -> None:
    queue = MemoryRequests()
    async with asking(queue) as executors:
        making = asyncio.create_task(executors.make(call(effect), "t", most_kib=1))
        queue.kept.pop(await granted(queue))
        if effect is Effect.UNSAFE:
            assert (await making).certainty is Certainty.UNKNOWN
            assert queue.kept == {}
        else:
            await queue.answer(await granted(queue, "t2"), "t2", GOOD)
            assert await making == GOOD


async def test_arguments_beyond_the_bound_are_invalid() -> None:
    queue = MemoryRequests()
    reply = await Executors(queue, SETTINGS).make(
        call(request={"a": "x" * MOST_REQUEST_BYTES}), "t", most_kib=1
    )
    assert (reply.outcome, queue.kept) == (CallOutcome.INVALID, {})


KEPT = [
    ("nothing", None),
    ("answered", Reconciled(happened=True, reply=GOOD)),
    ("runs", Reconciled(happened=True, reply=GOOD)),
    ("unknown", None),
    ("lost", None),
]


@pytest.mark.holds(
    "tools.md", "When a worker is lost, its functions go on and the next worker gets their replies"
)
@pytest.mark.once
@pytest.mark.parametrize(("became", "known"), KEPT)
async def test_what_is_known_of_an_unsafe_call_that_an_earlier_worker_asked_for(
    became: str, known: Reconciled | None
) -> None:
    queue = MemoryRequests()
    config = ToolConfig(name="t", python=WEATHER)
    request = ToolRequest(id=NAME, name="t", call="tool/t", key="k", arguments={}, effect=Effect.UNSAFE)
    async with asking(queue) as executors:
        runner = ToolRunner({"t": load_tool(0, config)}, elsewhere=executors)
        if became != "nothing":
            await queue.ask(request, "v1", "w0#x", "a1")
            await queue.claim("e1#x", "v1", 1, "t1")
        if became == "answered":
            await queue.answer(NAME, "t1", GOOD)
        if became == "unknown":
            unknown = Reply(outcome=CallOutcome.FAILED, problem="?", certainty=Certainty.UNKNOWN)
            await queue.answer(NAME, "t1", unknown)
        if became == "lost":
            queue.lose(NAME)
        asked = asyncio.create_task(runner.reconcile(call(Effect.UNSAFE)))
        if became == "runs":
            await asyncio.sleep(0.01)
            assert not asked.done(), "it waits for the function that runs"
            await queue.answer(NAME, "t1", GOOD)
        assert await asked == known
        await runner.close()


@pytest.mark.holds(
    "tools.md",
    "A call that no executor has begun goes to those of the worker that has its task, or is taken "
    "back where there are none; what runs is waited for",
)
async def test_an_unsafe_call_that_waits_for_executors_that_have_gone_is_begun_by_others() -> None:
    queue = MemoryRequests()
    asked = ToolRequest(id=NAME, name="t", call="tool/t", key="k", arguments={}, effect=Effect.UNSAFE)
    await queue.ask(asked, "v0", "w0#x", "a1")
    async with asking(queue) as executors:
        runner = ToolRunner({"t": load_tool(0, ToolConfig(name="t", python=WEATHER))}, elsewhere=executors)
        known = asyncio.create_task(runner.reconcile(call(Effect.UNSAFE)))
        await until(lambda: queue.kept[NAME].revision == "v1")
        assert await queue.claim("e0#x", "v0", 1, "t0") == []
        await queue.answer(await granted(queue), "t1", GOOD)
        assert await known == Reconciled(happened=True, reply=GOOD)
        await runner.close()


@asynccontextmanager
async def without_executors(queue: MemoryRequests) -> AsyncIterator[ToolRunner]:
    """The tools of a worker whose fleet has dropped `toolExecutors`."""
    async with asking(queue, replace(SETTINGS, has_executors=False)) as executors:
        tools = {"t": load_tool(0, ToolConfig(name="t", python=WEATHER))}
        runner = ToolRunner(tools, before=executors)
        yield runner
        await runner.close()


@pytest.mark.holds(
    "tools.md",
    "A call that no executor has begun goes to those of the worker that has its task, or is taken "
    "back where there are none; what runs is waited for",
)
@pytest.mark.once
async def test_a_worker_without_executors_takes_back_what_none_has_begun() -> None:
    queue = MemoryRequests()
    unsafe = call(Effect.UNSAFE, was_begun=True)
    request = ToolRequest(id=NAME, name="t", call="tool/t", key="k", arguments={}, effect=Effect.UNSAFE)
    async with without_executors(queue) as runner:
        await queue.ask(request, "v0", "w0#x", "a1")
        assert await runner.reconcile(unsafe) == Reconciled(happened=False, was_begun=False)
        assert queue.kept == {}, "no executor begins it beside the worker"
        assert await runner.reconcile(unsafe) is None, "after that nobody knows what the worker did"


@pytest.mark.holds(
    "tools.md",
    "A call that no executor has begun goes to those of the worker that has its task, or is taken "
    "back where there are none; what runs is waited for",
)
@pytest.mark.once
@pytest.mark.parametrize("effect", [Effect.IDEMPOTENT, Effect.UNSAFE])
async def test_a_worker_without_executors_calls_nothing_that_one_of_before_may_begin_or_runs(
    effect: Effect,
) -> None:
    """An Unsafe call comes here when somebody has said that it did not happen."""
    queue = MemoryRequests()
    request = ToolRequest(id=NAME, name="t", call="tool/t", key="k", arguments={}, effect=effect)
    async with without_executors(queue) as runner:
        await queue.ask(request, "v0", "w0#x", "a1")
        assert (await runner.make(call(effect, was_begun=True))).outcome is CallOutcome.SUCCEEDED
        assert queue.kept == {}
        await queue.ask(request, "v0", "w0#x", "a2")
        await queue.claim("e0#x", "v0", 1, "t0")
        making = asyncio.create_task(runner.make(call(effect, was_begun=True)))
        await until(lambda: queue.kept[NAME].waiter == SETTINGS.process)
        assert not making.done(), "it waits for the function that runs"
        await queue.answer(NAME, "t0", GOOD)
        assert await making == GOOD


async def test_a_new_call_of_a_worker_without_executors_asks_nobody() -> None:
    async with without_executors(MemoryRequests(is_away=True)) as runner:
        assert (await runner.make(call())).outcome is CallOutcome.SUCCEEDED


@pytest.mark.holds(
    "agent-code.md",
    "A compensation that fails is tried again under the same key, an Unsafe one is not; the task "
    "ends as CompensationFailed and names it",
)
async def test_each_try_of_a_compensation_is_a_request_of_its_own_with_the_same_key() -> None:
    queue = MemoryRequests()
    failed = Reply(outcome=CallOutcome.FAILED, problem="no connection")
    tries = ["compensate/undo#compensation", "compensate/undo#compensation-2"]
    async with asking(queue) as executors:
        for name, reply in zip(tries, (failed, GOOD), strict=True):
            making = asyncio.create_task(executors.make(call(id=name), "t", most_kib=1))
            await queue.answer(await granted(queue, name), name, reply)
            assert await making == reply
    asked = [one.request for one in queue.kept.values()]
    assert [(request.call, request.key) for request in asked] == [(name, "k") for name in tries]


@pytest.mark.holds("tools.md", "Validators and `reconcile` in Python are called in executors")
async def test_a_validator_in_python_is_called_by_an_executor() -> None:
    queue = MemoryRequests()
    check = ValidatorConfig(name="city", python=f"{functions.__name__}:names_a_city")
    async with asking(queue) as executors:
        runner = ToolRunner({}, elsewhere=executors, validators=load_validators([check]))
        about = {"input": "Where?", "result": "Porto"}
        checking = asyncio.create_task(runner.make(call(target="validator:city", request=about)))
        name = await granted(queue)
        request = queue.kept[name].request
        assert (request.name, request.arguments) == ("validator:city", about)
        await queue.answer(name, "t1", GOOD)
        assert await checking == GOOD
        await runner.close()


@pytest.mark.holds("tools.md", "Validators and `reconcile` in Python are called in executors")
async def test_a_function_that_knows_whether_a_call_happened_is_called_by_an_executor_too() -> None:
    queue = MemoryRequests()
    config = ToolConfig(
        name="t",
        http=HttpEndpoint(url="http://x"),
        reconcile=Reconcile(python=f"{functions.__name__}:happened"),
    )
    async with asking(queue) as executors:
        runner = ToolRunner({"t": load_tool(0, config)}, elsewhere=executors)
        asked = asyncio.create_task(runner.reconcile(call(Effect.UNSAFE)))
        name = await granted(queue)
        request = queue.kept[name].request
        assert (request.kind, request.name, request.effect) == (FunctionKind.RECONCILE, "t", Effect.PURE)
        assert request.arguments == {"key": "k", "arguments": {"city": "Bern"}}
        await queue.answer(name, "t1", Reply(outcome=CallOutcome.SUCCEEDED, value=True))
        assert await asked == Reconciled(happened=True)
        await runner.close()
