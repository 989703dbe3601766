"""Calls a tool over HTTP: its own host, no redirect, an answer of limited size in limited time.

A call that may be repeated is tried again after what may pass. An Unsafe one is tried again only if no
connection came about, because then nothing was sent.
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
from flotilla_runtime.agent.protocols import Reply
from flotilla_runtime.agent.retries import TOOL_RETRIES, RetryPolicy
from flotilla_runtime.agent.tools.addresses import ForbiddenAddressError, check_host, checked_socket
from flotilla_runtime.agent.tools.header_files import HeaderError, read_headers
from flotilla_runtime.agent.tools.operations import OperationRequest
from flotilla_runtime.agent.tools.results import KIB
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import Effect, HttpEndpoint, HttpMethod

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
AS_QUERY: Final = frozenset({HttpMethod.GET, HttpMethod.DELETE})
MAY_PASS: Final = frozenset({429, 502, 503, 504})
PIECE_BYTES: Final = 64 * KIB
PERHAPS: Final = "; it is not known whether it happened"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """One call of a tool. `operation` is a request that is not made of the arguments by the method alone."""

    endpoint: HttpEndpoint
    arguments: Mapping[str, Any]
    key: str
    effect: Effect
    timeout_seconds: float
    max_result_kib: int
    operation: OperationRequest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """How one try ended. `may_pass` says that another try may do better and is allowed."""

    reply: Reply
    may_pass: bool = False


class HttpTools:
    """The connections of all tools over HTTP."""

    def __init__(self, *, retries: RetryPolicy = TOOL_RETRIES, draw: Draw = random.uniform) -> None:
        self._retries = retries
        self._draw = draw
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def make(self, call: HttpCall) -> Reply:
        """Make a call; failures are replies."""
        try:
            async with asyncio.timeout(call.timeout_seconds):
                return await self._tried(call)
        except TimeoutError:
            problem = f"no answer within timeoutSeconds ({call.timeout_seconds:g} s){_perhaps(call)}"
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=problem)

    async def _tried(self, call: HttpCall) -> Reply:
        for failures in range(1, self._retries.tries + 1):
            answer = await self._one(call)
            if not answer.may_pass or failures == self._retries.tries:
                break
            await asyncio.sleep(self._retries.pause_seconds(failures, None, self._draw))
        return replace(answer.reply, tries=failures)

    async def _one(self, call: HttpCall) -> _Answer:
        url = URL(call.endpoint.url, encoded=call.operation is not None)
        try:
            headers: dict[str, str] = {}
            if call.endpoint.headers_directory is not None:
                headers = await asyncio.to_thread(read_headers, call.endpoint.headers_directory)
            if aiohttp.helpers.proxies_from_env():
                await check_host(url.host or "")
            async with self._asked(call, url, headers) as response:
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
        except (aiohttp.ClientError, OSError, ValueError, LookupError) as problem:
            message = f"{type(problem).__name__}: {problem}{_perhaps(call)}"
            return _Answer(reply=_failed(message), may_pass=call.effect is not Effect.UNSAFE)

    def _asked(self, call: HttpCall, url: URL, headers: Mapping[str, str]) -> Any:
        return self._connections().request(
            str(call.endpoint.method),
            url,
            headers={
                **(call.operation.headers if call.operation is not None else {}),
                **headers,
                IDEMPOTENCY_KEY: call.key,
                "Accept-Encoding": "identity",
            },
            allow_redirects=False,
            **_content(call),
        )

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=checked_socket, limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=True,
            )
            # Else aiohttp sends GET, PUT and DELETE again when a server closes; no public setting stops it.
            self._session._retry_connection = False
        return self._session

    async def _read(self, call: HttpCall, response: aiohttp.ClientResponse) -> _Answer:
        most = call.max_result_kib * KIB
        body = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            body += piece
            if len(body) > most:
                response.close()
                limit = f"the answer has more than maxResultKiB ({call.max_result_kib} KiB) and was cut off"
                return _Answer(reply=_failed(limit))
        if 300 <= response.status < 400:
            return _Answer(reply=_failed(f"answered {response.status}: tools follow no redirect"))
        text = body.decode(response.charset or "utf-8", errors="replace")
        if response.status >= 400:
            repeatable = call.effect is not Effect.UNSAFE
            perhaps = _perhaps(call) if response.status >= 500 else ""
            return _Answer(
                reply=_failed(f"answered {response.status}: {shown(text)}{perhaps}"),
                may_pass=repeatable and response.status in MAY_PASS,
            )
        return _Answer(reply=_value(response, bytes(body), text))


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


def _failed(problem: str) -> Reply:
    return Reply(outcome=CallOutcome.FAILED, problem=problem)


def _perhaps(call: HttpCall) -> str:
    return PERHAPS if call.effect is Effect.UNSAFE else ""
