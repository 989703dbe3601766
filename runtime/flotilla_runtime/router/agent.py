"""The agent beside HAProxy: it tells HAProxy the replicas and reports its state. No request passes through
it.

It runs four loops and a small HTTP server. The first loop reads HAProxy's state every 0.2 s, and at once when
a pod has changed, and carries out the plan of servers.py. The second reads HAProxy's request lines into
metrics and tallies. The third asks draining engines whether they are idle, and the fourth asks serving
engines how full their KV caches are. The first loop reads everything again each time, so no state of the
agent can be wrong after a restart of HAProxy or of the agent.

The agent is ready once the pods of both selectors have been listed and a whole plan, including drains, has
been carried out, and as long as the last successful round is at most `STALE_SECONDS` old.

When its own pod is being deleted, the agent tells HAProxy to close each connection after its answer. GET
/v1/drained, the preStop hook of both containers, answers when nothing is in flight or queued any more, but
not before the Service has had time to remove this pod. The kubelet calls the hook only for a pod that it
stops, but others may call it too. So the agent asks the API server for its own pod where the watch says
nothing of a deletion, and answers 409 if there is none. If the API server does not answer, the agent takes
the caller for the kubelet and drains, until it sees its pod again without a deletion.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from flotilla_runtime.contract import RouterConfig, RouterServer, RouterStatus, ServerState
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.router import pods
from flotilla_runtime.router.admin_socket import AdminSocket, write_run_file
from flotilla_runtime.router.cache_looks import CacheLooks
from flotilla_runtime.router.caller_keys import ANONYMOUS, map_text, read_caller_keys
from flotilla_runtime.router.certificate import CertificateUnreadable, read_certificate
from flotilla_runtime.router.commands import Command, changes_keys, shown, text
from flotilla_runtime.router.engine_looks import EngineLooks
from flotilla_runtime.router.errors import RouterProcessError
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.listeners import certificate_path
from flotilla_runtime.router.metrics import RouterMetrics
from flotilla_runtime.router.pod_watch import KubernetesAccess, PodWatch
from flotilla_runtime.router.pods import Replica
from flotilla_runtime.router.rates import CounterRate
from flotilla_runtime.router.request_log import RequestLog
from flotilla_runtime.router.servers import (
    Desired,
    Observed,
    limits,
    plan,
    rebalance,
    rebalanced,
    router_servers,
)
from flotilla_runtime.router.tallies import Promise

LOOK_SECONDS = 0.2
STALE_SECONDS = 5.0
ENDPOINTS_FORGET_SECONDS = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: the state that HAProxy should have, and its state after the plan was carried out."""

    at: float
    desired: Desired
    observed: Observed
    unusable: dict[str, str]


