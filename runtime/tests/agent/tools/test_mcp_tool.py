"""The tools of a real MCP server, in the protocol without sessions and in the one with them, that goes wrong.

The server is made with the official library. Each test names the protocols for which it holds.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_support.mcp_servers import SESSION, Protocol, ToolServer, mcp_server
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Certainty, Reply
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.agent.tools import mcp_server as connecting
from flotilla_runtime.agent.tools import mcp_transport as carrying
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.catalogue import Catalogue
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.mcp_tool import McpTools
from flotilla_runtime.agent.tools.mcp_transport import Exchange
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import Effect, McpServer, McpToolChoice, ToolConfig, ToolTrouble
from leaks.planted import MARK, planted
from router_support.waiting import until

QUICK = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
ADD, PAY = ("bank_add", {"a": 1, "b": 2}), ("bank_pay", {"euro": 5})
sessions_alone = pytest.mark.parametrize("server", ["sessions"], indirect=True)


@pytest.fixture(params=["stateless", "sessions"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ToolServer]:
    async with mcp_server(request.param) as served:
        yield served


HANGS_FOR_SECONDS = 1.0  # until a call to a server that never answers is given up


class Bank:
    """A worker's tools of this server."""

    def __init__(
        self, server: ToolServer, *chosen: McpToolChoice, headers: Path | None = None, **fields: Any
    ) -> None:
        directory = None if headers is None else str(headers)
        asked = McpServer(url=server.url, tools=chosen, headers_directory=directory)
        self.http = HttpTools(addresses=fields.pop("addresses", AddressCheck(allow_loopback=True)))
        config = ToolConfig(**{"name": "bank", "mcp": asked, "timeout_seconds": 60, **fields})
        self.tools = McpTools(config, asked, self.http.connections, retries=QUICK)
        self.catalogue = Catalogue({}, [self.tools])
        self.runner = ToolRunner(self.catalogue, self.http)

    async def __aenter__(self) -> "Bank":
        await self.catalogue.look()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.catalogue.close()
        await self.runner.close()

    async def call(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        task: str = "t1",
        key: str = "k1",
        traceparent: str | None = None,
        seconds: float | None = None,
    ) -> Reply:
        effect = self.catalogue[name].config.effect if name in self.catalogue else Effect.UNSAFE
        call = Call(
            id="c",
            kind=CallKind.TOOL,
            target=name,
            request=arguments,
            key=key,
            effect=effect,
            traceparent=traceparent,
        )
        if seconds is None:
            return await self.runner.make(call, task)
        tool = self.catalogue[name]
        assert isinstance(tool.make, partial)
        brief = tool.config.model_copy(update={"timeout_seconds": seconds})
        return await self.tools.make(brief, tool.make.args[1], call, task)


@pytest.mark.holds("tools.md", "Tools of MCP servers are called with the key, without sessions and with them")
async def test_a_servers_tools_are_called_with_the_key_and_the_headers(
    server: ToolServer, tmp_path: Path
) -> None:
    (tmp_path / "Authorization").write_text(f"Bearer {planted('mcp')}")
    async with Bank(server, headers=tmp_path, description="A bank.") as bank:
        assert bank.catalogue["bank_add"].declaration.description == "A bank.\nAdds two numbers."
        assert (await bank.call(*ADD)).value == {"sum": 3}
        assert (await bank.call(*PAY)).value == "paid 5"
        wrong = await bank.call("bank_add", {"a": "one"})
    assert wrong.outcome is CallOutcome.INVALID
    assert server.paid == ["k1"]
    assert {headers.get("authorization") for _, headers in server.requests} == {f"Bearer {planted('mcp')}"}


@pytest.mark.holds(
    "observability.md",
    "The other side of a call gets its span; the replica that answered is in the span of the call",
)
async def test_a_server_is_told_the_span_of_a_call(server: ToolServer) -> None:
    async with Bank(server) as bank:
        await bank.call(*PAY, traceparent="00-1-2-01")
        await bank.call(*PAY, key="k2")
    assert server.traces == ["00-1-2-01", None]


@pytest.mark.holds("tools.md", "Tools of MCP servers are called with the key, without sessions and with them")
@pytest.mark.parametrize("server", ["stateless"], indirect=True)
async def test_the_protocol_without_sessions_has_none(server: ToolServer) -> None:
    async with Bank(server) as bank:
        for task in ("t1", "t2"):
            await bank.call(*ADD, task=task)
    assert not any(SESSION in headers for _, headers in server.requests)
    assert (len(server.asked("server/discover")), server.asked("initialize")) == (1, [])


