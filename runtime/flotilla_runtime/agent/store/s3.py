"""Large texts in a bucket of S3's API: that of AWS, or of another object store.

Each connection goes to an address that was checked after its name was resolved, and no redirect is followed:
the endpoint comes from the fleet, and must not lead to where clouds keep credentials. Whatever is not an
answer counts as an object store that does not answer at the moment. So a task waits while credentials are
wrong, and goes on when they are right.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from flotilla_runtime.agent.errors import PayloadsUnavailableError
from flotilla_runtime.agent.store.s3_signature import NO_BODY, Credentials, Request, signed_headers
from flotilla_runtime.agent.tools.addresses import AddressCheck, ForbiddenAddressError
from flotilla_runtime.contract import PAYLOADS_KEY_ENTRY, PAYLOADS_SECRET_ENTRY, PayloadsConfig, QueueConfig
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.secret_files import secret_in

ANSWER_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 5.0
MOST_CONNECTIONS: Final = 32
MOST_LIST_BYTES: Final = 4 * 2**20
PIECE_BYTES: Final = 64 * 1024
CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
# Our names have no characters that XML writes in another way, and others are none of ours.
KEY: Final = re.compile(rb"<Key>([A-Za-z0-9_./=-]{1,1024})</Key>")
NO_SUCH_KEY: Final = "NoSuchKey"


def _utc() -> datetime:
    return datetime.now(UTC)


class S3Objects:
    """The objects of one fleet; their names begin with the configured prefix and the fleet's name."""

    def __init__(
        self,
        config: PayloadsConfig,
        fleet: str,
        *,
        addresses: AddressCheck | None = None,
        utc: Callable[[], datetime] = _utc,
    ) -> None:
        self._addresses = addresses or AddressCheck()
        self._config = config
        self._endpoint = URL(config.endpoint)
        self._base = "/".join(part for part in (config.prefix.strip("/"), fleet) if part)
        self._utc = utc
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def put(self, name: str, body: bytes, sha256: str) -> None:
        """Keep an object."""
        async with self._asked("PUT", self._path(name), body=body, sha256=sha256) as response:
            await _check(response)

    async def get(self, name: str, most_bytes: int) -> bytes | None:
        """An object, up to a byte more than this; None if there is none."""
        async with self._asked("GET", self._path(name)) as response:
            if response.status == 404 and (code := await _code(response)) == NO_SUCH_KEY:
                return None
            if response.status == 404:
                raise _refused(response, code)
            await _check(response)
            return await _read(response, most_bytes + 1)

    async def delete(self, name: str) -> None:
        """Remove an object, if there is one."""
        async with self._asked("DELETE", self._path(name)) as response:
            if response.status != 404:
                await _check(response)

    async def names(self, under: str) -> list[str]:
        """Names that begin so: the first thousand, if there are more."""
        under = f"{self._base}/{under}"
        query = {"list-type": "2", "prefix": under}
        async with self._asked("GET", f"/{self._config.bucket}", query=query) as response:
            await _check(response)
            body = await _read(response, MOST_LIST_BYTES)
        keys = [key.decode() for key in KEY.findall(body)]
        return [key.removeprefix(f"{self._base}/") for key in keys if key.startswith(under)]

    def _path(self, name: str) -> str:
        return f"/{self._config.bucket}/{self._base}/{name}"

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: bytes | None = None,
        sha256: str = NO_BODY,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        at = self._endpoint
        host = at.host_port_subcomponent or ""
        request = Request(
            method=method, host=host, path=at.path.rstrip("/") + path, query=query or {}, sha256=sha256
        )
        url = URL(f"{at.origin()}{request.encoded_path}?{request.encoded_query}".rstrip("?"), encoded=True)
        try:
            credentials = await asyncio.to_thread(self._credentials)
            headers = signed_headers(request, credentials, region=self._config.region, now=self._utc())
            if aiohttp.helpers.proxies_from_env():
                await self._addresses.check_host(at.host or "")
            async with self._connections().request(
                method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            raise PayloadsUnavailableError(f"{at.host}: {_said(problem)}") from problem

    def _credentials(self) -> Credentials | None:
        """Read for each request, so new ones need no restart."""
        if self._config.credentials_directory is None:
            return None
        directory = Path(self._config.credentials_directory)
        return Credentials(
            access_key_id=secret_in(directory / PAYLOADS_KEY_ENTRY),
            secret_access_key=secret_in(directory / PAYLOADS_SECRET_ENTRY),
        )

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=self._addresses.socket, limit=MOST_CONNECTIONS),
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
                trust_env=True,
            )
        return self._session


def opened(config: QueueConfig) -> S3Objects | None:
    """The object store of a fleet, if it has one; nothing is sent yet."""
    return None if config.payloads is None else S3Objects(config.payloads, config.fleet)


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status not in (200, 204):
        raise _refused(response, await _code(response))


def _refused(response: aiohttp.ClientResponse, code: str) -> PayloadsUnavailableError:
    return PayloadsUnavailableError(f"{response.url.host} answered {response.status} {code}".strip())


async def _code(response: aiohttp.ClientResponse) -> str:
    """The code of an error. Its message is not shown, because it can have parts of the credentials."""
    found = CODE.search(await response.content.read(PIECE_BYTES))
    return found[1].decode() if found else ""


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(PIECE_BYTES):
        body += piece
        if len(body) >= most_bytes:
            response.close()
            break
    return bytes(body[:most_bytes])


def _said(problem: Exception) -> str:
    refused: Any = getattr(problem, "os_error", problem)
    if isinstance(refused, ForbiddenAddressError):
        return f"fleets may not connect to this address of it: {refused.address}"
    return what_failed(problem)
