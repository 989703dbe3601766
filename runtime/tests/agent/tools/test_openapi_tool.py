"""A tool that an OpenAPI document declares, against a real server that goes wrong."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_support.openapi import OpenApiServer, document, openapi_server
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.agent.tools import openapi_tool
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.catalogue import AGAIN_AFTER_SECONDS, LOOK_EVERY_SECONDS, Catalogue
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_tools
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import Effect, OpenApiOperation, ToolConfig, ToolTrouble
from leaks.planted import planted

QUICK = RetryPolicy(tries=2, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BOOKING = {"city": "Faro", "body": {"nights": 2}}


@pytest.fixture
async def server() -> AsyncIterator[OpenApiServer]:
    async with openapi_server() as served:
        yield served


def booking(server: OpenApiServer, **fields: Any) -> ToolConfig:
    asked = {"document_url": server.document_url, "operation_id": "bookRoom", **fields.pop("asked", {})}
    return ToolConfig(
        **{"name": "book", "openapi": OpenApiOperation(**asked), "timeout_seconds": 5, **fields}
    )


class Tools:
    """The tools of a worker with this configuration."""

    def __init__(self, *configs: ToolConfig) -> None:
        http = HttpTools(retries=QUICK, addresses=AddressCheck(allow_loopback=True))
        self.catalogue = load_tools(configs, http)
        self.runner = ToolRunner(self.catalogue, http)

    async def look(self) -> Catalogue:
        await self.catalogue.look()
        return self.catalogue

    async def call(self, arguments: dict[str, Any], name: str = "book") -> Reply:
        effect = self.catalogue[name].config.effect if name in self.catalogue else Effect.UNSAFE
        return await self.runner.make(
            Call(
                id="c",
                kind=CallKind.TOOL,
                target=name,
                request=arguments,
                key="key-1",
                effect=effect,
                traceparent=TRACE,
            )
        )


@pytest.mark.holds(
    "tools.md", "An OpenAPI operation is called with the arguments in their places, at its own host alone"
)
async def test_an_operation_is_called_with_key_and_headers(server: OpenApiServer, tmp_path: Path) -> None:
    (tmp_path / "Authorization").write_text(f"Bearer {planted('openapi')}")
    tools = Tools(booking(server, asked={"headers_directory": str(tmp_path)}))
    catalogue = await tools.look()
    assert catalogue["book"].declaration.description == "Books a room.\nOnly where one is free."
    reply = await tools.call({**BOOKING, "notify": ["a", "b"], "X-Trip": "7"})
    await tools.runner.close()
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, {"booked": True})
    (asked,) = server.asked
    assert (asked["method"], asked["path"]) == ("POST", "/api/cities/Faro/rooms")
    assert (asked["query"], asked["json"]) == ([("notify", "a"), ("notify", "b")], {"nights": 2})
    sent = {name: asked["headers"].get(name) for name in ("Idempotency-Key", "Authorization", "X-Trip")}
    assert sent == {
        "Idempotency-Key": "key-1",
        "Authorization": f"Bearer {planted('openapi')}",
        "X-Trip": "7",
    }
    assert asked["headers"]["traceparent"] == TRACE
    assert server.document_headers[0]["Authorization"] == f"Bearer {planted('openapi')}"


@pytest.mark.attack("An argument leads an operation to another path, or into another header")
async def test_the_parts_of_a_path_go_over_the_wire_as_one_part(server: OpenApiServer) -> None:
    tools = Tools(booking(server))
    await tools.look()
    for city in ("../../admin", "a/b?c=d#e"):
        assert (await tools.call({**BOOKING, "city": city})).outcome is CallOutcome.SUCCEEDED
    assert (await tools.call({**BOOKING, "city": ".."})).outcome is CallOutcome.INVALID
    await tools.runner.close()
    paths = [asked["path"] for asked in server.asked]
    assert paths == ["/api/cities/..%2F..%2Fadmin/rooms", "/api/cities/a%2Fb%3Fc%3Dd%23e/rooms"]


@pytest.mark.holds(
    "tools.md", "An OpenAPI operation is called with the arguments in their places, at its own host alone"
)
@pytest.mark.attack("An OpenAPI document names another host, which would get the tool's secret")
async def test_the_secret_of_a_tool_goes_to_its_own_host_alone(server: OpenApiServer, tmp_path: Path) -> None:
    (tmp_path / "Authorization").write_text(f"Bearer {planted('openapi')}")
    async with openapi_server() as other:
        away = {"url": f"{other.url}/v2", "headers_directory": str(tmp_path)}
        tools = Tools(booking(server, asked=away))
        await tools.look()
        assert (await tools.call(BOOKING)).value == {"booked": True}
        assert "Authorization" not in server.document_headers[0]  # the document is on another host
        assert other.asked[0]["headers"]["Authorization"] == f"Bearer {planted('openapi')}"
        server.document = document(servers=[{"url": other.url}])
        trusting = Tools(booking(server, asked={"headers_directory": str(tmp_path)}))
        await trusting.look()
        reply = await trusting.call(BOOKING)
        await tools.runner.close()
        await trusting.runner.close()
    assert (reply.outcome, len(other.asked)) == (CallOutcome.INVALID, 1)
    assert "which is not its own host; set http.url" in (reply.problem or "")


@pytest.mark.holds("tools.md", "A document that cannot be used stops no task, and the model is told why")
@pytest.mark.attack("An OpenAPI document or an MCP server answers without end, or never")
@pytest.mark.parametrize(
    ("fault", "trouble", "says"),
    [
        pytest.param("hangs", ToolTrouble.NO_ANSWER, "no answer within", id="it hangs"),
        pytest.param("refuses", ToolTrouble.NO_ANSWER, "answered 503", id="it refuses"),
        pytest.param("redirects", ToolTrouble.NO_ANSWER, "follow no redirect", id="it redirects"),
        pytest.param("is endless", ToolTrouble.NO_ANSWER, "was cut off", id="100 MB"),
        pytest.param("is YAML", ToolTrouble.UNUSABLE, "is no JSON", id="it is YAML"),
    ],
)
async def test_a_document_that_cannot_be_read_is_told_to_the_model_and_the_operator(
    server: OpenApiServer, fault: str, trouble: ToolTrouble, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openapi_tool, "DOCUMENT_SECONDS", 0.3)
    server.fault = fault
    tools = Tools(booking(server))
    catalogue = await tools.look()
    report = catalogue.troubles["book"]
    assert (report.tool, report.trouble) == ("book", trouble)
    assert says in report.message, report.message
    assert says in catalogue["book"].declaration.description
    reply = await tools.call(BOOKING)
    assert reply.outcome is CallOutcome.INVALID
    assert "not available now" in (reply.problem or "")
    assert catalogue.pause_seconds == AGAIN_AFTER_SECONDS
    server.fault = None
    await tools.look()
    assert (await tools.call(BOOKING)).value == {"booked": True}
    assert (catalogue.troubles, catalogue.pause_seconds) == ({}, LOOK_EVERY_SECONDS)
    await tools.runner.close()


async def test_an_operation_that_is_not_there_is_reported_as_missing(server: OpenApiServer) -> None:
    tools = Tools(booking(server, asked={"operation_id": "payRoom"}))
    catalogue = await tools.look()
    await tools.runner.close()
    assert catalogue.troubles["book"].trouble == ToolTrouble.MISSING
    assert "no operationId payRoom" in catalogue["book"].declaration.description


async def test_a_document_that_no_longer_answers_leaves_the_tool_as_it_was(server: OpenApiServer) -> None:
    tools = Tools(booking(server))
    await tools.look()
    server.fault = "refuses"
    catalogue = await tools.look()
    assert catalogue.troubles["book"].trouble == ToolTrouble.NO_ANSWER
    assert (await tools.call(BOOKING)).value == {"booked": True}
    await tools.runner.close()


@pytest.mark.holds(
    "tools.md", "A run keeps the declarations with which it began; a call is checked by those of now"
)
async def test_a_document_that_changes_in_the_middle_is_seen_by_the_next_call(server: OpenApiServer) -> None:
    tools = Tools(booking(server))
    pinned = dict(await tools.look())
    server.document["components"]["schemas"]["Booking"]["required"] = ["nights", "guests"]
    await tools.look()
    assert pinned["book"].problem_of(BOOKING) is None
    reply = await tools.call(BOOKING)
    await tools.runner.close()
    assert (reply.outcome, server.asked) == (CallOutcome.INVALID, [])
    assert "'guests' is a required property" in (reply.problem or "")
