"""Certainty about Unsafe calls that have failed, against real sockets and threads that hang.

The engine's part is in test_engine.py.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent_support import functions
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Certainty, Reply
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.python_tool import Functions, FunctionTimeoutError, NotBegunError
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_tool
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import Effect, HttpEndpoint, HttpMethod, ToolConfig
from router_support.waiting import until

QUICK = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """Counts whole requests, and answers each with bytes, or not at all."""

    def __init__(self, respond: Respond) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self.port = 0
        self._respond = respond

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().lower().split("\r\n")
                sizes = [int(line.split(":")[1]) for line in lines if line.startswith("content-length")]
                await reader.readexactly(sum(sizes))
                self.requests.append(head.decode().split(" ")[0])
                await self._respond(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw(respond: Respond) -> AsyncIterator[RawServer]:
    server = RawServer(respond)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()


def sends(text: str, *, then_closes: bool = True) -> Respond:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode())
        await writer.drain()
        if then_closes:
            raise ConnectionError

    return respond


async def hangs(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


def answer(status: int, body: str = "no", **headers: str) -> str:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])


async def called(
    port: int,
    *,
    effect: Effect = Effect.UNSAFE,
    method: HttpMethod = HttpMethod.POST,
    times: int = 1,
    seconds: float = 30,
) -> list[Reply]:
    config = ToolConfig(
        name="t",
        http=HttpEndpoint(url=f"http://127.0.0.1:{port}/pay", method=method),
        effect=effect,
        timeout_seconds=seconds,
        max_result_kib=1,
    )
    addresses = AddressCheck(allow_loopback=True)
    runner = ToolRunner({"t": load_tool(0, config)}, HttpTools(retries=QUICK, addresses=addresses))
    call = Call(id="tool/t", kind=CallKind.TOOL, target="t", request={"euro": 5}, key="k", effect=effect)
    try:
        return [await runner.make(call) for _ in range(times)]
    finally:
        await runner.close()


@pytest.mark.holds("tools.md", "A server that reads a call and closes gets an Unsafe one once")
@pytest.mark.attack("A tool's server takes an Unsafe call and closes, so that it is sent again")
@pytest.mark.parametrize("method", [HttpMethod.PUT, HttpMethod.DELETE, HttpMethod.GET, HttpMethod.POST])
async def test_an_unsafe_call_is_sent_once_to_a_server_that_reads_it_and_closes(method: HttpMethod) -> None:
    async with raw(sends("")) as server:
        (reply,) = await called(server.port, method=method)
    assert server.requests == [str(method)]
    assert (reply.outcome, reply.certainty) == (CallOutcome.FAILED, Certainty.UNKNOWN)


@pytest.mark.parametrize(
    ("effect", "sent"), [(Effect.PURE, 3), (Effect.IDEMPOTENT, 3)], ids=["pure", "idempotent"]
)
async def test_another_call_is_sent_as_often_as_we_try_and_no_oftener(effect: Effect, sent: int) -> None:
    async with raw(sends("")) as server:
        (reply,) = await called(server.port, effect=effect, method=HttpMethod.PUT)
    assert (len(server.requests), reply.tries) == (sent, sent)


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call that was sent and not answered is an unknown effect; any other failure is a "
    "result, with words",
)
@pytest.mark.parametrize(
    ("respond", "certainty", "says"),
    [
        pytest.param(hangs, Certainty.UNKNOWN, "timeoutSeconds (0.5 s)", id="no answer in time"),
        pytest.param(sends("HTTP/1.1 200 X\r\nContent-Le"), Certainty.UNKNOWN, "", id="half of a head"),
        pytest.param(
            sends("HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nno"), Certainty.UNKNOWN, "", id="half of a body"
        ),
        pytest.param(sends("what?\r\n\r\n"), Certainty.UNKNOWN, "", id="no HTTP"),
        pytest.param(sends(answer(502)), Certainty.UNKNOWN, "answered 502", id="a proxy got no answer"),
        pytest.param(sends(answer(504)), Certainty.UNKNOWN, "answered 504", id="a proxy waited too long"),
        pytest.param(
            sends(answer(500)),
            Certainty.KNOWN,
            "answered 500: no; it is not known whether it happened",
            id="the tool says that it failed",
        ),
        pytest.param(sends(answer(409)), Certainty.KNOWN, "answered 409: no", id="the tool refuses it"),
        pytest.param(
            sends(answer(200, "x" * 2000)),
            Certainty.KNOWN,
            "was cut off; the call itself has happened",
            id="it answers too much",
        ),
        pytest.param(
            sends(answer(200, "{no", **{"Content-Type": "application/json"})),
            Certainty.KNOWN,
            "; the call itself has happened",
            id="it answers what is no JSON",
        ),
    ],
)
async def test_what_is_known_of_an_unsafe_call_that_failed(
    respond: Respond, certainty: Certainty, says: str
) -> None:
    async with raw(respond) as server:
        (reply,) = await called(server.port, seconds=0.5 if respond is hangs else 30)
    assert len(server.requests) == 1
    assert reply.outcome in (CallOutcome.FAILED, CallOutcome.TIMED_OUT)
    assert (reply.certainty, says in (reply.problem or "")) == (certainty, True), reply.problem


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call that was sent and not answered is an unknown effect; any other failure is a "
    "result, with words",
)
async def test_a_call_that_was_never_sent_is_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    (refused,) = await called(9)
    assert (refused.outcome, refused.certainty) == (CallOutcome.FAILED, Certainty.KNOWN)

    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(30)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never)
    (late,) = await called(9, seconds=0.5)
    assert (late.outcome, late.certainty) == (CallOutcome.TIMED_OUT, Certainty.KNOWN)


async def test_an_unsafe_call_has_a_connection_of_its_own_since_a_kept_one_may_close() -> None:
    async with raw(sends(answer(200), then_closes=False)) as server:
        await called(server.port, times=3)
        assert server.connections == 3
        await called(server.port, effect=Effect.IDEMPOTENT, times=3)
        assert server.connections == 4


# Threads


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    ends = threading.Event()
    yield ends
    ends.set()


@pytest.mark.attack("A tool's function hangs, again and again")
async def test_functions_that_hang_hold_threads_until_the_worker_is_stuck_and_later_ones_are_not_begun(
    hang: threading.Event,
) -> None:
    threads = Functions(most_threads=2)
    begun: list[int] = []
    for number in range(2):
        assert not threads.is_stuck
        with pytest.raises(FunctionTimeoutError):
            await threads.result(hang.wait, is_coroutine=False, seconds=0.02)
        assert threads.left_behind == number + 1
    assert threads.is_stuck
    with pytest.raises(NotBegunError):
        await threads.result(lambda: begun.append(1), is_coroutine=False, seconds=30)
    assert begun == []
    hang.set()
    await until(lambda: threads.left_behind == 0)
    await threads.result(lambda: begun.append(2), is_coroutine=False, seconds=5)
    assert begun == [2]


@pytest.mark.holds(
    "tools.md",
    "A function that found no thread was not begun, and another worker makes the call; a worker "
    "without threads is replaced",
)
async def test_a_function_that_got_no_thread_in_time_was_not_begun(hang: threading.Event) -> None:
    threads = Functions(most_threads=1)
    begun: list[int] = []
    long = asyncio.create_task(threads.result(hang.wait, is_coroutine=False, seconds=30))
    await asyncio.sleep(0)
    with pytest.raises(NotBegunError):
        await threads.result(lambda: begun.append(1), is_coroutine=False, seconds=0.02)
    assert (begun, threads.left_behind, threads.is_stuck) == ([], 0, False)
    hang.set()
    assert await long is True


async def test_a_thread_that_the_system_refuses_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Functions(most_threads=1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(2):
            with pytest.raises(NotBegunError):
                await threads.result(lambda: 7, is_coroutine=False, seconds=30)
    assert await threads.result(lambda: 7, is_coroutine=False, seconds=30) == 7


async def test_a_function_over_time_is_unknown_and_one_without_a_thread_was_not_begun() -> None:
    reference = "agent_support.functions:sleepy"
    config = ToolConfig(name="t", python=reference, effect=Effect.UNSAFE, timeout_seconds=0.05)
    runner = ToolRunner({"t": load_tool(0, config)}, functions=Functions(most_threads=1))
    functions.NAPS.clear()
    call = Call(id="tool/t", kind=CallKind.TOOL, target="t", request={}, key="k", effect=Effect.UNSAFE)
    replies = [await runner.make(call) for _ in range(2)]
    functions.NAPS.set()
    assert [reply.certainty for reply in replies] == [Certainty.UNKNOWN, Certainty.NOT_BEGUN]
    assert "threads" in (replies[1].problem or "")
    assert runner.threads.is_stuck
