"""Tools over HTTP against a real server, and Python functions: what they are given, and how they go wrong.

How an agent uses them is in test_acting.py; what may not be repeated, in test_engine.py.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent_support import functions
from flotilla_runtime.agent.__main__ import work
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Reconciled, Reply
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_program, load_tool
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import (
    EXIT_PERMANENT,
    TLS_FILE,
    TLS_KEY_FILE,
    Effect,
    HttpEndpoint,
    HttpMethod,
    ModelConnection,
    QueueConfig,
    Reconcile,
    ToolConfig,
    WorkerConfig,
)
from leaks.planted import MARK, planted
from router_support.certificates import write_pair

MODULE = "agent_support.functions"
ON_LOOPBACK = AddressCheck(allow_loopback=True)
QUICK = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))


class Server:
    """A tool's server, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.sent_bytes = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:  # noqa: C901
        text = await request.text()
        self.asked.append(
            {
                "method": request.method,
                "query": sorted(request.query.items()),
                "json": await request.json() if text else None,
                "headers": dict(request.headers),
            }
        )
        match request.match_info["what"]:
            case "json":
                return web.json_response({"celsius": 21.5})
            case "text":
                return web.Response(text="sunny — 21°", charset="utf-8")
            case "empty":
                return web.Response(status=204)
            case "wrong":
                return web.Response(text="{no", content_type="application/json")
            case "nan":
                return web.Response(text='{"a": NaN}', content_type="application/json")
            case "teapot":
                return web.Response(status=418, text="I cannot brew " + "x" * 5000)
            case "metadata":
                raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")
            case "never":
                await asyncio.sleep(60)
            case "drops":
                assert request.transport is not None
                request.transport.abort()
            case "charset":
                return web.Response(body=b"x", headers={"Content-Type": "text/plain; charset=no-such"})
            case "packed":
                return web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
            case "endless":
                return await self.endless(request)
            case "shaky":
                return web.Response(status=self.answers.pop(0), text="ok")
            case "cookie":
                response = web.Response(text="ok")
                response.set_cookie("session", "1")
                return response
        raise AssertionError(request.path)

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while self.sent_bytes < 100 * 2**20:
                await response.write(b"x" * 2**16)
                self.sent_bytes += 2**16
        return response


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


async def called(
    config: ToolConfig,
    arguments: dict[str, Any] | None = None,
    key: str = "key-1",
    addresses: AddressCheck = ON_LOOPBACK,
    traceparent: str | None = None,
) -> Reply:
    tool = load_tool(0, config)
    runner = ToolRunner({config.name: tool}, HttpTools(retries=QUICK, addresses=addresses))
    call = Call(
        id="tool/t",
        kind=CallKind.TOOL,
        target=config.name,
        request=arguments or {},
        key=key,
        effect=config.effect,
        traceparent=traceparent,
    )
    try:
        return await runner.make(call)
    finally:
        await runner.close()


def over_http(url: str, method: HttpMethod = HttpMethod.POST, **fields: Any) -> ToolConfig:
    directory = fields.pop("headers_directory", None)
    endpoint = HttpEndpoint(url=url, method=method, headers_directory=directory)
    return ToolConfig(**{"name": "t", "http": endpoint, "timeout_seconds": 5, **fields})


def in_python(function: str, **fields: Any) -> ToolConfig:
    return ToolConfig(**{"name": "t", "python": f"{MODULE}:{function}", "timeout_seconds": 5, **fields})


ARGUMENTS = {"city": "Faro", "days": [1, 2], "exact": True, "box": {"a": None}}
AS_QUERY = [("box", '{"a": null}'), ("city", "Faro"), ("days", "1"), ("days", "2"), ("exact", "true")]


@pytest.mark.holds("tools.md", "Arguments go as JSON or as a query, with the key as a header")
@pytest.mark.parametrize("method", list(HttpMethod))
async def test_arguments_go_as_json_or_as_a_query(server: Server, method: HttpMethod) -> None:
    reply = await called(over_http(f"{server.url}/json?v=2", method), ARGUMENTS)
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, {"celsius": 21.5})
    (asked,) = server.asked
    as_query = method in (HttpMethod.GET, HttpMethod.DELETE)
    assert asked["method"] == str(method)
    assert asked["query"] == ([*AS_QUERY, ("v", "2")] if as_query else [("v", "2")])
    assert asked["json"] == (None if as_query else ARGUMENTS)
    assert asked["headers"]["Idempotency-Key"] == "key-1"


