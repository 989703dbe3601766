"""Keeps the pods of one label selector up to date with a list and watches.

It uses plain HTTP, because the agent needs only one resource. A watch that ends continues at the last version
seen. After 410 Gone, or an event that cannot be parsed, the pods are listed again, which also drops deleted
pods. A watch without data for `silence_seconds` is considered dead, because the API server sends bookmarks
more often. While the API server does not answer, the last known pods stay.
"""

import asyncio
import json
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import url_host
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.secret_files import secret_in

ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PAGE_PODS = 500
WATCH_SECONDS = 300
SILENCE_SECONDS = 90.0
REQUEST_SECONDS = 30.0
ASK_SECONDS = 5.0  # the kubelet waits for the answer to its hook
LINE_BYTES = 4 * 1024 * 1024  # the largest pod the API server can store has 1.5 MiB
BACKOFF = Backoff(base_seconds=0.2, limit_seconds=15.0, least_share=0.5)
UNREADABLE = (LookupError, TypeError, AttributeError)  # raised for JSON that is not an object of the API

log = structlog.get_logger(__name__)


class NoAnswerError(ConnectionError):
    """The API server did not answer. The message says why, and nothing of the request."""


class UnreadableError(ValueError):
    """The API server's answer has another structure."""


class StaleVersion(Exception):  # noqa: N818 (it is named by what happened)
    """The watch cannot continue from its resource version, so the pods must be listed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesAccess:
    """Address and credentials of the API server; the token is read for each request, as it is renewed."""

    url: str
    token_path: Path | None = None
    certificate_path: Path | None = None

    @classmethod
    def in_pod(cls) -> "KubernetesAccess":
        """The access that the kubelet gives a pod with a service account."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        return cls(
            url=f"https://{url_host(host)}:{port}",
            token_path=ACCOUNT_DIRECTORY / "token",
            certificate_path=ACCOUNT_DIRECTORY / "ca.crt",
        )

    def headers(self) -> dict[str, str]:
        """The headers of one request."""
        token = {} if self.token_path is None else {"Authorization": f"Bearer {secret_in(self.token_path)}"}
        return {"Accept": "application/json", **token}

    def session(self) -> aiohttp.ClientSession:
        """A session that trusts the cluster's certificate."""
        context: ssl.SSLContext | bool = True
        if self.certificate_path is not None:
            context = ssl.create_default_context(cafile=str(self.certificate_path))
        return aiohttp.ClientSession(
            base_url=self.url, connector=aiohttp.TCPConnector(ssl=context), read_bufsize=LINE_BYTES
        )


class PodWatch:
    """The pods of one selector. `on_change` is called after each change and must return quickly."""

    def __init__(
        self,
        access: KubernetesAccess,
        *,
        namespace: str,
        selector: Mapping[str, str],
        on_change: Callable[[], None],
        silence_seconds: float = SILENCE_SECONDS,
        backoff: Backoff = BACKOFF,
    ) -> None:
        self._access = access
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._selector = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        self._on_change = on_change
        self._silence_seconds = silence_seconds
        self._backoff = backoff
        self._version: str | None = None
        self.pods: dict[str, Mapping[str, Any]] = {}
        self.synced = False
        self.is_current = False  # whether the API server has said something since the last failure

    async def run(self) -> None:
        """Run until cancelled. A watch that ended well is followed by the shortest pause of the backoff."""
        failures = 0
        async with self._access.session() as session:
            while True:
                try:
                    await self._follow(session)
                    failures = 0
                except StaleVersion as reason:
                    self.is_current = False
                    log.info("pods_listed_again", selector=self._selector, reason=str(reason))
                    self._version = None
                    failures += 1
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                    self.is_current = False
                    log.warning("pod_watch_failed", selector=self._selector, error=what_failed(error))
                    failures += 1
                await asyncio.sleep(self._backoff.seconds_after(1 + failures, random.uniform))

    async def ask(self, name: str) -> Mapping[str, Any] | None:
        """A pod of the selector as the API server has it now, None when there is none.

        Raises OSError, TimeoutError or ValueError when the API server does not say.
        """
        query = {"labelSelector": self._selector, "fieldSelector": f"metadata.name={name}"}
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        try:
            async with (
                self._access.session() as session,
                session.get(
                    self._path, params=query, headers=self._access.headers(), timeout=timeout
                ) as response,
            ):
                response.raise_for_status()
                page = await response.json()
        except aiohttp.ClientError as error:
            raise NoAnswerError(what_failed(error)) from error
        try:
            return next((pod for pod in page["items"] if pod["metadata"]["name"] == name), None)
        except UNREADABLE as error:
            raise UnreadableError(f"the list of pods cannot be parsed: {what_failed(error)}") from error

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        if self._version is None:
            await self._list(session)
        async for event in self._events(session):
            try:
                self._take(event)
            except UNREADABLE as error:
                raise StaleVersion(f"an event of the watch cannot be parsed: {what_failed(error)}") from error

    async def _list(self, session: aiohttp.ClientSession) -> None:
        pods: dict[str, Mapping[str, Any]] = {}
        query = {"labelSelector": self._selector, "limit": str(PAGE_PODS)}
        while True:
            timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
            async with session.get(
                self._path, params=query, headers=self._access.headers(), timeout=timeout
            ) as response:
                _check(response)
                page = await response.json()
            try:
                pods |= {pod["metadata"]["name"]: pod for pod in page.get("items") or ()}
                version, more = page["metadata"]["resourceVersion"], page["metadata"].get("continue")
            except UNREADABLE as error:
                raise UnreadableError(f"the list of pods cannot be parsed: {what_failed(error)}") from error
            if not more:
                break
            query["continue"] = more
        self.pods, self._version, self.synced = pods, version, True
        self.is_current = True
        self._on_change()

    async def _events(self, session: aiohttp.ClientSession) -> AsyncIterator[Mapping[str, Any]]:
        query = {
            "labelSelector": self._selector,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=self._silence_seconds)
        async with session.get(
            self._path, params=query, headers=self._access.headers(), timeout=timeout
        ) as response:
            _check(response)
            self.is_current = True
            try:
                async for line in response.content:
                    yield json.loads(line)
            except ValueError as error:
                raise StaleVersion(f"an event of the watch cannot be parsed: {what_failed(error)}") from error

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            raise StaleVersion(f"{body.get('code')}: {body.get('message')}")
        self._version = body["metadata"]["resourceVersion"]
        if kind in ("ADDED", "MODIFIED"):
            self.pods[body["metadata"]["name"]] = body
        elif kind == "DELETED":
            self.pods.pop(body["metadata"]["name"], None)
        else:
            return
        self._on_change()


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status == 410:
        raise StaleVersion("410 Gone")
    response.raise_for_status()
