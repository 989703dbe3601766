"""Keeps the pods of one label selector as they are: lists, watches on, and lists again when it must.

Raw HTTP, because the agent needs one resource and no client library. A watch that ends is taken up again at
the last version seen; 410 Gone, or an event that cannot be read, means a new list, which also drops what
has gone. A watch that says nothing for `silence_seconds` is taken for dead: the API server sends bookmarks
more often. While the API server is away the last known pods stay.
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

ACCOUNT_DIRECTORY = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PAGE_PODS = 500
WATCH_SECONDS = 300
SILENCE_SECONDS = 90.0
REQUEST_SECONDS = 30.0
LINE_BYTES = 4 * 1024 * 1024  # the largest pod the API server can store has 1.5 MiB
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 15.0
UNREADABLE = (LookupError, TypeError, AttributeError)  # JSON of another shape than the API's

log = structlog.get_logger(__name__)


class StaleVersion(Exception):  # noqa: N818 (it is named by what happened)
    """The version to watch from is no longer known, so only a list can tell what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesAccess:
    """How the API server is reached; the token is read for each request, since the kubelet renews it."""

    url: str
    token_path: Path | None = None
    certificate_path: Path | None = None

    @classmethod
    def in_pod(cls) -> "KubernetesAccess":
        """As the kubelet arranges it for a pod with a service account."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        return cls(
            url=f"https://{host}:{port}",
            token_path=ACCOUNT_DIRECTORY / "token",
            certificate_path=ACCOUNT_DIRECTORY / "ca.crt",
        )

    def headers(self) -> dict[str, str]:
        """The headers of one request."""
        token = None if self.token_path is None else self.token_path.read_text().strip()
        return {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def session(self) -> aiohttp.ClientSession:
        """A session that trusts the cluster's certificate."""
        context: ssl.SSLContext | bool = True
        if self.certificate_path is not None:
            context = ssl.create_default_context(cafile=str(self.certificate_path))
        return aiohttp.ClientSession(
            base_url=self.url, connector=aiohttp.TCPConnector(ssl=context), read_bufsize=LINE_BYTES
        )


class PodWatch:
    """The pods of one selector. `on_change` is called after each change, and must be quick."""

    def __init__(
        self,
        access: KubernetesAccess,
        *,
        namespace: str,
        selector: Mapping[str, str],
        on_change: Callable[[], None],
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._access = access
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._selector = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        self._on_change = on_change
        self._silence_seconds = silence_seconds
        self._version: str | None = None
        self.pods: dict[str, Mapping[str, Any]] = {}
        self.synced = False

    async def run(self) -> None:
        """Runs until it is cancelled."""
        pause = FIRST_PAUSE_SECONDS
        async with self._access.session() as session:
            while True:
                try:
                    await self._follow(session)
                    pause = FIRST_PAUSE_SECONDS
                except StaleVersion as reason:
                    log.info("pods_listed_again", selector=self._selector, reason=str(reason))
                    self._version = None
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                    log.warning("pod_watch_failed", selector=self._selector, error=repr(error))
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                await asyncio.sleep(random.uniform(0.5, 1) * pause)  # noqa: S311 (jitter is no secret)

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        if self._version is None:
            await self._list(session)
        async for event in self._events(session):
            try:
                self._take(event)
            except UNREADABLE as error:
                raise StaleVersion(f"an event that cannot be read: {error!r}") from error

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
                raise ValueError(f"a list that cannot be read: {error!r}") from error
            if not more:
                break
            query["continue"] = more
        self.pods, self._version, self.synced = pods, version, True
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
            try:
                async for line in response.content:
                    yield json.loads(line)
            except ValueError as error:
                raise StaleVersion(f"an event that cannot be read: {error}") from error

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