@pytest.mark.holds(
    "observability.md",
    "The other side of a call gets its span; the replica that answered is in the span of the call",
)
async def test_a_tool_is_told_the_span_of_a_call_unless_it_has_such_a_header(
    server: Server, tmp_path: Path
) -> None:
    await called(over_http(f"{server.url}/json"), traceparent="00-1-2-01")
    (tmp_path / "traceparent").write_text("its own")
    config = over_http(f"{server.url}/json", headers_directory=str(tmp_path))
    await called(config, traceparent="00-1-2-01")
    assert [asked["headers"]["traceparent"] for asked in server.asked] == ["00-1-2-01", "its own"]


@pytest.mark.holds("tools.md", "Headers are read from the secret for each call")
async def test_headers_are_read_from_the_secret_for_each_call(server: Server, tmp_path: Path) -> None:
    config = over_http(f"{server.url}/text", headers_directory=str(tmp_path))
    (tmp_path / "..data").mkdir()
    tokens = planted("one"), planted("two")
    for token in tokens:
        (tmp_path / "Authorization").write_text(f"Bearer {token}\n")
        assert (await called(config)).value == "sunny — 21°"
    assert [asked["headers"]["Authorization"] for asked in server.asked] == [
        f"Bearer {one}" for one in tokens
    ]


@pytest.mark.holds("tools.md", "Headers are read from the secret for each call")
@pytest.mark.attack("A tool's secret is no header, so an error shows it")
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("X-Key", f"{planted('s')}\nX-Evil: 1", "X-Key", id="a value of two lines"),
        pytest.param("X-Key", f"é{planted('s')}", "X-Key", id="a value that is no ASCII"),
        pytest.param("X-Key", "", "X-Key", id="no value"),
        pytest.param("X Key", planted("s"), "X Key", id="a name with a space"),
        pytest.param("Host", planted("s"), "Host", id="a header that is ours"),
        pytest.param("idempotency-key", planted("s"), "idempotency-key", id="the key of the call"),
    ],
)
async def test_a_secret_that_is_no_header_is_named_and_not_shown(
    server: Server, tmp_path: Path, name: str, value: str, says: str
) -> None:
    (tmp_path / name).write_text(value)
    reply = await called(over_http(f"{server.url}/text", headers_directory=str(tmp_path)))
    assert (reply.outcome, says in (reply.problem or ""), server.asked) == (CallOutcome.FAILED, True, [])
    assert MARK not in (reply.problem or "")


async def test_a_secret_that_is_missing_is_a_failure(server: Server, tmp_path: Path) -> None:
    config = over_http(f"{server.url}/text", headers_directory=str(tmp_path / "gone"))
    assert "headers of the tool cannot be read" in ((await called(config)).problem or "")


@pytest.mark.holds("tools.md", "Redirects, time-outs, answers over the limit and broken JSON are failures")
@pytest.mark.holds(
    "security.md", "Tools reach what their URLs name, and nothing where clouds keep credentials"
)
@pytest.mark.attack("A tool's server redirects to the address where a cloud keeps its credentials")
@pytest.mark.parametrize(
    ("what", "outcome", "says"),
    [
        pytest.param("teapot", CallOutcome.FAILED, "answered 418: I cannot brew", id="a refusal, with words"),
        pytest.param("metadata", CallOutcome.FAILED, "answered 302: tools follow no redirect", id="redirect"),
        pytest.param("drops", CallOutcome.FAILED, "ServerDisconnectedError", id="it hangs up"),
        pytest.param("wrong", CallOutcome.FAILED, "is called JSON and is none", id="broken JSON"),
        pytest.param("nan", CallOutcome.FAILED, "is called JSON and is none", id="not a number"),
        pytest.param(
            "charset", CallOutcome.FAILED, "a character set that is not known", id="an unknown charset"
        ),
        pytest.param("packed", CallOutcome.FAILED, "is compressed", id="a compressed answer"),
    ],
)
async def test_what_a_server_does_wrong_is_a_failure_with_words(
    server: Server, what: str, outcome: CallOutcome, says: str
) -> None:
    reply = await called(over_http(f"{server.url}/{what}"))
    assert (reply.outcome, says in (reply.problem or "")) == (outcome, True), reply.problem
    assert len(reply.problem or "") < 500
    assert len(server.asked) == 1