@pytest.mark.holds("tools.md", "Tools of MCP servers are called with the key, without sessions and with them")
@sessions_alone
@pytest.mark.attack("A task sees what another left in its session of an MCP server")
async def test_each_task_has_a_session_of_its_own_and_keeps_it(server: ToolServer) -> None:
    async with Bank(server) as bank:
        for task in ("t1", "t2", "t1", "t2"):
            assert (await bank.call(*ADD, task=task)).value == {"sum": 3}
    used = [headers[SESSION] for headers in server.asked("tools/call")]
    assert (used[0], used[1]) == (used[2], used[3])
    assert used[0] != used[1]
    assert len(server.asked("DELETE")) == 3, "the sessions of both tasks and of the list are ended"


@pytest.mark.holds("tools.md", "Tools of MCP servers are called with the key, without sessions and with them")
@sessions_alone
async def test_a_session_that_is_not_used_is_ended(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "IDLE_SECONDS", 0.0)
    async with Bank(server) as bank:
        await bank.call(*ADD)
        bank.tools.connections.end_idle()
        assert (await bank.call(*ADD)).value == {"sum": 3}
    first, second = (headers[SESSION] for headers in server.asked("tools/call"))
    assert first != second


@pytest.mark.holds("tools.md", "A session that an MCP server does not end is cut off")
@sessions_alone
async def test_a_session_that_the_server_does_not_end_is_cut_off(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "IDLE_SECONDS", 0.0)
    async with Bank(server) as bank:
        await bank.call(*ADD)
        server.silent_at = {"DELETE"}
        monkeypatch.setattr(connecting, "OPEN_SECONDS", 0.2)
        bank.tools.connections.end_idle()
        await until(lambda: server.unanswered == 1)
        await until(lambda: server.unanswered == 0)
        server.silent_at = set()


@pytest.mark.holds(
    "tools.md",
    "An MCP server that never says its tools, or stops in the handshake, is reported in time and "
    "holds up no other",
)
@sessions_alone
async def test_a_server_that_falls_silent_in_the_handshake_is_given_up_in_time(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "OPEN_SECONDS", 5)
    monkeypatch.setattr(carrying, "NOTICE_SECONDS", 0.2)
    server.silent_at = {"notifications/initialized", "tools/list", "DELETE"}
    async with asyncio.timeout(60), Bank(server) as bank:
        assert bank.catalogue.troubles["bank"].trouble == ToolTrouble.NO_ANSWER
        await until(lambda: bool(server.asked("DELETE")))
        await until(lambda: server.unanswered == 0)


@sessions_alone
@pytest.mark.attack("Many short tasks each open a session of an MCP server")
async def test_the_session_used_longest_ago_is_ended_when_there_are_too_many(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "MOST_IDLE", 2)
    http = HttpTools(addresses=AddressCheck(allow_loopback=True))
    connections = connecting.McpConnections(McpServer(url=server.url), http.connections)
    for task in ("t1", "t2", "t1", "t3", "t4"):
        await connections.call(task, "add", {"a": 1, "b": 2}, {}, Exchange(most_bytes=2**20))
    first, second, again, *_ = (headers[SESSION] for headers in server.asked("tools/call"))
    await until(lambda: bool(server.asked("DELETE")))
    ended = [headers[SESSION] for headers in server.asked("DELETE")]
    await connections.close()
    await http.close()
    assert (first, ended) == (again, [second])


@sessions_alone
async def test_a_session_in_which_a_call_is_made_is_not_ended(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "IDLE_SECONDS", 0.0)
    async with Bank(server) as bank:
        waiting = asyncio.create_task(bank.call("bank_hangs", {}, seconds=HANGS_FOR_SECONDS))
        await until(lambda: bool(server.asked("tools/call")))
        bank.tools.connections.end_idle()
        reply = await waiting
    assert (reply.outcome, reply.certainty) == (CallOutcome.TIMED_OUT, Certainty.UNKNOWN), reply.problem


@sessions_alone
async def test_the_calls_that_a_task_makes_at_once_have_one_session(server: ToolServer) -> None:
    http = HttpTools(addresses=AddressCheck(allow_loopback=True))
    connections = connecting.McpConnections(McpServer(url=server.url), http.connections)

    async def add() -> object:
        return await connections.call("t1", "add", {"a": 1, "b": 2}, {}, Exchange(most_bytes=2**20))

    await asyncio.gather(add(), add())
    await connections.close()
    await http.close()
    assert len({headers[SESSION] for headers in server.asked("tools/call")}) == 1
    assert len(server.asked("DELETE")) == 2, "that of the task and that of the list are ended"


