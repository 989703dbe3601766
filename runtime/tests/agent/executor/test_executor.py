"""Requests at an executor, on the queue in memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent_support import functions
from agent_support.memory_requests import MemoryRequests
from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.executor.executor import Cut, Executor, reply_when_cut
from flotilla_runtime.agent.executor.loading import load_checks, load_functions
from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.protocols import Certainty
from flotilla_runtime.agent.tool_requests import FunctionKind, RequestState, ToolRequest
from flotilla_runtime.agent.tools.python_tool import Functions
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.contract import (
    Effect,
    ExecutorConfig,
    HttpEndpoint,
    QueueConfig,
    Reconcile,
    ToolConfig,
    ValidatorConfig,
)
from router_support.waiting import until

HERE = functions.__name__
TOOLS = (
    ToolConfig(name="weather", python=f"{HERE}:weather", effect=Effect.PURE),
    ToolConfig(name="nap", python=f"{HERE}:sleepy_coroutine"),
    ToolConfig(name="pay", python=f"{HERE}:pay"),
    ToolConfig(name="short_nap", python=f"{HERE}:short_nap"),
    ToolConfig(name="raise", python=f"{HERE}:raising"),
    ToolConfig(
        name="order", http=HttpEndpoint(url="http://x"), reconcile=Reconcile(python=f"{HERE}:happened")
    ),
)


CHECKS = (
    ValidatorConfig(name="city", python=f"{HERE}:names_a_city"),
    ValidatorConfig(name="elsewhere", http=HttpEndpoint(url="http://x")),
)


@asynccontextmanager
async def executing(queue: MemoryRequests, **fields: Any) -> AsyncIterator[Executor]:
    config = ExecutorConfig(
        queue=QueueConfig(fleet="d/s", lease_seconds=0.03),
        tools=TOOLS,
        validators=CHECKS,
        revision="v1",
        **{"handover_seconds": 0.05, "concurrency": 2, **fields},
    )
    checks = load_checks(config.validators)
    runner = ToolRunner(load_functions(config.tools), functions=Functions(2), validators=checks)
    executor = Executor(
        name="e1",
        queue=queue,
        functions=runner,
        threads=runner.threads,
        config=config,
        clock=Clock(monotonic_seconds=time.monotonic),
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(executor.run(stopping))
    try:
        yield executor
    finally:
        stopping.set()
        await running
        await runner.close()


async def asked(
    queue: MemoryRequests, name: str = "weather", effect: Effect = Effect.PURE, **fields: Any
) -> None:
    told = {"id": "k", "call": f"tool/{name}", "key": "k", "arguments": {}, **fields}
    await queue.ask(ToolRequest(name=name, effect=effect, **told), "v1", "w1", "a1")


async def becomes(queue: MemoryRequests, state: RequestState, name: str = "k") -> None:
    await until(lambda: name in queue.kept and queue.kept[name].state is state)


ROWS = [
    ("weather", {"city": "Bern"}, CallOutcome.SUCCEEDED, {"city": "Bern", "celsius": 21.5}),
    ("weather", {"town": "Bern"}, CallOutcome.INVALID, None),
    ("raise", {}, CallOutcome.FAILED, None),
    ("nobody", {}, CallOutcome.INVALID, None),
    ("order", {}, CallOutcome.INVALID, None),
    (
        "validator:city",
        {"input": "Where?", "result": "Porto"},
        CallOutcome.SUCCEEDED,
        {"accepted": False, "reason": "it names no city"},
    ),
    ("validator:elsewhere", {"input": "Where?", "result": "Porto"}, CallOutcome.INVALID, None),
]


@pytest.mark.parametrize(("name", "arguments", "outcome", "value"), ROWS)
async def test_a_request_gets_what_its_function_gave(
    name: str, arguments: dict[str, Any], outcome: CallOutcome, value: Any
) -> None:
    queue = MemoryRequests()
    async with executing(queue) as executor:
        await asked(queue, name, arguments=arguments)
        await becomes(queue, RequestState.ANSWERED)
        assert executor.vitals.is_ready
        assert executor.vitals.is_alive
    reply = queue.kept["k"].reply
    assert reply is not None
    assert (reply.outcome, reply.value) == (outcome, value)


async def test_a_function_gets_the_key_of_its_call_and_a_reconcile_the_call_in_question() -> None:
    queue = MemoryRequests()
    async with executing(queue):
        await asked(queue, "pay", Effect.UNSAFE, arguments={"euro": 5})
        about = {"key": "k", "arguments": {"euro": 5}}
        await asked(queue, "order", id="k2", kind=FunctionKind.RECONCILE, arguments=about)
        await asked(queue, "pay", id="k3", kind=FunctionKind.RECONCILE, arguments=about)
        for name in ("k", "k2", "k3"):
            await becomes(queue, RequestState.ANSWERED, name)
    paid, told, none = (queue.kept[name].reply for name in ("k", "k2", "k3"))
    assert paid is not None
    assert paid.value["key"] == "k"
    assert told is not None
    assert told.value == {"happened": True, "result": "k"}
    assert none is not None
    assert none.outcome is CallOutcome.INVALID


async def test_a_reply_is_sent_until_redis_has_it() -> None:
    queue = MemoryRequests()
    async with executing(queue) as executor:
        await asked(queue, "nap")
        await becomes(queue, RequestState.RUNNING)
        queue.is_away = True
        await until(lambda: executor.metrics.store_problems._value.get() > 1)
        queue.is_away = False
        await queue.withdraw("k", "w1")
        await becomes(queue, RequestState.ANSWERED)
    reply = queue.kept["k"].reply
    assert reply is not None
    assert (reply.outcome, reply.certainty) == (CallOutcome.CANCELLED, Certainty.UNKNOWN)


CUT = [
    (Cut.LOST, Effect.PURE, None),
    (Cut.LOST, Effect.UNSAFE, None),
    (Cut.WITHDRAWN, Effect.PURE, Certainty.UNKNOWN),
    (Cut.WITHDRAWN, Effect.UNSAFE, Certainty.UNKNOWN),
    (Cut.LEAVING, Effect.PURE, Certainty.NOT_BEGUN),
    (Cut.LEAVING, Effect.IDEMPOTENT, Certainty.NOT_BEGUN),
    (Cut.LEAVING, Effect.UNSAFE, Certainty.UNKNOWN),
]


@pytest.mark.parametrize(("cut", "effect", "certainty"), CUT)
def test_what_is_written_of_a_call_that_was_cut_off(
    cut: Cut, effect: Effect, certainty: Certainty | None
) -> None:
    reply = reply_when_cut(cut, effect)
    assert (None if reply is None else reply.certainty) is certainty


@pytest.mark.holds("tools.md", "An executor that must stop lets functions end and hands the rest over")
@pytest.mark.once
@pytest.mark.parametrize(
    ("effect", "state"),
    [
        (Effect.PURE, RequestState.WAITING),
        (Effect.IDEMPOTENT, RequestState.WAITING),
        (Effect.UNSAFE, RequestState.ANSWERED),
    ],
)
async def test_one_that_must_stop_hands_over_what_may_be_repeated(
    effect: Effect, state: RequestState
) -> None:
    queue = MemoryRequests()
    async with executing(queue):
        await asked(queue, "nap", effect)
        await becomes(queue, RequestState.RUNNING)
    assert queue.kept["k"].state is state


@pytest.mark.holds("tools.md", "An executor that must stop lets functions end and hands the rest over")
async def test_one_that_must_stop_lets_functions_end() -> None:
    queue = MemoryRequests()
    async with executing(queue, handover_seconds=5):
        await asked(queue, "short_nap")
        await becomes(queue, RequestState.RUNNING)
    assert queue.kept["k"].state is RequestState.ANSWERED


async def test_a_request_whose_lease_is_lost_is_stopped_and_not_answered() -> None:
    queue = MemoryRequests()
    async with executing(queue, concurrency=1) as executor:
        await asked(queue, "nap", Effect.UNSAFE)
        await becomes(queue, RequestState.RUNNING)
        queue.lose("k")
        await until(lambda: executor.metrics.running._value.get() == 0)
    assert queue.kept["k"].state is RequestState.LOST


async def test_functions_that_do_not_end_leave_no_thread_and_their_requests_to_others() -> None:
    functions.NAPS.clear()
    queue = MemoryRequests()
    tool = ToolConfig(name="sleepy", python=f"{HERE}:sleepy", timeout_seconds=0.02)
    config = ExecutorConfig(queue=QueueConfig(fleet="d/s", lease_seconds=1), tools=(tool,), revision="v1")
    runner = ToolRunner(load_functions(config.tools), functions=Functions(1))
    executor = Executor(
        name="e1",
        queue=queue,
        functions=runner,
        threads=runner.threads,
        config=config,
        clock=Clock(monotonic_seconds=time.monotonic),
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(executor.run(stopping))
    await asked(queue, "sleepy", Effect.UNSAFE)
    await becomes(queue, RequestState.ANSWERED)
    await until(lambda: executor.vitals.is_stuck and not executor.vitals.is_ready)
    await asked(queue, "sleepy", id="k2")
    await asyncio.sleep(0.02)
    assert queue.kept["k2"].state is RequestState.WAITING
    stopping.set()
    functions.NAPS.set()
    await running
    await runner.close()


def test_a_function_that_the_image_lacks_is_named() -> None:
    with pytest.raises(ProgramError, match=r"spec.tools\[t\].python"):
        load_functions([ToolConfig(name="t", python=f"{HERE}:absent")])
    with pytest.raises(ProgramError, match=r"spec.tools\[t\].reconcile.python"):
        load_functions([ToolConfig(name="t", reconcile=Reconcile(python=f"{HERE}:absent"))])