@pytest.mark.holds("tools.md", "Redirects, time-outs, answers over the limit and broken JSON are failures")
@pytest.mark.attack("A tool answers without end, or never")
@pytest.mark.parametrize(
    ("what", "outcome", "says"),
    [
        pytest.param("never", CallOutcome.TIMED_OUT, "no answer within timeoutSeconds (0.2 s)", id="never"),
        pytest.param("endless", CallOutcome.FAILED, "more than maxResultKiB (256 KiB)", id="100 MB"),
    ],
)
async def test_an_answer_without_end_is_cut_off_and_one_that_never_comes_is_not_waited_for(
    server: Server, what: str, outcome: CallOutcome, says: str
) -> None:
    seconds = 0.2 if what == "never" else 5
    reply = await called(over_http(f"{server.url}/{what}", timeout_seconds=seconds))
    assert (reply.outcome, says in (reply.problem or "")) == (outcome, True), reply.problem
    assert server.sent_bytes < 20 * 2**20


@pytest.mark.holds("tools.md", "What may be repeated is tried up to three times")
@pytest.mark.parametrize(
    ("effect", "answers", "asked"),
    [
        pytest.param(Effect.PURE, [503, 429, 200], 3, id="a pure call is tried again"),
        pytest.param(Effect.IDEMPOTENT, [503, 200], 2, id="so is an idempotent one, with the same key"),
        pytest.param(Effect.IDEMPOTENT, [400, 200], 1, id="but not what would be refused again"),
        pytest.param(Effect.UNSAFE, [503, 200], 1, id="an unsafe call is not"),
    ],
)
async def test_what_may_be_repeated_is_tried_again(
    server: Server, effect: Effect, answers: list[int], asked: int
) -> None:
    server.answers = list(answers)
    reply = await called(over_http(f"{server.url}/shaky", effect=effect))
    assert (len(server.asked), reply.tries) == (asked, asked)
    assert (reply.outcome is CallOutcome.SUCCEEDED) is (answers[asked - 1] == 200)
    assert {one["headers"]["Idempotency-Key"] for one in server.asked} == {"key-1"}
    says_perhaps = "it is not known whether it happened" in (reply.problem or "")
    assert says_perhaps is (effect is Effect.UNSAFE)


@pytest.mark.holds("tools.md", "What may be repeated is tried up to three times")
async def test_an_unsafe_call_that_found_no_connection_is_tried_again() -> None:
    reply = await called(over_http("http://127.0.0.1:9/x"))
    assert (reply.outcome, reply.tries) == (CallOutcome.FAILED, 3)
    assert "no connection to 127.0.0.1" in (reply.problem or "")


