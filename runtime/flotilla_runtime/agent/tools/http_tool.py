"""Calls a tool over HTTP: its own host, no redirect, an answer of limited size in limited time.

A call that may be repeated is tried again after what may pass. An Unsafe one is tried again only if no
connection came about, because then nothing was sent. After that, no answer, or one of a proxy that got none,
leaves unknown whether it happened. So an Unsafe call has a connection of its own: one that was kept may be
closed by the server at any moment.
"""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import aiohttp
from yarl import URL

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.models.json_text import read_json
from flotilla_runtime.agent.models.values import shown
from flotilla_runtime.agent.protocols import Certainty, Reply
from flotilla_runtime.agent.retries import TOOL_RETRIES, RetryPolicy
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.connections import PIECE_BYTES, Connections, Sent, may_come_about, unsent
from flotilla_runtime.agent.tools.header_files import HeaderError, headers_of
from flotilla_runtime.agent.tools.operations import OperationRequest
from flotilla_runtime.agent.tools.results import IT_HAPPENED, KIB, PERHAPS
from flotilla_runtime.agent.tools.tries import MAY_PASS, OF_A_PROXY, Answer, failed, tried
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import HEADER_TRACE, Effect, HttpEndpoint, HttpMethod
from flotilla_runtime.contract.failure_texts import what_failed

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
AS_QUERY: Final = frozenset({HttpMethod.GET, HttpMethod.DELETE})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One call of a tool. `operation` is a request that is not made of the arguments by the method alone.

    `traceparent` is sent along, unless the tool has such a header of its own.
    """

    endpoint: HttpEndpoint
    arguments: Mapping[str, Any]
    key: str
    effect: Effect
    timeout_seconds: float
    max_result_kib: int
    operation: OperationRequest | None = None
    traceparent: str | None = None


class HttpTools:
    """The connections of all tools over HTTP."""

    def __init__(
        self,
        *,
        retries: RetryPolicy = TOOL_RETRIES,
        draw: Draw = random.uniform,
        addresses: AddressCheck | None = None,
    ) -> None:
        self._retries = retries
        self._draw = draw
        self.connections: Final = Connections(addresses)

    async def close(self) -> None:
        """Close all connections."""
        await self.connections.close()

    async def make(self, call: HttpCall) -> Reply:
        """Make a call; failures are replies."""
        sent = Sent()
        try:
            async with asyncio.timeout(call.timeout_seconds):
                return await tried(lambda: self._one(call, sent), self._retries, self._draw)
        except TimeoutError:
            problem = f"no answer within timeoutSeconds ({call.timeout_seconds:g} s)"
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=problem, certainty=sent.certainty)

    async def _one(self, call: HttpCall, sent: Sent) -> Answer:
        url = URL(call.endpoint.url, encoded=call.operation is not None)
        try:
            headers = await headers_of(call.endpoint.headers_directory)
            async with await self._asked(call, url, headers, sent) as response:
                return await self._read(call, response)
        except HeaderError as problem:
            return Answer(reply=failed(str(problem)))
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            if (said := unsent(problem, url.host)) is not None:
                return Answer(reply=failed(said), may_pass=may_come_about(problem))
            reply = failed(what_failed(problem), sent.certainty)
            return Answer(reply=reply, may_pass=call.effect is not Effect.UNSAFE)

    async def _asked(
        self, call: HttpCall, url: URL, headers: Mapping[str, str], sent: Sent
    ) -> aiohttp.ClientResponse:
        own = dict(call.operation.headers) if call.operation is not None else {}
        if call.traceparent is not None:
            own.setdefault(HEADER_TRACE, call.traceparent)
        return await self.connections.open(
            str(call.endpoint.method),
            url,
            headers={**own, **headers, IDEMPOTENCY_KEY: call.key},
            sent=sent,
            is_kept=call.effect is not Effect.UNSAFE,
            **_content(call),
        )

    async def _read(self, call: HttpCall, response: aiohttp.ClientResponse) -> Answer:
        most = call.max_result_kib * KIB
        body = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            body += piece
            if len(body) > most:
                response.close()
                limit = f"the answer has more than maxResultKiB ({call.max_result_kib} KiB) and was cut off"
                return Answer(reply=_said_of(call, response, failed(limit)))
        if 300 <= response.status < 400:
            return Answer(reply=failed(f"answered {response.status}: tools follow no redirect"))
        try:
            text = body.decode(response.charset or "utf-8", errors="replace")
        except LookupError:
            return Answer(
                reply=_said_of(call, response, failed("the answer names a character set that is not known"))
            )
        if response.status >= 400:
            certainty = Certainty.UNKNOWN if response.status in OF_A_PROXY else Certainty.KNOWN
            refused = failed(f"answered {response.status}: {shown(text)}", certainty)
            may_pass = call.effect is not Effect.UNSAFE and response.status in MAY_PASS
            return Answer(reply=_said_of(call, response, refused), may_pass=may_pass)
        return Answer(reply=_said_of(call, response, _value(response, bytes(body), text)))


def _said_of(call: HttpCall, response: aiohttp.ClientResponse, reply: Reply) -> Reply:
    """The reply, with what the status of a failed Unsafe call says of its effect."""
    if call.effect is not Effect.UNSAFE or reply.problem is None or reply.certainty is Certainty.UNKNOWN:
        return reply
    said = PERHAPS if response.status >= 500 else IT_HAPPENED if response.status < 300 else ""
    return replace(reply, problem=f"{reply.problem}{said}")


def _value(response: aiohttp.ClientResponse, body: bytes, text: str) -> Reply:
    """JSON where the answer says so, else text."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return failed("the answer is compressed, although it was asked not to be")
    kind = response.content_type
    if not (kind == "application/json" or kind.endswith("+json")):
        return Reply(outcome=CallOutcome.SUCCEEDED, value=text)
    if not body.strip():
        return Reply(outcome=CallOutcome.SUCCEEDED)
    try:
        return Reply(outcome=CallOutcome.SUCCEEDED, value=read_json(body))
    except ValueError as problem:
        return failed(f"the answer is called JSON and is none: {shown(str(problem))}")


def _content(call: HttpCall) -> dict[str, Any]:
    """The arguments, as a query or as JSON."""
    if (operation := call.operation) is not None:
        query = {"params": operation.query} if operation.query else {}
        return {**query, "json": operation.body} if operation.has_body else query
    if call.endpoint.method in AS_QUERY:
        return {"params": [pair for name, value in call.arguments.items() for pair in _query(name, value)]}
    return {"json": dict(call.arguments)}


def _query(name: str, value: Any) -> list[tuple[str, str]]:
    """An argument as a query: lists repeat the name, and what is not a text is written as JSON."""
    if isinstance(value, list):
        return [pair for one in value for pair in _query(name, one)]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
