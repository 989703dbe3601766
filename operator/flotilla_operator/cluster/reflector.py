"""Keeps one resource's store equal to the objects on the API server, with lists and watches.

A list replaces the store's content: an object that was in the store when the list began and is not in the
list was deleted. So deletions are noticed even after a gap in the watch. A watch then follows from the list's
resource version, which bookmarks move forward. After a time-out, an error or a silence the watch continues
where it ended; only 410 Gone, or several errors in a row, need a new list. `synced` is set when the first
list is complete; nothing may be decided before that. When the API server is too old to serve a resource, its
store stays empty and counts as synced, and the resource is tried again from time to time.

kopf watches our own kinds and feeds their stores, but it does not report deletions after a gap. For these
kinds `Sweeper` does only the lists.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import structlog

from flotilla_operator.cluster.caches import Store
from flotilla_operator.cluster.client import ApiError, Client, error_from
from flotilla_operator.cluster.stripped import stripped
from flotilla_operator.objects.resources import NOT_ALWAYS_SERVED, Manifest, Resource
from flotilla_operator.objects.retries import Draw, RetryDelay
from flotilla_runtime.contract.failure_texts import what_failed

GONE = 410
NOT_FOUND = 404
# The server ends each watch after a random time in this range, so that they do not all end together.
SERVER_TIMEOUT_SECONDS = (240, 360)
# The API server sends a bookmark about every 60 s.
SILENCE_SECONDS = 70.0
# The longest pause between two watches. Without it, a server that ends watches at once is asked all the time.
BREATH_SECONDS = 1.0
FAILURES_UNTIL_LIST = 3
BACKOFF = RetryDelay(base_seconds=1.0, limit_seconds=30.0)

FAILURES = (ApiError, TimeoutError, OSError, ValueError)

log = structlog.get_logger(__name__)


class Change(StrEnum):
    """Change of an object in the store."""

    PUT = "Put"
    REMOVED = "Removed"


OnChange = Callable[[Resource, Manifest, Change], None]


class Observer(Protocol):
    """Counts what reflectors do."""

    def listed(self, resource: Resource, objects: int) -> None:
        """A list was complete."""

    def failed(self, resource: Resource, error: Exception) -> None:
        """A list or a watch failed and will be tried again."""


class Silent:
    """An observer that counts nothing."""

    def listed(self, resource: Resource, objects: int) -> None:
        """Count nothing."""

    def failed(self, resource: Resource, error: Exception) -> None:
        """Count nothing."""


@dataclass(slots=True, kw_only=True)
class Mirror:
    """A store and the resource it mirrors, in one namespace or in all.

    With `quiet` it holds no last words of containers.
    """

    resource: Resource
    store: Store
    client: Client
    on_change: OnChange
    namespace: str | None = None
    observer: Observer = field(default_factory=Silent)
    quiet: bool = False

    async def list_anew(self, on_page: Callable[[], None] = lambda: None) -> str:
        """Make the store equal to a new list; returns the list's resource version."""
        vanished = self.store.uids(self.namespace)
        version = ""
        async for page in self.client.pages(self.resource, self.namespace):
            on_page()
            version = page.version
            vanished -= {item["metadata"]["uid"] for item in page.items}
            for item in page.items:
                self.put(item)
        for manifest in [held for held in self.store if held["metadata"]["uid"] in vanished]:
            self.remove(manifest)
        self.observer.listed(self.resource, len(self.store))
        return version

    def put(self, manifest: Manifest) -> None:
        """Put an object into the store; one that is not newer than the stored one wakes nothing."""
        manifest = stripped(self.resource, manifest, quiet=self.quiet)
        if self.store.put(manifest):
            self.on_change(self.resource, manifest, Change.PUT)

    def remove(self, manifest: Manifest) -> None:
        """Remove an object from the store."""
        metadata = manifest["metadata"]
        if self.store.remove(metadata.get("namespace", ""), metadata["name"], metadata["uid"]) is not None:
            self.on_change(self.resource, manifest, Change.REMOVED)


