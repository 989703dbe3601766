"""kopf's part: the watch streams of our three kinds.

Its only handlers are `on.event`, which write nothing into the user's objects. When kopf ends it cancels
every task on its event loop, those of others too, and it takes the process's signals; so it gets a thread
and an event loop of its own, and hands what it sees over to ours. Its end, for whatever reason, is an error:
the process goes and the kubelet starts it anew.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import kopf
import structlog
from kubernetes.aio.client.configuration import Configuration

from flotilla_operator.cluster.client import load_configuration
from flotilla_operator.cluster.resources import Resource
from flotilla_operator.cluster.writes import Manifest

SERVER_TIMEOUT_SECONDS: Final = 300
CONNECT_TIMEOUT_SECONDS: Final = 15.0
STOP_SECONDS: Final = 2.0

OnEvent = Callable[[Resource, str | None, Manifest], None]

log = structlog.get_logger(__name__)


def kopf_settings(silence_seconds: float) -> kopf.OperatorSettings:
    """No peering, no events of its own, no scans of CRDs and namespaces: nothing that needs more rights."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.connect_timeout = CONNECT_TIMEOUT_SECONDS
    settings.watching.inactivity_timeout = silence_seconds
    return settings


def kopf_registry(
    resources: Sequence[Resource], kubeconfig: Path | None, on_event: OnEvent
) -> kopf.OperatorRegistry:
    """One `on.event` handler per kind, and our own way to log in."""
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
    """The official client's credentials in kopf's words."""
    scheme, _, token = str(configuration.api_key.get("BearerToken", "")).partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme="Bearer" if token else None,
        token=token.strip() or scheme or None,
    )


class KopfThread:
    """Runs kopf beside our event loop until cancelled."""

    def __init__(
        self,
        resources: Sequence[Resource],
        *,
        namespaces: Sequence[str],
        kubeconfig: Path | None,
        silence_seconds: float,
        on_event: OnEvent,
    ) -> None:
        self._ours = asyncio.get_running_loop()
        self._namespaces = namespaces
        self._settings = kopf_settings(silence_seconds)
        self._registry = kopf_registry(resources, kubeconfig, self._hand_over)
        self._on_event = on_event
        self._ended: asyncio.Future[None] = self._ours.create_future()
        self._theirs: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    async def run(self) -> None:
        """Return or raise when kopf ended by itself; stop it when cancelled."""
        thread = threading.Thread(target=self._in_thread, name="kopf", daemon=True)
        thread.start()
        try:
            await asyncio.shield(self._ended)
        finally:
            if self._theirs is not None and self._stop is not None and not self._ended.done():
                self._theirs.call_soon_threadsafe(self._stop.set)
                await asyncio.wait([self._ended], timeout=STOP_SECONDS)

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
            registry=self._registry,
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
                self._ended.set_exception(RuntimeError(f"kopf ended: {error!r}"))

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