async def test_a_server_with_a_certificate_of_its_own_making_is_not_trusted(tmp_path: Path) -> None:
    write_pair(tmp_path, name="localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / TLS_FILE, tmp_path / TLS_KEY_FILE)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    reply = await called(over_http(f"https://localhost:{port}/pay"))
    server.close()
    assert reply.outcome is CallOutcome.FAILED
    assert "the certificate of localhost is not trusted" in (reply.problem or ""), reply.problem


async def test_a_tool_keeps_no_cookies(server: Server) -> None:
    config = over_http(f"{server.url}/cookie")
    runner = ToolRunner({"t": load_tool(0, config)}, HttpTools(addresses=ON_LOOPBACK))
    for _ in range(2):
        call = Call(id="tool/t", kind=CallKind.TOOL, target="t", request={}, key="k")
        assert (await runner.make(call)).value == "ok"
    await runner.close()
    assert all("Cookie" not in asked["headers"] for asked in server.asked)


@pytest.mark.holds(
    "tools.md",
    "Tools connect to nothing on the own machine and to no link-local address, whatever name stands for it",
)
@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("169.254.169.254", True),
        ("fe80::1%eth0", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::1", True),
        ("::169.254.169.254", True),
        ("100.100.100.200", True),
        ("fd00:ec2::254", True),
        pytest.param("::ffff:0:169.254.169.254", True, id="translated"),
        pytest.param("64:ff9b:1::a9fe:a9fe", True, id="local NAT64 of 96 bits"),
        pytest.param("64:ff9b:1:7::a9fe:a9fe", True, id="the same, of a network of its own"),
        pytest.param("64:ff9b:1:a9fe:a9:fe00::", True, id="local NAT64 of 48 bits"),
        pytest.param("64:ff9b:1:a9:fe:a9fe::", True, id="local NAT64 of 56 bits"),
        pytest.param("64:ff9b:1:0:a9:fea9:fe00:0", True, id="local NAT64 of 64 bits"),
        ("64:ff9b:1::a00:7", False),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("::", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:0:127.0.0.1", True),
        ("10.0.0.7", False),
        ("2001:db8::1", False),
    ],
)
def test_addresses_where_clouds_keep_credentials_and_the_own_ones_are_forbidden(
    address: str, forbidden: bool
) -> None:
    assert AddressCheck().is_forbidden(address) is forbidden


def test_a_test_that_allows_the_own_machine_allows_nothing_else() -> None:
    told = ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"]
    assert [ON_LOOPBACK.is_forbidden(address) for address in told] == [False] * 3 + [True] * 3


@pytest.mark.holds(
    "tools.md",
    "Tools connect to nothing on the own machine and to no link-local address, whatever name stands for it",
)
@pytest.mark.attack("A tool's URL, or a name in it, leads to the worker's own machine")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"])
async def test_a_tool_reaches_nothing_on_the_machine_of_its_worker(server: Server, host: str) -> None:
    url = server.url.replace("127.0.0.1", host)
    reply = await called(over_http(f"{url}/json"), addresses=AddressCheck())
    assert "may not connect to the address" in (reply.problem or ""), reply.problem
    assert (reply.outcome, server.asked) == (CallOutcome.FAILED, [])


@pytest.mark.holds(
    "tools.md",
    "Tools connect to nothing on the own machine and to no link-local address, whatever name stands for it",
)
@pytest.mark.holds(
    "security.md", "Tools reach what their URLs name, and nothing where clouds keep credentials"
)
@pytest.mark.attack("A name in a tool's URL stands for such an address")
@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "metadata.test"])
async def test_a_tool_connects_to_no_such_address_whatever_its_name_is(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    looked_up = loop.getaddrinfo

    async def lookup(name: Any, port: Any, **options: Any) -> Any:
        return await looked_up("169.254.169.254" if name == "metadata.test" else name, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", lookup)
    reply = await called(over_http(f"http://{host}/latest/meta-data", timeout_seconds=30))
    assert reply.outcome is CallOutcome.FAILED
    assert "may not connect to the address" in (reply.problem or ""), reply.problem
    assert reply.tries == 1


# Python functions


@pytest.mark.holds(
    "tools.md", "Functions get validated arguments and the key, and bring schema and description"
)
@pytest.mark.parametrize(
    ("function", "arguments", "value"),
    [
        pytest.param("weather", {"city": "Faro"}, {"city": "Faro", "celsius": 21.5}, id="a plain one"),
        pytest.param("later", {"days": 2}, 3, id="a coroutine"),
        pytest.param("plan", {"start": "A", "stops": ["B"]}, ["A", "B"], id="of a pydantic model"),
        pytest.param("nothing", {}, None, id="one that returns nothing"),
    ],
)
async def test_a_function_is_called_with_validated_arguments(
    function: str, arguments: dict[str, Any], value: Any
) -> None:
    reply = await called(in_python(function), arguments)
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, value)


@pytest.mark.holds(
    "tools.md", "Functions get validated arguments and the key, and bring schema and description"
)
async def test_a_function_that_takes_the_key_gets_it_and_a_plain_one_runs_in_a_thread() -> None:
    config = in_python("pay")
    assert "idempotency_key" not in load_tool(0, config).declaration.parameters["properties"]
    reply = await called(config, {"euro": 5}, key="key-7")
    assert reply.value == {"euro": 5.0, "key": "key-7", "thread": "tool"}


@pytest.mark.holds(
    "tools.md", "Functions get validated arguments and the key, and bring schema and description"
)
def test_a_function_brings_its_description_and_the_schema_of_its_arguments() -> None:
    declared = load_tool(0, in_python("weather")).declaration
    assert declared.description == "The weather of a city."
    assert declared.parameters["required"] == ["city"]
    assert declared.parameters["properties"]["unit"] == {
        "default": "C",
        "enum": ["C", "F"],
        "title": "Unit",
        "type": "string",
    }
    told = load_tool(0, in_python("weather", description="Weather, by us.")).declaration
    assert told.description == "Weather, by us."


@pytest.mark.holds(
    "tools.md", "Functions get validated arguments and the key, and bring schema and description"
)
@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        pytest.param("weather", {}, "city: Field required", id="missing"),
        pytest.param("weather", {"city": 7}, "city: Input should be a valid string", id="of a wrong type"),
        pytest.param("weather", {"city": "A", "x": 1}, "x: Extra inputs", id="unknown"),
        pytest.param("later", {"days": 9}, "days: Input should be less than", id="out of range"),
    ],
)
async def test_wrong_arguments_call_nothing_and_say_what_is_wrong(
    function: str, arguments: dict[str, Any], says: str
) -> None:
    tool = load_tool(0, in_python(function))
    assert says in (tool.problem_of(arguments) or "")
    reply = await called(in_python(function), arguments)
    assert (reply.outcome, says in (reply.problem or "")) == (CallOutcome.INVALID, True)