@pytest.mark.holds("tools.md", "A lost session is opened anew and repeats no Unsafe call")
@sessions_alone
@pytest.mark.parametrize(
    ("effect", "outcome", "calls"),
    [
        pytest.param(Effect.PURE, CallOutcome.SUCCEEDED, 3, id="a Pure call is made again"),
        pytest.param(Effect.IDEMPOTENT, CallOutcome.SUCCEEDED, 3, id="an Idempotent one too"),
        pytest.param(Effect.UNSAFE, CallOutcome.FAILED, 2, id="an Unsafe one is not"),
    ],
)
async def test_a_lost_session_is_opened_anew_and_repeats_no_unsafe_call(
    server: ToolServer, effect: Effect, outcome: CallOutcome, calls: int
) -> None:
    async with Bank(server, effect=effect) as bank:
        assert (await bank.call(*PAY)).outcome is CallOutcome.SUCCEEDED
        server.fault = "no session"
        reply = await bank.call(*PAY, key="k2")
        assert (reply.outcome, reply.certainty) == (outcome, Certainty.KNOWN)
        assert len(server.asked("tools/call")) == calls
        assert (await bank.call(*PAY, key="k3")).outcome is CallOutcome.SUCCEEDED
    if effect is Effect.UNSAFE:
        assert "no longer knew the session" in (reply.problem or "")
        assert server.paid == ["k1", "k3"]
    first, _, *later = (headers[SESSION] for headers in server.asked("tools/call"))
    assert first not in later


@pytest.mark.holds(
    "tools.md",
    "An MCP server that hangs, answers 100 MB, redirects, or changes its tools in the middle is a "
    "failure with words",
)
@pytest.mark.parametrize(
    ("fault", "effect", "outcome", "certainty", "says"),
    [
        pytest.param("shuts once", Effect.PURE, CallOutcome.SUCCEEDED, Certainty.KNOWN, "", id="503, Pure"),
        pytest.param(
            "shuts once", Effect.UNSAFE, CallOutcome.FAILED, Certainty.KNOWN, "it is not known", id="503"
        ),
        pytest.param("gateway", Effect.UNSAFE, CallOutcome.FAILED, Certainty.UNKNOWN, "", id="504"),
        pytest.param("hangs", Effect.UNSAFE, CallOutcome.TIMED_OUT, Certainty.UNKNOWN, "1 s", id="hangs"),
        pytest.param("no MCP", Effect.UNSAFE, CallOutcome.FAILED, Certainty.KNOWN, "happened", id="no MCP"),
        pytest.param("redirects", Effect.UNSAFE, CallOutcome.FAILED, Certainty.KNOWN, "redirect", id="307"),
    ],
)  # fmt: skip
async def test_what_a_server_does_wrong_is_a_failure_with_words(
    server: ToolServer, fault: str, effect: Effect, outcome: CallOutcome, certainty: Certainty, says: str
) -> None:
    async with Bank(server, effect=effect) as bank:
        assert (await bank.call(*ADD)).value == {"sum": 3}, "the session is open"
        server.fault = fault
        reply = await bank.call(*PAY, seconds=HANGS_FOR_SECONDS if fault == "hangs" else None)
        server.fault = None
    assert (reply.outcome, reply.certainty) == (outcome, certainty), reply.problem
    assert says in (reply.problem or "")
    if effect is Effect.UNSAFE:
        assert len(server.asked("tools/call")) == 2, "it is sent once"


@pytest.mark.holds(
    "tools.md",
    "An MCP server that hangs, answers 100 MB, redirects, or changes its tools in the middle is a "
    "failure with words",
)
@pytest.mark.attack("An OpenAPI document or an MCP server answers without end, or never")
async def test_an_answer_of_100_mb_is_cut_off(server: ToolServer) -> None:
    async with Bank(server, effect=Effect.PURE) as bank:
        server.fault = "endless"
        reply = await bank.call(*ADD)
        server.fault = None
        assert (await bank.call(*ADD)).value == {"sum": 3}, "the connection serves other calls"
    assert reply.outcome is CallOutcome.FAILED
    assert "was cut off" in (reply.problem or ""), reply.problem


async def test_a_result_over_the_limit_and_a_tool_that_fails_say_so(server: ToolServer) -> None:
    async with Bank(server) as bank:
        large = await bank.call("bank_large", {"kib": 300})
        fails = await bank.call("bank_fails", {})
    assert "maxResultKiB is 256" in (large.problem or "")
    assert "the call itself has happened" in (large.problem or "")
    assert (fails.outcome, fails.certainty) == (CallOutcome.FAILED, Certainty.KNOWN)
    assert "Error executing tool fails" in (fails.problem or "")


