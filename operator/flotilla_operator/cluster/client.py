"""The API server, spoken to in raw dictionaries.

Credentials, TLS and the connection pool are those of the official client (`kubernetes.aio`); its generated
methods and models are not used: a model costs eight times its dictionary, and a typed `patch_…` picks its own
content type, silently. Here every request names its content type and its time limit.

A request that changes anything first asks `before_write`, again once it holds a connection, and a last time
in the very step that sends it, so a process that was stopped in between sends nothing when it goes on. The
lease has a client of its own, which asks nothing and shares no pool with the rest.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import load_kube_config

from flotilla_operator.cluster.resources import Resource
from flotilla_operator.cluster.writes import Manifest

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"

FIELD_MANAGER = "flotilla"
STATUS_MANAGER = "flotilla-status"
USER_AGENT = "flotilla-operator"
REQUEST_TIMEOUT_SECONDS = 15.0
LIST_TIMEOUT_SECONDS = 60.0
PAGE_SIZE = 500


class ApiError(Exception):
    """The API server's answer was not a success.

    `reason` is the machine-readable one of the Status object (`AlreadyExists`, `Conflict`, …) and `causes`
    holds the reasons of its details, so no code needs to read the message but where it alone tells.
    """

    def __init__(
        self,
        *,
        status: int,
        reason: str = "",
        message: str = "",
        causes: frozenset[str] = frozenset(),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after_seconds = retry_after_seconds


def error_from(status: int, document: Any, retry_after: str | None = None) -> ApiError:
    """The error in a Status object, or in whatever a proxy answered instead of one."""
    fields = document if isinstance(document, dict) else {}
    details = fields.get("details") or {}
    seconds = str(retry_after or details.get("retryAfterSeconds") or "")
    return ApiError(
        status=int(fields.get("code") or status),
        reason=str(fields.get("reason") or ""),
        message=str(fields.get("message") or document or ""),
        causes=frozenset(str(cause.get("reason")) for cause in details.get("causes") or ()),
        retry_after_seconds=float(seconds) if seconds.isdigit() else None,
    )


async def load_configuration(kubeconfig: Path | None) -> Configuration:
    """Where the API server is and who we are: the kubeconfig if one is named, else the service account."""
    configuration = Configuration()
    if kubeconfig is not None:
        await load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    else:
        load_incluster_config(client_configuration=configuration)
    configuration.proxy = configuration.proxy or _proxy_from_environment(configuration.host)
    # aiohttp would ask the environment and ~/.netrc anew for each request, each in a thread of its own.
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


def _proxy_from_environment(host: str) -> str | None:
    """The proxy that HTTPS_PROXY and its like name for the API server."""
    address = urlsplit(host)
    return None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)


class Client:
    """One connection pool to the API server."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        before_write: Callable[[], None] | None = None,
        request_timeout_seconds: float = REQUEST_TIMEOUT_SECONDS,
    ) -> None:
        if before_write is not None:
            configuration.trace_configs = [_asking(before_write)]
        self._api = ApiClient(configuration)
        self._request_timeout_seconds = request_timeout_seconds

    async def close(self) -> None:
        """Close the pool."""
        await self._api.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """One object by name."""
        return await self._request("GET", resource.path(namespace, name))

    async def list_all(self, resource: Resource, namespace: str | None = None) -> tuple[list[Manifest], str]:
        """Every object, read in pages, and the resource version a watch goes on from."""
        items: list[Manifest] = []
        query: dict[str, Any] = {"limit": PAGE_SIZE}
        while True:
            page = await self._request(
                "GET", resource.path(namespace), query=query, timeout_seconds=LIST_TIMEOUT_SECONDS
            )
            for item in page["items"]:
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            items += page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return items, page["metadata"]["resourceVersion"]
            query["continue"] = token

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        resource_version: str,
        *,
        server_timeout_seconds: int,
        silence_seconds: float,
    ) -> AsyncIterator[dict[str, Any]]:
        """The changes since a resource version, bookmarks among them, until the server ends the stream.

        Raises TimeoutError when nothing at all arrives for `silence_seconds`.
        """
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": server_timeout_seconds,
        }
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._request_timeout_seconds, sock_read=silence_seconds
        )
        with _as_connection_error():
            response = await self._send("GET", resource.path(namespace), query, None, JSON, timeout)
            try:
                await _raise_for_status(response)
                async for line in _lines(response.content):
                    yield json.loads(line)
            finally:
                response.close()

    async def apply(
        self,
        resource: Resource,
        manifest: Manifest,
        *,
        manager: str = FIELD_MANAGER,
        subresource: str | None = None,
        force: bool = True,
    ) -> Manifest:
        """Server-side apply of the whole manifest."""
        metadata = manifest["metadata"]
        return await self._request(
            "PATCH",
            resource.path(metadata.get("namespace"), metadata["name"], subresource),
            query={"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"},
            body=manifest,
            content_type=APPLY,
        )

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        """POST of a new object."""
        return await self._request(
            "POST",
            resource.path(manifest["metadata"].get("namespace")),
            query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
            body=manifest,
        )

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        """PUT, which the server refuses when the resource version in the manifest is not the current one."""
        metadata = manifest["metadata"]
        return await self._request(
            "PUT",
            resource.path(metadata.get("namespace"), metadata["name"]),
            query={"fieldManager": FIELD_MANAGER},
            body=manifest,
        )

    async def json_patch(
        self, resource: Resource, namespace: str, name: str, operations: Sequence[Mapping[str, Any]]
    ) -> Manifest:
        """A JSON patch: all of it or nothing."""
        return await self._request(
            "PATCH",
            resource.path(namespace, name),
            query={"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"},
            body=list(operations),
            content_type=JSON_PATCH,
        )

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]
    ) -> Manifest:
        """A merge patch, for the series of an event."""
        return await self._request(
            "PATCH",
            resource.path(namespace, name),
            query={"fieldManager": FIELD_MANAGER},
            body=dict(patch),
            content_type=MERGE_PATCH,
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str,
        propagation: str = "Background",
        grace_period_seconds: int | None = None,
    ) -> Manifest:
        """Delete the object with this UID and no successor of its name."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        return await self._request("DELETE", resource.path(namespace, name), body=options)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout_seconds: float | None = None,
    ) -> Manifest:
        timeout = aiohttp.ClientTimeout(total=timeout_seconds or self._request_timeout_seconds)
        with _as_connection_error():
            async with await self._send(method, path, query, body, content_type, timeout) as response:
                await _raise_for_status(response)
                document: Manifest = json.loads(await response.read())
                return document

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Any,
        content_type: str,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - it is aiohttp's own value
    ) -> aiohttp.ClientResponse:
        configuration = self._api.configuration
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": USER_AGENT}
        for setting in (await configuration.auth_settings()).values():
            headers[setting["key"]] = setting["value"]
        url = configuration.host + path + (f"?{urlencode(query)}" if query else "")
        answer = await self._api.rest_client.request(
            method, url, headers=headers, body=body, _request_timeout=timeout
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


@contextmanager
def _as_connection_error() -> Iterator[None]:
    """A broken connection is a ConnectionError whichever library reports it; a time-out stays one."""
    try:
        yield
    except TimeoutError:
        raise
    except aiohttp.ClientError as error:
        raise ConnectionError(str(error) or repr(error)) from error


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
    """The lines of a stream, however long: an object may be larger than aiohttp's limit for one line."""
    rest = b""
    async for chunk in content.iter_any():
        *complete, rest = (rest + chunk).split(b"\n")
        for line in complete:
            if line:
                yield line