class Reflector:
    """Lists and watches one resource, forever."""

    def __init__(
        self,
        mirror: Mirror,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        draw: Draw = random.uniform,
    ) -> None:
        self.mirror = mirror
        self.synced = asyncio.Event()
        self.active_at = asyncio.get_running_loop().time()
        self._silence_seconds = silence_seconds
        self._draw = draw
        self._version: str | None = None

    def age_seconds(self) -> float:
        """The time since the last activity of the watch."""
        return asyncio.get_running_loop().time() - self.active_at

    async def run(self) -> None:
        """Follow the API server until cancelled."""
        failures = 0
        while True:
            self._alive()
            try:
                await self._list_and_follow()
                failures = 0
                delay_seconds = self._draw(0.0, BREATH_SECONDS)
            except FAILURES as error:
                if self._is_not_served(error):
                    self._hold_nothing()
                    failures = 0
                    await asyncio.sleep(self._silence_seconds)
                    continue
                failures += 1
                self._note(error)
                if _is_gone(error) or failures % FAILURES_UNTIL_LIST == 0:
                    self._version = None
                delay_seconds = self._delay_seconds(error, failures)
            await asyncio.sleep(delay_seconds)

    async def _list_and_follow(self) -> None:
        """List if no resource version is known, then process a watch's changes until the server ends it."""
        if self._version is None:
            self._version = await self.mirror.list_anew(self._alive)
            self.synced.set()
        try:
            async for event in self.mirror.client.watch(
                self.mirror.resource,
                self.mirror.namespace,
                self._version,
                server_timeout_seconds=int(self._draw(*SERVER_TIMEOUT_SECONDS)),
                silence_seconds=self._silence_seconds,
            ):
                self._alive()
                self._take(event)
        except TimeoutError:
            log.info("watch_silent", resource=self.mirror.resource.plural, seconds=self._silence_seconds)

    def _take(self, event: dict[str, Any]) -> None:
        manifest = event["object"]
        match event["type"]:
            case "ADDED" | "MODIFIED":
                self.mirror.put(manifest)
            case "DELETED":
                self.mirror.remove(manifest)
            case "ERROR":
                raise error_from(0, manifest)
        self._version = manifest["metadata"]["resourceVersion"]

    def _is_not_served(self, error: Exception) -> bool:
        unknown = isinstance(error, ApiError) and error.status == NOT_FOUND
        return unknown and self.mirror.resource in NOT_ALWAYS_SERVED

    def _hold_nothing(self) -> None:
        """Empty the store, because the API server does not serve the resource."""
        for manifest in list(self.mirror.store):
            self.mirror.remove(manifest)
        self._version = None
        if not self.synced.is_set():
            log.info("not_served", resource=self.mirror.resource.plural)
        self.synced.set()

    def _alive(self) -> None:
        self.active_at = asyncio.get_running_loop().time()

    def _note(self, error: Exception) -> None:
        self.mirror.observer.failed(self.mirror.resource, error)
        log.warning("watch_failed", resource=self.mirror.resource.plural, error=what_failed(error))

    def _delay_seconds(self, error: Exception, failures: int) -> float:
        asked = error.retry_after_seconds if isinstance(error, ApiError) else None
        return max(asked or 0.0, BACKOFF.seconds_after(failures, self._draw))


class Sweeper:
    """Lists a resource at intervals, for a store that kopf feeds with events."""

    def __init__(
        self,
        mirror: Mirror,
        *,
        interval_seconds: float,
        draw: Draw = random.uniform,
    ) -> None:
        self.mirror = mirror
        self.synced = asyncio.Event()
        self.attempted_at = asyncio.get_running_loop().time()
        self._interval_seconds = interval_seconds
        self._draw = draw

    async def run(self) -> None:
        """List at once, and then at intervals, until cancelled."""
        failures = 0
        while True:
            self._attempted()
            try:
                await self.mirror.list_anew(self._attempted)
            except FAILURES as error:
                failures += 1
                self.mirror.observer.failed(self.mirror.resource, error)
                log.warning("sweep_failed", resource=self.mirror.resource.plural, error=what_failed(error))
                await asyncio.sleep(BACKOFF.seconds_after(failures, self._draw))
                continue
            failures = 0
            self.synced.set()
            await asyncio.sleep(self._interval_seconds * self._draw(0.9, 1.1))

    def _attempted(self) -> None:
        self.attempted_at = asyncio.get_running_loop().time()


def _is_gone(error: Exception) -> bool:
    return isinstance(error, ApiError) and error.status == GONE
