"""Runs kopf, which watches our three kinds.

Only `on.event` handlers are registered: with these, kopf itself writes nothing into the user's objects. When
kopf ends, it cancels every task on its event loop, even those that it did not start, and it handles the
process's signals. So it runs in its own thread with its own event loop, and passes the events on to ours.
When kopf ends, which it does after an error of a watch and when the API server answers 5xx for long, it is
started again, after a pause that grows. Meanwhile the sweepers list our kinds.
"""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import kopf
import structlog
from kubernetes.aio.client.configuration import Configuration

from flotilla_operator.cluster.connection import load_configuration
from flotilla_operator.objects.resources import Manifest, Resource
from flotilla_operator.objects.retries import Draw, RetryDelay
from flotilla_runtime.contract import secret_value
from flotilla_runtime.contract.failure_texts import what_failed

SERVER_TIMEOUT_SECONDS: Final = 300
IDLE_SECONDS: Final = 0.1  # how long kopf keeps an object that nothing more is reported of
LISTED_AT_ONCE: Final = 5  # an object of our kinds may have 1.5 MiB
CONNECT_TIMEOUT_SECONDS: Final = 15.0
STOP_SECONDS: Final = 2.0
WORKED_SECONDS: Final = 60.0  # after so long without an error the next pause is short again
RESTARTED_AFTER: Final = RetryDelay(base_seconds=1.0, limit_seconds=30.0)

OnEvent = Callable[[Resource, str | None, Manifest], None]

log = structlog.get_logger(__name__)


def kopf_settings(silence_seconds: float) -> kopf.OperatorSettings:
    """Settings without peering, events or scans of CRDs and namespaces, which would need more rights."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.connect_timeout = CONNECT_TIMEOUT_SECONDS
    settings.watching.inactivity_timeout = silence_seconds
    settings.watching.chunk_size = LISTED_AT_ONCE
    settings.queueing.idle_timeout = IDLE_SECONDS
    return settings


def kopf_registry(
    resources: Sequence[Resource], kubeconfig: Path | None, on_event: OnEvent
) -> kopf.OperatorRegistry:
    """A registry with one `on.event` handler for each kind, and with our own login."""
    registry = kopf.OperatorRegistry()
    for resource in resources:
        kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(
            _handler(resource, on_event)
        )

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return connection_info(await load_configuration(kubeconfig))

    kopf.on.login(registry=registry)(login)
    return registry


def connection_info(configuration: Configuration) -> kopf.ConnectionInfo:
    """The credentials of the official client in kopf's format. Raises SecretError for an unusable token."""
    first, _, second = str(configuration.api_key.get("BearerToken", "")).strip().partition(" ")
    token = second or first
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme="Bearer" if second else None,
        token=secret_value(token, "the token of the kubeconfig") if token else None,
    )


class KopfEndedError(Exception):
    """kopf ended, and the message says how."""


class KopfThread:
    """Runs kopf in a thread of its own, again and again, until cancelled."""

    def __init__(
        self,
        resources: Sequence[Resource],
        *,
        namespaces: Sequence[str],
        kubeconfig: Path | None,
        silence_seconds: float,
        on_event: OnEvent,
        draw: Draw = random.uniform,
    ) -> None:
        self._ours = asyncio.get_running_loop()
        self._resources = resources
        self._namespaces = namespaces
        self._kubeconfig = kubeconfig
        self._settings = kopf_settings(silence_seconds)
        self._on_event = on_event
        self._draw = draw
        self._ended: asyncio.Future[None] = self._ours.create_future()
        self._theirs: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    async def run(self) -> None:
        """Run kopf, and start it again whenever it ends; cancelling this call stops it."""
        failures = 0
        while True:
            begun = self._ours.time()
            why = await self._run_once()
            failures = 1 if self._ours.time() - begun > WORKED_SECONDS else failures + 1
            delay_seconds = RESTARTED_AFTER.seconds_after(failures, self._draw)
            log.warning("kopf_ended", error=why, restarted_in_seconds=round(delay_seconds, 1))
            await asyncio.sleep(delay_seconds)

    async def _run_once(self) -> str:
        """Run kopf until it ends; returns why it did."""
        self._ended = self._ours.create_future()
        threading.Thread(target=self._in_thread, name="kopf", daemon=True).start()
        try:
            await asyncio.shield(self._ended)
        except KopfEndedError as error:
            return what_failed(error)
        finally:
            if self._theirs is not None and self._stop is not None and not self._ended.done():
                self._theirs.call_soon_threadsafe(self._stop.set)
                await asyncio.wait([self._ended], timeout=STOP_SECONDS)
        return "it returned"

    def _in_thread(self) -> None:
        try:
            asyncio.run(self._operate())
        except BaseException as error:
            self._report(error)
        else:
            self._report(None)

    async def _operate(self) -> None:
        self._theirs = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await kopf.operator(
            registry=kopf_registry(self._resources, self._kubeconfig, self._hand_over),
            settings=self._settings,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=list(self._namespaces),
            stop_flag=self._stop,
        )

    def _report(self, error: BaseException | None) -> None:
        def set_ended() -> None:
            if self._ended.done():
                return
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(KopfEndedError(f"kopf ended with an error: {what_failed(error)}"))

        self._call_ours(set_ended)

    def _hand_over(self, resource: Resource, event: str | None, manifest: Manifest) -> None:
        self._call_ours(lambda: self._on_event(resource, event, manifest))

    def _call_ours(self, callback: Callable[[], None]) -> None:
        try:
            self._ours.call_soon_threadsafe(callback)
        except RuntimeError:
            log.debug("event_loop_closed")


def _handler(resource: Resource, on_event: OnEvent) -> Callable[..., Awaitable[None]]:
    async def handle(event: Any, **_: Any) -> None:
        on_event(resource, event["type"], dict(event["object"]))

    return handle