@pytest.mark.holds("tools.md", "Redirects, time-outs, answers over the limit and broken JSON are failures")
@pytest.mark.parametrize(
    ("function", "outcome", "says"),
    [
        pytest.param("raising", CallOutcome.FAILED, "ValueError: the secret plan failed", id="it raises"),
        pytest.param("leaving", CallOutcome.FAILED, "SystemExit", id="it leaves the process"),
        pytest.param("sleepy", CallOutcome.TIMED_OUT, "timeoutSeconds (0.1 s)", id="a thread that hangs"),
        pytest.param("sleepy_coroutine", CallOutcome.TIMED_OUT, "timeoutSeconds", id="a deaf coroutine"),
        pytest.param("long", CallOutcome.FAILED, "maxResultKiB is 1", id="it returns too much"),
        pytest.param("no_json", CallOutcome.FAILED, "cannot be written as JSON", id="it returns no JSON"),
        pytest.param("half", CallOutcome.FAILED, "surrogates not allowed", id="half a character"),
        pytest.param("half_raised", CallOutcome.FAILED, "ValueError: a?b", id="it raises half a character"),
    ],
)
async def test_what_a_function_does_wrong_is_a_failure_with_words(
    function: str, outcome: CallOutcome, says: str
) -> None:
    functions.NAPS.clear()
    started = asyncio.get_running_loop().time()
    seconds = 0.1 if outcome is CallOutcome.TIMED_OUT else 30
    reply = await called(in_python(function, timeout_seconds=seconds, max_result_kib=1))
    functions.NAPS.set()
    assert (reply.outcome, says in (reply.problem or "")) == (outcome, True), reply.problem
    assert asyncio.get_running_loop().time() - started < 20


# Whether an Unsafe call happened


@pytest.mark.holds("tools.md", "`reconcile` answers over HTTP and in Python")
@pytest.mark.parametrize(
    ("key", "known"),
    [
        pytest.param("known", Reconciled(happened=True), id="it happened"),
        pytest.param("not", Reconciled(happened=False), id="it did not"),
        pytest.param("unknown", None, id="nobody knows"),
        pytest.param("receipt", Reconciled(happened=True, result="receipt"), id="with its result"),
    ],
)
async def test_a_function_says_whether_a_call_happened(key: str, known: Reconciled | None) -> None:
    config = in_python("pay", reconcile=Reconcile(python=f"{MODULE}:happened"))
    call = Call(id="tool/t", kind=CallKind.TOOL, target="t", request={"euro": 5}, key=key)
    assert await ToolRunner({"t": load_tool(0, config)}).reconcile(call) == known


