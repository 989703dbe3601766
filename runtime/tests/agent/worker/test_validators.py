"""Validators as they are called: functions of the image, and URLs that answer wrongly, late or without end.

What their verdicts mean for a task is in test_validating.py of the engine.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from agent_support import functions
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_validators
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import HttpEndpoint, JudgeConfig, ValidatorConfig

MODULE = "agent_support.functions"
QUICK = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
ANSWER = {"answer": "Lisbon is warm."}


def in_python(function: str, **fields: Any) -> ValidatorConfig:
    return ValidatorConfig(name="v", python=f"{MODULE}:{function}", **fields)


async def checked(config: ValidatorConfig, result: Any = ANSWER) -> Reply:
    http = HttpTools(retries=QUICK, addresses=AddressCheck(allow_loopback=True))
    runner = ToolRunner({}, http, validators=load_validators([config]))
    call = Call(
        id="validate/v",
        kind=CallKind.TOOL,
        target="validator:v",
        request={"input": "warm", "result": result},
        key="key-1",
    )
    try:
        return await runner.make(call)
    finally:
        await runner.close()


@pytest.mark.holds(
    "agents.md", "Functions and URLs get the task and the result; what may pass is tried again"
)
@pytest.mark.parametrize(
    ("function", "value"),
    [
        pytest.param("names_a_city", {"accepted": True, "reason": "it names no city"}, id="a plain function"),
        pytest.param("answers_the_task", True, id="a coroutine that takes the task's input too"),
        pytest.param("says_nothing", None, id="a function that says nothing"),
    ],
)
async def test_a_function_of_the_image_gives_a_verdict(function: str, value: Any) -> None:
    reply = await checked(in_python(function))
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, value)


@pytest.mark.holds(
    "agents.md",
    "A validator that hangs, fails or has no end gives no verdict; one that can check nothing is "
    "an error at the start",
)
@pytest.mark.parametrize(
    ("function", "outcome", "says"),
    [
        pytest.param("raises_over", CallOutcome.FAILED, "KeyError: 'source'", id="it raises"),
        pytest.param(
            "hangs_over", CallOutcome.TIMED_OUT, "no result within timeoutSeconds (0.1 s)", id="it hangs"
        ),
    ],
)
async def test_a_function_that_gives_no_verdict(function: str, outcome: CallOutcome, says: str) -> None:
    try:
        seconds = 0.1 if outcome is CallOutcome.TIMED_OUT else 30
        reply = await checked(in_python(function, timeout_seconds=seconds))
    finally:
        functions.NAPS.set()
    functions.NAPS.clear()
    assert (reply.outcome, reply.problem) == (outcome, says)


@pytest.mark.holds(
    "agents.md",
    "A validator that hangs, fails or has no end gives no verdict; one that can check nothing is "
    "an error at the start",
)
@pytest.mark.parametrize(
    ("function", "says"),
    [
        pytest.param("checks_nothing", "does not take `result`", id="it takes another argument"),
        pytest.param("checks_too_much", "does not take `result`", id="it takes one more"),
        pytest.param("no_such", "has no function no_such", id="the image lacks it"),
    ],
)
def test_a_function_that_can_check_nothing_is_an_error_at_the_start(function: str, says: str) -> None:
    with pytest.raises(ProgramError) as refused:
        load_validators([in_python(function)])
    assert refused.value.field == "spec.validators[0].python"
    assert says in refused.value.problem


def test_a_judge_is_no_tool() -> None:
    judge = ValidatorConfig(name="fair", judge=JudgeConfig(prompt="Be fair."))
    assert load_validators([judge]) == {}


class Server:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.statuses: list[int] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        match request.match_info["what"]:
            case "accepts":
                return web.json_response({"accepted": True})
            case "shaky":
                return web.json_response({"accepted": True}, status=self.statuses.pop(0))
            case "never":
                await asyncio.sleep(60)
            case "huge":
                return web.json_response({"accepted": True, "reason": "x" * 200_000})
        raise AssertionError


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    application = web.Application()
    application.router.add_route("*", "/{what}", served.answer)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


def over_http(url: str, **fields: Any) -> ValidatorConfig:
    return ValidatorConfig(name="v", http=HttpEndpoint(url=url), **fields)


@pytest.mark.holds(
    "agents.md", "Functions and URLs get the task and the result; what may pass is tried again"
)
async def test_a_url_gets_the_task_and_the_result(server: Server) -> None:
    reply = await checked(over_http(f"{server.url}/accepts"))
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, {"accepted": True})
    assert server.asked == [{"input": "warm", "result": ANSWER}]


@pytest.mark.holds(
    "agents.md", "Functions and URLs get the task and the result; what may pass is tried again"
)
async def test_what_may_pass_is_tried_again_as_for_tools(server: Server) -> None:
    server.statuses = [503, 429, 200]
    reply = await checked(over_http(f"{server.url}/shaky"))
    assert (reply.value, reply.tries) == ({"accepted": True}, 3)


@pytest.mark.holds(
    "agents.md",
    "A validator that hangs, fails or has no end gives no verdict; one that can check nothing is "
    "an error at the start",
)
@pytest.mark.parametrize(
    ("path", "outcome", "says"),
    [
        pytest.param(
            "never", CallOutcome.TIMED_OUT, "no answer within timeoutSeconds (0.2 s)", id="it hangs"
        ),
        pytest.param("huge", CallOutcome.FAILED, "more than maxResultKiB (64 KiB)", id="it has no end"),
    ],
)
async def test_a_url_that_gives_no_verdict(
    server: Server, path: str, outcome: CallOutcome, says: str
) -> None:
    seconds = 0.2 if outcome is CallOutcome.TIMED_OUT else 30
    reply = await checked(over_http(f"{server.url}/{path}", timeout_seconds=seconds))
    assert reply.outcome is outcome
    assert says in str(reply.problem)