@pytest.mark.holds(
    "tools.md",
    "An MCP server that hangs, answers 100 MB, redirects, or changes its tools in the middle is a "
    "failure with words",
)
async def test_a_call_that_hangs_ends_in_time_and_others_go_on(server: ToolServer) -> None:
    async with Bank(server) as bank:
        assert (await bank.call(*ADD)).value == {"sum": 3}, "the session is open"
        reply = await bank.call("bank_hangs", {}, seconds=HANGS_FOR_SECONDS)
        assert (await bank.call(*ADD)).value == {"sum": 3}
    assert (reply.outcome, reply.certainty) == (CallOutcome.TIMED_OUT, Certainty.UNKNOWN)


@pytest.mark.holds(
    "tools.md",
    "A call of an MCP server's tool that is given up closes its request at once, and the server is told",
)
@pytest.mark.parametrize("fault", [None, "begins"], ids=["no answer", "an answer without an end"])
async def test_a_call_that_is_given_up_closes_its_request_at_once(
    server: ToolServer, fault: str | None
) -> None:
    async with Bank(server) as bank:
        assert (await bank.call(*ADD)).value == {"sum": 3}, "the session is open"
        server.fault = fault
        server.silent_at = {"tools/call"}
        assert (await bank.call(*PAY, seconds=HANGS_FOR_SECONDS)).outcome is CallOutcome.TIMED_OUT
        await until(lambda: server.unanswered == 0)
        calling = asyncio.create_task(bank.call(*PAY, key="k2"))
        await until(lambda: server.unanswered == 1)
        calling.cancel()
        await until(lambda: server.unanswered == 0)
        server.silent_at = set()
        assert (await bank.call(*ADD)).value == {"sum": 3}
    assert server.asked("GET") == [], "no answer is taken up again"
    if server.protocol == "sessions":
        assert len(server.asked("notifications/cancelled")) == 2, "the server is told"


@pytest.mark.holds(
    "tools.md",
    "A call of an MCP server's tool that is given up closes its request at once, and the server is told",
)
@sessions_alone
async def test_a_server_that_does_not_take_a_cancellation_takes_the_next_call(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrying, "NOTICE_SECONDS", 0.2)
    async with Bank(server) as bank:
        await bank.call(*ADD)
        server.silent_at = {"tools/call", "notifications/cancelled"}
        calling = asyncio.create_task(bank.call(*PAY))
        await until(lambda: server.unanswered == 1)
        calling.cancel()
        await until(lambda: bool(server.asked("notifications/cancelled")))
        server.silent_at = set()
        assert (await bank.call(*ADD)).value == {"sum": 3}
        assert server.unanswered == 0


@pytest.mark.holds("tools.md", "`maxResultKiB` holds for MCP servers that answer by event streams")
@pytest.mark.parametrize("protocol", ["stateless", "sessions"])
async def test_a_result_that_comes_as_an_event_may_be_as_large_as_the_spec_says(protocol: Protocol) -> None:
    async with mcp_server(protocol, streams=True) as server, Bank(server, max_result_kib=8192) as bank:
        reply = await bank.call("bank_large", {"kib": 3000})
    assert (reply.outcome, reply.problem) == (CallOutcome.SUCCEEDED, None)
    assert len(reply.value) == 3000 * 1024


@pytest.mark.holds(
    "tools.md",
    "An MCP server that hangs, answers 100 MB, redirects, or changes its tools in the middle is a "
    "failure with words",
)
async def test_a_server_that_changes_its_tools_in_the_middle(server: ToolServer) -> None:
    async with Bank(server) as bank:
        pinned = dict(bank.catalogue)
        server.mcp.remove_tool("pay")
        gone = await bank.call(*PAY)
        await bank.catalogue.look()
        unknown = await bank.call(*PAY)
    assert "bank_pay" in pinned
    assert "Unknown tool: pay" in (gone.problem or "")
    assert (unknown.outcome, unknown.problem) == (CallOutcome.INVALID, "there is no tool bank_pay")


@pytest.mark.holds("tools.md", "Each tool of an MCP server has an effect of its own")
async def test_the_spec_says_which_tools_the_agent_gets_and_one_that_is_missing_is_reported(
    server: ToolServer,
) -> None:
    chosen = (McpToolChoice(name="add", effect=Effect.PURE), McpToolChoice(name="steal"))
    async with Bank(server, *chosen) as bank:
        effects = {name: tool.config.effect for name, tool in bank.catalogue.items()}
        assert effects == {"bank_add": Effect.PURE, "bank_steal": Effect.UNSAFE}
        assert (await bank.call(*ADD)).value == {"sum": 3}
        report = bank.catalogue.troubles["bank"]
        stolen = await bank.call("bank_steal", {})
    assert report.trouble == ToolTrouble.MISSING
    assert report.message.startswith("the MCP server has no tool steal; there are add, fails")
    assert "not available now" in (stolen.problem or "")