class RouterAgent:
    """Keeps one HAProxy up to date. `own_pod` is the name of the pod in which both run."""

    def __init__(
        self,
        config: RouterConfig,
        access: KubernetesAccess,
        *,
        own_pod: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._own_pod = own_pod
        self._clock = clock
        self._files = RunFiles(config.run_directory)
        self._socket = AdminSocket(self._files)
        self._changed = asyncio.Event()
        self._engines = self._watch(access, config.engine_selector)
        self._routers = self._watch(access, config.router_selector)
        self._last: Round | None = None
        self._reported: Mapping[Command, str] = {}
        self._done: tuple[Command, ...] = ()
        self._draining_since: float | None = None
        self._presumed = False  # that the pod is being deleted, while the API server does not say
        self._looks = EngineLooks(self._replicas, port=config.engine_port)
        self._caches = CacheLooks(self._serving, port=config.engine_port)
        self._arrivals = CounterRate()
        self._busy_at = clock()
        self._certificate_problem: str | None = None
        self._key_problems: tuple[str, ...] = ()
        self.metrics = RouterMetrics()
        promise = Promise(
            first_byte_seconds=config.promised_first_byte_seconds,
            total_seconds=config.promised_total_seconds,
        )
        self._requests = RequestLog(self.metrics, promise, clock=clock)

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._engines.run())
            group.create_task(self._routers.run())
            group.create_task(self._keep_current())
            group.create_task(self._requests.follow(self._socket))
            group.create_task(self._looks.run())
            group.create_task(self._caches.run())

    @property
    def ready(self) -> bool:
        """Whether this router can take requests now."""
        last = self._last
        return last is not None and not last.desired.draining and self._clock() - last.at < STALE_SECONDS

    def status(self) -> RouterStatus:
        """The status that the operator scrapes."""
        last = self._last or Round(at=0, desired=Desired(), observed=Observed(), unusable={})
        share = limits(self._config, last.desired.live_routers)
        servers = router_servers(self._config, last.desired, last.observed)
        arrivals_per_second = self._arrivals.per_second(self._clock())
        return RouterStatus(
            name=self._config.name,
            synced=self._last is not None,
            draining=last.desired.draining,
            live_routers=last.desired.live_routers,
            waiting=last.observed.waiting,
            held=last.observed.held,
            in_flight=last.observed.in_flight,
            idle_seconds=self._clock() - max(self._busy_at, self._requests.last_ended),
            arrivals_per_second=arrivals_per_second,
            # When HAProxy cannot be asked for its counter, it writes no request lines either.
            kept_per_second=None if arrivals_per_second is None else self._requests.kept_per_second,
            max_connections_per_replica=share.max_connections,
            queue_limit=share.queue,
            servers=tuple(self._with_tally(server) for server in servers),
            refused=dict(self.metrics.refused),
            unusable=last.unusable,
        )

    def _with_tally(self, server: RouterServer) -> RouterServer:
        tally = self._requests.tally(server.name)
        return server.model_copy(
            update={
                "idle_looks": self._looks.idle(server.name, server.acknowledged_drain_epoch),
                "answers": tally.answers,
                "failed": tally.failed,
                "kept": tally.kept,
                "sessions": tally.sessions,
                "kv_usage": self._caches.usage(server.name),
            }
        )

    def _replicas(self) -> tuple[Replica, ...]:
        return () if self._last is None else self._last.desired.replicas

    def _serving(self) -> tuple[Replica, ...]:
        return tuple(replica for replica in self._replicas() if replica.state is ServerState.READY)

    async def drained(self, *, noticed_within_seconds: float = ENDPOINTS_FORGET_SECONDS) -> bool:
        """Wait until no request is left in this router; False when this pod is not being deleted."""
        give_up = self._clock() + noticed_within_seconds
        while self._draining_since is None:
            if self._clock() > give_up and not await self._must_drain():
                return False
            await asyncio.sleep(LOOK_SECONDS)
        begun = self._draining_since
        deadline = begun + self._config.drain_deadline_seconds
        while self._draining_since is not None and self._clock() < deadline:
            if self._clock() > begun + ENDPOINTS_FORGET_SECONDS and self._is_idle():
                return True
            await asyncio.sleep(LOOK_SECONDS)
        return self._draining_since is not None

    async def _must_drain(self) -> bool:
        """Whether this pod is being deleted, or nobody can say that it is not; a drain then begins."""
        try:
            own = await self._routers.ask(self._own_pod)
        except (OSError, TimeoutError, ValueError) as error:
            log.warning("own_pod_unknown", error=what_failed(error))
            self._presumed = True
        else:
            if own is not None and not pods.is_terminating(own):
                return False
        if self._draining_since is None:
            self._draining_since = self._clock()
            log.info("router_draining")
        return True

    def _is_idle(self) -> bool:
        return self._last is not None and not self._last.observed.busy

    def _watch(self, access: KubernetesAccess, selector: dict[str, str]) -> PodWatch:
        return PodWatch(
            access, namespace=self._config.namespace, selector=selector, on_change=self._changed.set
        )

    async def _keep_current(self) -> None:
        while True:
            try:
                if self._engines.synced and self._routers.synced:
                    await self._one_round()
            except RouterProcessError as error:
                log.warning("haproxy_unreachable", error=what_failed(error))
            try:
                await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
            self._changed.clear()

    async def _one_round(self) -> None:
        replicas = pods.replicas_of(self._engines.pods.values())
        desired = self._desired(replicas)
        observed = await self._observe()
        commands = plan(self._config, desired, observed)
        if not commands and self._last is not None:
            commands = rebalance(self._last.observed, observed)
            self.metrics.count_rebalanced(rebalanced(commands))
        refused = await self._socket.execute(commands)
        await self._renew_certificate()
        self._report(commands, refused, desired.keys)
        if commands:
            observed = await self._observe()
        self._last = Round(
            at=self._clock(), desired=desired, observed=observed, unusable={**replicas.unusable}
        )
        self._requests.keep_only(replica.name for replica in replicas.usable)
        if observed.arrived is not None:
            self._arrivals.look(observed.arrived, self._clock())
        if observed.busy:
            self._busy_at = self._clock()
        keyed = self._config.caller_keys_directory is not None
        self.metrics.expect(desired.keys.values() if keyed else (ANONYMOUS,))
        self.metrics.show(self.status())

    def _desired(self, replicas: pods.Replicas) -> Desired:
        routers = self._routers.pods
        own = routers.get(self._own_pod)
        if own is not None and pods.is_terminating(own):
            self._presumed = False
            if self._draining_since is None:
                self._draining_since = self._clock()
                log.info("router_draining")
        elif self._presumed and own is not None and self._routers.is_current:
            self._presumed, self._draining_since = False, None
            log.info("router_goes_on")
        desired = Desired(
            replicas=replicas.usable,
            live_routers=pods.live_routers(routers.values(), own_name=self._own_pod),
            draining=self._draining_since is not None,
        )
        return replace(desired, keys=self._keys())

    def _keys(self) -> dict[str, str]:
        if self._config.caller_keys_directory is None:
            return {}
        try:
            found = read_caller_keys(Path(self._config.caller_keys_directory))
        except OSError as error:  # the kubelet may be replacing the files right now
            log.warning("caller_keys_unreadable", error=what_failed(error))
            return {} if self._last is None else dict(self._last.desired.keys)
        if found.problems != self._key_problems:
            log.warning("caller_keys_unusable", problems=found.problems)
        self._key_problems = found.problems
        return dict(found.by_hash)

    async def _observe(self) -> Observed:
        return await self._socket.observe(
            with_keys=self._config.caller_keys_directory is not None, with_held=self._config.hold_at_zero
        )

    async def _renew_certificate(self) -> None:
        """Give HAProxy the certificate in the files, which the kubelet replaces, whenever it has another."""
        directory = self._config.tls_directory
        if directory is None:
            return
        try:
            certificate = read_certificate(Path(directory))
        except CertificateUnreadable as error:
            problem: str | None = str(error)
        else:
            problem = await self._socket.renew_certificate(certificate_path(directory), certificate)
        if problem is not None and problem != self._certificate_problem:
            log.warning("certificate_refused", problem=problem)
        self._certificate_problem = problem

    def _report(
        self, commands: tuple[Command, ...], refused: Mapping[Command, str], keys: Mapping[str, str]
    ) -> None:
        """Log the commands, without keys; commands that are repeated in each round are logged once."""
        done = tuple(command for command in commands if command not in refused)
        if done and done != self._done:
            told = [text(command, self._files) for command in done if not changes_keys(command)]
            log.info("haproxy_updated", commands=told)
        self._done = done
        if any(changes_keys(command) for command in commands):
            write_run_file(self._files, RunFiles.KEYS_MAP, map_text(keys))
        for command, reply in refused.items():
            if self._reported.get(command) != reply:
                log.warning("haproxy_refused", command=shown(command, self._files), reply=reply)
        self._reported = refused