@pytest.mark.holds("tools.md", "`reconcile` answers over HTTP and in Python")
@pytest.mark.parametrize(
    ("what", "known"), [pytest.param("json", None, id="words of no meaning"), ("teapot", None)]
)
async def test_a_server_is_asked_with_the_key_and_the_arguments(
    server: Server, what: str, known: Reconciled | None
) -> None:
    asked = Reconcile(http=HttpEndpoint(url=f"{server.url}/{what}"))
    config = over_http(f"{server.url}/json", reconcile=asked)
    runner = ToolRunner({"t": load_tool(0, config)}, HttpTools(retries=QUICK, addresses=ON_LOOPBACK))
    call = Call(
        id="tool/t", kind=CallKind.TOOL, target="t", request={"euro": 5}, key="k", effect=Effect.UNSAFE
    )
    assert await runner.reconcile(call) == known
    await runner.close()
    assert server.asked[0]["json"] == {"key": "k", "arguments": {"euro": 5}}
    assert server.asked[0]["headers"]["Idempotency-Key"] == "k"


async def test_a_tool_without_reconcile_knows_nothing() -> None:
    call = Call(id="tool/t", kind=CallKind.TOOL, target="t", request={}, key="k")
    assert await ToolRunner({"t": load_tool(0, in_python("pay"))}).reconcile(call) is None


# Loading


def config_of(**fields: Any) -> WorkerConfig:
    model = ModelConnection(role="Default", name="m", url="http://m/v1", model="m")
    return WorkerConfig(queue=QueueConfig(fleet="a/b"), models=(model,), **fields)


@pytest.mark.holds("agent-code.md", "Workers whose code is missing end, and name the field and the fix")
@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        pytest.param({"entrypoint": "agents"}, "spec.agent.entrypoint", "module:function", id="no function"),
        pytest.param(
            {"entrypoint": "no_such.agents:agent"},
            "spec.agent.entrypoint",
            "the image has no module no_such.agents; check spec.image",
            id="no module",
        ),
        pytest.param(
            {"entrypoint": f"{MODULE}:gone"},
            "spec.agent.entrypoint",
            "has no function gone",
            id="it is not there",
        ),
        pytest.param(
            {"entrypoint": f"{MODULE}:NUMBER"}, "spec.agent.entrypoint", "has no function", id="no callable"
        ),
        pytest.param(
            {"entrypoint": f"{MODULE}:plain_agent"}, "spec.agent.entrypoint", "async def", id="no coroutine"
        ),
        pytest.param(
            {"entrypoint": f"{MODULE}:narrow_agent"},
            "spec.agent.entrypoint",
            "(ctx, task)",
            id="one argument",
        ),
        pytest.param(
            {"tools": (in_python("gone"),)}, "spec.tools[0].python", "no function gone", id="no such tool"
        ),
        pytest.param(
            {"tools": (in_python("many"),)}, "spec.tools[0].python", "args needs a name", id="any arguments"
        ),
        pytest.param(
            {"tools": (in_python("strange"),)}, "spec.tools[0].python", "NoSuchType", id="an unknown type"
        ),
        pytest.param(
            {"tools": (over_http("http://x", parameters={"type": "sentence"}),)},
            "spec.tools[0].parameters",
            "no JSON Schema",
            id="a schema that is none",
        ),
        pytest.param(
            {"tools": (over_http("http://x", reconcile=Reconcile(python=f"{MODULE}:gone")),)},
            "spec.tools[0].reconcile.python",
            "no function gone",
            id="nobody to ask",
        ),
    ],
)
def test_code_that_cannot_be_used_is_named_with_its_field(
    fields: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(ProgramError) as raised:
        load_program(config_of(**fields))
    assert raised.value.field == field
    assert says in raised.value.problem


@pytest.mark.holds("agent-code.md", "Workers whose code is missing end, and name the field and the fix")
async def test_a_worker_whose_code_is_missing_ends_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        await work(config_of(entrypoint=f"{MODULE}:gone"))
    assert ended.value.code == EXIT_PERMANENT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"spec.agent.entrypoint: the module {MODULE} has no function gone"


def test_an_entrypoint_is_loaded() -> None:
    assert load_program(config_of(entrypoint=f"{MODULE}:agent")).main is functions.agent