@pytest.mark.holds(
    "tools.md",
    "An MCP server that hangs, answers 100 MB, redirects, or changes its tools in the middle is a "
    "failure with words",
)
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param("hangs", "no answer within", id="it hangs"),
        pytest.param("shuts", "does not answer", id="it refuses"),
        pytest.param("redirects", "follow no redirect", id="it redirects"),
        pytest.param("endless", "was cut off", id="100 MB"),
        pytest.param("pages", "was cut off", id="pages without an end"),
        pytest.param("no MCP", "does not answer", id="it speaks something else"),
    ],
)
async def test_a_server_that_does_not_declare_its_tools_is_reported(
    server: ToolServer, fault: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "hangs":
        monkeypatch.setattr(connecting, "OPEN_SECONDS", 5)
    monkeypatch.setattr(connecting, "LIST_BYTES", 2**20)
    server.fault = fault
    async with Bank(server) as bank:
        report = bank.catalogue.troubles["bank"]
        assert list(bank.catalogue) == ["bank"], "one tool says why there are none"
        server.fault = None
        monkeypatch.setattr(connecting, "OPEN_SECONDS", 10.0)
        await bank.catalogue.look()
        assert (await bank.call(*ADD)).value == {"sum": 3}
        assert bank.catalogue.troubles == {}
    assert report.trouble == ToolTrouble.NO_ANSWER
    assert says in report.message, report.message


@pytest.mark.holds(
    "tools.md",
    "An MCP server that never says its tools, or stops in the handshake, is reported in time and "
    "holds up no other",
)
@pytest.mark.attack("An OpenAPI document or an MCP server answers without end, or never")
async def test_a_server_that_never_says_its_tools_is_reported_and_holds_up_no_other(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mcp_server(server.protocol) as healthy, Bank(healthy) as other, Bank(server) as bank:
        catalogue = Catalogue({}, [bank.tools, other.tools])
        monkeypatch.setattr(connecting, "OPEN_SECONDS", 5)
        server.silent_at = {"tools/list"}
        looks = len(healthy.asked("tools/list"))
        calling = asyncio.create_task(bank.call("bank_hangs", {}))
        await until(lambda: bool(server.asked("tools/call")))
        async with asyncio.timeout(30):
            await catalogue.look()
        await until(lambda: server.unanswered == 0)
        server.goes_on.set()
        assert (await calling).value == "late", "a call that was being made goes on"
        assert len(healthy.asked("tools/list")) == looks + 1
        assert catalogue.troubles["bank"].trouble == ToolTrouble.NO_ANSWER
        assert "no answer within 5 s" in catalogue.troubles["bank"].message


async def test_a_call_without_a_server_was_not_sent_and_is_tried_again(server: ToolServer) -> None:
    async with mcp_server(server.protocol) as gone:
        away = Bank(gone)
        await away.catalogue.look()
        pinned = away.catalogue["bank_pay"]
    call = Call(
        id="c", kind=CallKind.TOOL, target="bank_pay", request={"euro": 1}, key="k", effect=Effect.UNSAFE
    )
    assert pinned.make is not None
    reply = await pinned.make(call, "t1")
    await away.__aexit__()
    assert (reply.outcome, reply.certainty, reply.tries) == (CallOutcome.FAILED, Certainty.KNOWN, 3)
    assert "no connection to 127.0.0.1" in (reply.problem or "")


@pytest.mark.attack("A name in a tool's URL stands for such an address")
async def test_a_server_at_a_forbidden_address_is_not_reached(server: ToolServer) -> None:
    async with Bank(server, addresses=AddressCheck()) as bank:
        report = bank.catalogue.troubles["bank"]
    assert "may not connect to the address 127.0.0.1" in report.message
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("Mcp-Session-Id", "x"), ("Accept", "x"), pytest.param("X-Key", f"é{planted('mcp')}", id="no ASCII")],
)
async def test_a_secret_that_is_no_header_of_its_own_is_named_and_not_shown(
    server: ToolServer, tmp_path: Path, name: str, value: str
) -> None:
    (tmp_path / name).write_text(value)
    async with Bank(server, headers=tmp_path) as bank:
        report = bank.catalogue.troubles["bank"]
    assert name in report.message
    assert (MARK in report.message, server.requests) == (False, [])
