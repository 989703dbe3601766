"""The HTTP connections of tools: checked addresses, no redirect, no cookie, nothing decompressed.

An Unsafe call has a connection of its own: one that was kept may be closed by the server at any moment, and
nobody would know whether the call arrived.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from flotilla_runtime.agent.protocols import Certainty
from flotilla_runtime.agent.tools.addresses import AddressCheck, ForbiddenAddressError
from flotilla_runtime.agent.tools.results import KIB
from flotilla_runtime.contract.failure_texts import what_failed

PIECE_BYTES: Final = 64 * KIB  # of an answer's body


@dataclass(slots=True)
class Sent:
    """Whether the request of a try may have been sent: from a connection on it may."""

    is_connected: bool = False

    @property
    def certainty(self) -> Certainty:
        """The certainty about a call that got no answer."""
        return Certainty.UNKNOWN if self.is_connected else Certainty.KNOWN


class Connections:
    """The connections of a worker's tools."""

    def __init__(self, addresses: AddressCheck | None = None) -> None:
        self.addresses = addresses or AddressCheck()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close all of them."""
        for session in self._sessions.values():
            await session.close()

    async def open(
        self, method: str, url: URL, *, headers: Mapping[str, str], sent: Sent, is_kept: bool, **content: Any
    ) -> aiohttp.ClientResponse:
        """Send a request; the answer's body is not read yet. Raises what aiohttp raises, and OSError."""
        if aiohttp.helpers.proxies_from_env():
            await self.addresses.check_host(url.host or "")
        return await self._session(is_kept).request(
            method,
            url,
            headers={**headers, "Accept-Encoding": "identity"},
            allow_redirects=False,
            trace_request_ctx=sent,
            **content,
        )

    def _session(self, is_kept: bool) -> aiohttp.ClientSession:
        if is_kept not in self._sessions:
            session = self._sessions[is_kept] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    socket_factory=self.addresses.socket, limit=0, force_close=not is_kept
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


def _noting_connections() -> aiohttp.TraceConfig:
    """Notes in the `Sent` of a try that it has a connection."""

    async def note(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        context.trace_request_ctx.is_connected = True

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(note)
    tracing.on_connection_reuseconn.append(note)
    return tracing


def unsent(problem: Exception, host: str | None) -> str | None:
    """The problem of a request for which no connection came about; None for any other error."""
    if isinstance(problem, ForbiddenAddressError):
        return what_failed(problem)
    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {host} is not trusted: {what_failed(problem)}"
    if isinstance(problem, aiohttp.ClientConnectorError):
        if isinstance(problem.os_error, ForbiddenAddressError):
            return problem.os_error.strerror or "forbidden"
        return f"no connection to {host}: {what_failed(problem)}"
    return None


def may_come_about(problem: Exception) -> bool:
    """Whether another try may find a connection."""
    return (
        isinstance(problem, aiohttp.ClientConnectorError)
        and not isinstance(problem, aiohttp.ClientConnectorCertificateError)
        and not isinstance(problem.os_error, ForbiddenAddressError)
    )
