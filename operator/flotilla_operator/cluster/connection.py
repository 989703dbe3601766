"""The connection to the API server over HTTP, with the kubeconfig's or the service account's credentials.

Credentials, TLS and the connection pool come from the official client (`kubernetes.aio`).

A request that changes anything calls `before_write` three times: before it starts, once it has a connection,
and right before it is sent. A process that was suspended in between therefore sends nothing when it resumes
without the lease. The lease and the watches have connections of their own, without this check. A watch holds
its connection for minutes, so their pool has no limit: otherwise writes would wait behind watches.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from flotilla_operator.cluster.client import JSON, AnswerTooLongError, Request, error_from
from flotilla_operator.objects.resources import Manifest
from flotilla_runtime.contract.failure_texts import what_failed

USER_AGENT: Final = "flotilla-operator"
REQUEST_TIMEOUT_SECONDS: Final = 15.0
CONNECTIONS: Final = 100  # of one pool, where nothing else is said
NO_LIMIT: Final = 0


async def load_configuration(kubeconfig: Path | None) -> Configuration:
    """The API server's address and our credentials, from the kubeconfig or else the service account."""
    configuration = Configuration()
    if kubeconfig is not None:
        await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    else:
        load_incluster_config(client_configuration=configuration)
    configuration.proxy = configuration.proxy or _proxy_from_environment(configuration.host)
    # Otherwise aiohttp reads the environment and ~/.netrc for each request, in a new thread each time.
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


def _proxy_from_environment(host: str) -> str | None:
    """The proxy for the API server by HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""
    address = urlsplit(host)
    return None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)


class HttpConnection:
    """One connection pool to the API server."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        before_write: Callable[[], None] | None = None,
        connections: int = CONNECTIONS,
        request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        configuration.connection_pool_maxsize = connections
        if before_write is not None:
            configuration.trace_configs = [_asking(before_write)]
        self._api = ApiClient(configuration)
        self._request_timeout_seconds = request_timeout_seconds

    async def close(self) -> None:
        """Close the pool."""
        await self._api.close()

    async def request(self, request: Request, timeout_seconds: float | None = None) -> Manifest:
        """Send a request and return the answer."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds or self._request_timeout_seconds)
        with _as_connection_error():
            async with await self._send(request, timeout) as response:
                await _raise_for_status(response)
                document: Manifest = json.loads(await _read(response, request.longest_answer))
                return document

    async def stream(self, request: Request, silence_seconds: float) -> AsyncIterator[Manifest]:
        """Send a request and return the lines of its answer as they come."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._request_timeout_seconds, sock_read=silence_seconds
        )
        with _as_connection_error():
            response = await self._send(request, timeout)
            try:
                await _raise_for_status(response)
                async for line in _lines(response.content):
                    yield json.loads(line)
            finally:
                response.close()

    async def _send(
        self,
        request: Request,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - it is aiohttp's own value
    ) -> aiohttp.ClientResponse:
        configuration = self._api.configuration
        headers = {"Accept": JSON, "Content-Type": request.content_type, "User-Agent": USER_AGENT}
        for setting in (await configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        query = f"?{urlencode(request.query)}" if request.query else ""
        answer = await self._api.rest_client.request(
            request.method,
            configuration.host + request.path + query,
            headers=headers,
            body=request.body,
            _request_timeout=timeout,
        )
        response: aiohttp.ClientResponse = answer.response
        return response


def _asking(before_write: Callable[[], None]) -> aiohttp.TraceConfig:
    async def at_start(
        _session: aiohttp.ClientSession, context: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        context.writes = request.method != "GET"
        if context.writes:
            before_write()

    async def when_connected(
        _session: aiohttp.ClientSession, context: SimpleNamespace, _connection: Any
    ) -> None:
        if context.writes:
            before_write()

    async def when_sent(
        _session: aiohttp.ClientSession, context: SimpleNamespace, _chunk: aiohttp.TraceRequestChunkSentParams
    ) -> None:
        if context.writes:
            before_write()

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(at_start)
    trace.on_connection_create_end.append(when_connected)
    trace.on_connection_reuseconn.append(when_connected)
    trace.on_request_chunk_sent.append(when_sent)  # called before the chunk goes out, headers with it
    return trace


class NoAnswerError(ConnectionError):
    """The API server did not answer. The message says why, and nothing of the request."""


@contextmanager
def _as_connection_error() -> Iterator[None]:
    """Raise ConnectionError for aiohttp's errors; a TimeoutError is passed on."""
    try:
        yield
    except TimeoutError:
        raise
    except aiohttp.ClientError as error:
        raise NoAnswerError(what_failed(error)) from error


async def _read(response: aiohttp.ClientResponse, longest: int | None) -> bytearray:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if longest is not None and len(body) > longest:
            response.close()
            raise AnswerTooLongError(f"the answer is longer than {longest} bytes")
    return body


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    text = await response.text(errors="replace")
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = text[:500]
    raise error_from(response.status, document, response.headers.get("Retry-After"))


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a stream, of any length: an object can be longer than aiohttp's limit for one line."""
    rest = b""
    async for chunk in content.iter_any():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            if line:
                yield line
