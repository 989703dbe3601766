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
from flotilla_runtime.agent.tools.addresses import AddressCheck, ForbiddenAddressError
from flotilla_runtime.agent.tools.header_files import HeaderError, read_headers
from flotilla_runtime.agent.tools.results import IT_HAPPENED, KIB, PERHAPS
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import Effect, HttpEndpoint, HttpMethod

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
AS_QUERY: Final = frozenset({HttpMethod.GET, HttpMethod.DELETE})
MAY_PASS: Final = frozenset({429, 502, 503, 504})
OF_A_PROXY: Final = frozenset({502, 504})  # which does not know what became of the request
PIECE_BYTES: Final = 64 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One call of a tool."""

    endpoint: HttpEndpoint
    arguments: Mapping[str, Any]
    key: str
    effect: Effect
    timeout_seconds: float
    max_result_kib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """How one try ended. `may_pass` says that another try may do better and is allowed."""

    reply: Reply
    may_pass: bool = False


@dataclass(slots=True)
class _Sent:
    """Whether the request of a try may have been sent: from a connection on it may."""

    is_connected: bool = False


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
        self._addresses = addresses or AddressCheck()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def make(self, call: HttpCall) -> Reply:
        """Make a call; failures are replies."""
        sent = _Sent()
        try:
            async with asyncio.timeout(call.timeout_seconds):
                return await self._tried(call, sent)
        except TimeoutError:
            problem = f"no answer within timeoutSeconds ({call.timeout_seconds:g} s)"
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=problem, certainty=_certainty(sent))

    async def _tried(self, call: HttpCall, sent: _Sent) -> Reply:
        for failures in range(1, self._retries.tries + 1):
            answer = await self._one(call, sent)
            if not answer.may_pass or failures == self._retries.tries:
                break
            await asyncio.sleep(self._retries.pause_seconds(failures, None, self._draw))
        return replace(answer.reply, tries=failures)

    async def _one(self, call: HttpCall, sent: _Sent) -> _Answer:
        url = URL(call.endpoint.url)
        try:
            headers: dict[str, str] = {}
            if call.endpoint.headers_directory is not None:
                headers = await asyncio.to_thread(read_headers, call.endpoint.headers_directory)
            if aiohttp.helpers.proxies_from_env():
                await self._addresses.check_host(url.host or "")
            async with self._asked(call, url, headers, sent) as response:
                return await self._read(call, response)
        except (HeaderError, ForbiddenAddressError) as problem:
            return _Answer(reply=_failed(str(problem)))
        except aiohttp.ClientConnectorCertificateError as problem:
            return _Answer(
                reply=_failed(f"the certificate of {url.host} is not trusted: {problem.certificate_error}")
            )
        except aiohttp.ClientConnectorError as problem:
            if isinstance(problem.os_error, ForbiddenAddressError):
                return _Answer(reply=_failed(problem.os_error.strerror or "forbidden"))
            return _Answer(reply=_failed(f"no connection to {url.host}: {problem.os_error}"), may_pass=True)
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            reply = _failed(f"{type(problem).__name__}: {problem}", _certainty(sent))
            return _Answer(reply=reply, may_pass=call.effect is not Effect.UNSAFE)

    def _asked(self, call: HttpCall, url: URL, headers: Mapping[str, str], sent: _Sent) -> Any:
        method = call.endpoint.method
        content: dict[str, Any] = {}
        if method in AS_QUERY:
            content["params"] = [
                pair for name, value in call.arguments.items() for pair in _query(name, value)
            ]
        else:
            content["json"] = dict(call.arguments)
        return self._connections(is_kept=call.effect is not Effect.UNSAFE).request(
            str(method),
            url,
            headers={**headers, IDEMPOTENCY_KEY: call.key, "Accept-Encoding": "identity"},
            allow_redirects=False,
            trace_request_ctx=sent,
            **content,
        )

    def _connections(self, *, is_kept: bool) -> aiohttp.ClientSession:
        if is_kept not in self._sessions:
            session = self._sessions[is_kept] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    socket_factory=self._addresses.socket, limit=0, force_close=not is_kept
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trace_configs=[_noting_connections()],
                trust_env=True,
            )
            # Else aiohttp sends GET, PUT and DELETE again when a server closes; no public setting stops it.
            session._retry_connection = False
        return self._sessions[is_kept]

    async def _read(self, call: HttpCall, response: aiohttp.ClientResponse) -> _Answer:
        most = call.max_result_kib * KIB
        body = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            body += piece
            if len(body) > most:
                response.close()
                limit = f"the answer has more than maxResultKiB ({call.max_result_kib} KiB) and was cut off"
                return _Answer(reply=_said_of(call, response, _failed(limit)))
        if 300 <= response.status < 400:
            return _Answer(reply=_failed(f"answered {response.status}: tools follow no redirect"))
        try:
            text = body.decode(response.charset or "utf-8", errors="replace")
        except LookupError as problem:
            return _Answer(reply=_said_of(call, response, _failed(f"LookupError: {problem}")))
        if response.status >= 400:
            certainty = Certainty.UNKNOWN if response.status in OF_A_PROXY else Certainty.KNOWN
            refused = _failed(f"answered {response.status}: {shown(text)}", certainty)
            may_pass = call.effect is not Effect.UNSAFE and response.status in MAY_PASS
            return _Answer(reply=_said_of(call, response, refused), may_pass=may_pass)
        return _Answer(reply=_said_of(call, response, _value(response, bytes(body), text)))


def _noting_connections() -> aiohttp.TraceConfig:
    """Notes in the `_Sent` of a try that it has a connection."""

    async def note(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        context.trace_request_ctx.is_connected = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(note)
    tracing.on_connection_reuseconn.append(note)
    return tracing


def _certainty(sent: _Sent) -> Certainty:
    return Certainty.UNKNOWN if sent.is_connected else Certainty.KNOWN


def _said_of(call: HttpCall, response: aiohttp.ClientResponse, reply: Reply) -> Reply:
    """The reply, with what the status of a failed Unsafe call says of its effect."""
    if call.effect is not Effect.UNSAFE or reply.problem is None or reply.certainty is Certainty.UNKNOWN:
        return reply
    said = PERHAPS if response.status >= 500 else IT_HAPPENED if response.status < 300 else ""
    return replace(reply, problem=f"{reply.problem}{said}")


def _value(response: aiohttp.ClientResponse, body: bytes, text: str) -> Reply:
    """JSON where the answer says so, else text."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return _failed("the answer is compressed, although it was asked not to be")
    kind = response.content_type
    if not (kind == "application/json" or kind.endswith("+json")):
        return Reply(outcome=CallOutcome.SUCCEEDED, value=text)
    if not body.strip():
        return Reply(outcome=CallOutcome.SUCCEEDED)
    try:
        return Reply(outcome=CallOutcome.SUCCEEDED, value=read_json(body))
    except ValueError as problem:
        return _failed(f"the answer is called JSON and is none: {shown(str(problem))}")


def _query(name: str, value: Any) -> list[tuple[str, str]]:
    """An argument as a query: lists repeat the name, and what is not a text is written as JSON."""
    if isinstance(value, list):
        return [pair for one in value for pair in _query(name, one)]
    return [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]


def _failed(problem: str, certainty: Certainty = Certainty.KNOWN) -> Reply:
    return Reply(outcome=CallOutcome.FAILED, problem=problem, certainty=certainty)
