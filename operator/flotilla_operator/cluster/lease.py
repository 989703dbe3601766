"""Leader election, and the fence that stops a process that does not lead from writing.

The leader renews one Lease with a PUT that names the resource version it has seen. Any exception counts as a
failed renewal, and each attempt has a time limit. The age of the lease is measured with a monotonic clock
from before the request was sent. So neither a clock that jumps nor a server that hangs makes a process rely
on a lease that others consider expired. A leader that has not renewed for `renew_deadline_seconds` stops.
Others wait for `lease_duration_seconds`, which is longer, after the last renewal that they have seen.

The Lease alone does not stop writes: a leader that was suspended and resumes would finish what it had begun.
Therefore every write calls `Fence.check`, and the loss of the lease ends all reconciles.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.cluster.crash_points import CrashPoint, go_on
from flotilla_operator.objects.resources import LEASES, Manifest
from flotilla_runtime.contract.failure_texts import what_failed

log = structlog.get_logger(__name__)


class NotLeadingError(Exception):
    """This process does not lead, or no longer does, and must not write."""


class Fence:
    """Knows whether the lease was renewed recently enough for a write to be sent now."""

    def __init__(self, renew_deadline_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._renew_deadline_seconds = renew_deadline_seconds
        self._clock = clock
        self._renewed_at: float | None = None

    @property
    def leading(self) -> bool:
        """Whether a write may be sent now."""
        return self.remaining_seconds() > 0

    def remaining_seconds(self) -> float:
        """For how long writes may be sent without another renewal."""
        if self._renewed_at is None:
            return 0.0
        return self._renewed_at + self._renew_deadline_seconds - self._clock()

    def renewed(self, at: float) -> None:
        """Record a successful renewal that was sent at this time of the monotonic clock."""
        self._renewed_at = at

    def close(self) -> None:
        """Allow no write from now on."""
        self._renewed_at = None

    def check(self) -> None:
        """Raise `NotLeadingError` unless a write may be sent now."""
        if not self.leading:
            raise NotLeadingError("the lease was not renewed in time")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """The lease's name and namespace, the identity of this process, and the times."""

    namespace: str
    name: str
    identity: str
    lease_duration_seconds: int = 15
    renew_deadline_seconds: float = 10
    retry_period_seconds: float = 2


class LeaderLease:
    """Acquires the lease, holds it, and releases it."""

    def __init__(
        self,
        client: Client,
        fence: Fence,
        settings: LeaseSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Callable[[CrashPoint], None] = go_on,
    ) -> None:
        self._client = client
        self._fence = fence
        self._settings = settings
        self._clock = clock
        self._now = now
        self._reached = reached
        self._lease: Manifest | None = None
        self._seen: tuple[str, float] = ("", 0.0)

    async def acquire(self) -> None:
        """Return once the lease is ours. It tries twice per retry period, so a freed lease is taken soon."""
        while True:
            try:
                async with asyncio.timeout(self._settings.renew_deadline_seconds / 2):
                    if await self._take():
                        log.info("leader_elected", identity=self._settings.identity)
                        return
            except Exception as error:
                log.warning("lease_not_acquired", error=what_failed(error))
            await asyncio.sleep(self._settings.retry_period_seconds / 2)

    async def hold(self) -> None:
        """Renew forever; raises `NotLeadingError` as soon as the lease is lost."""
        while True:
            await asyncio.sleep(min(self._settings.retry_period_seconds, self._fence.remaining_seconds()))
            self._fence.check()
            limit = min(self._settings.renew_deadline_seconds / 2, self._fence.remaining_seconds())
            try:
                async with asyncio.timeout(limit):
                    await self._renew()
            except NotLeadingError:
                self._fence.close()
                raise
            except Exception as error:
                log.warning("lease_not_renewed", error=what_failed(error))
            self._fence.check()

    async def release(self) -> None:
        """Allow no more writes, then free the lease, so that others need not wait until it expires."""
        was_leading = self._fence.leading
        self._fence.close()
        if self._lease is None or not was_leading:
            return
        free = self._written(self._lease, holder="", lease_duration_seconds=1)
        self._lease = None
        try:
            async with asyncio.timeout(self._settings.retry_period_seconds / 2):
                await self._write(free)
            log.info("lease_released", identity=self._settings.identity)
        except Exception as error:
            log.warning("lease_not_released", error=what_failed(error))

    async def _take(self) -> bool:
        sent_at = self._clock()
        held = await self._read()
        if held is None:
            self._lease = await self._write(self._written(None))
        elif self._is_held(held):
            return False
        else:
            self._lease = await self._write(self._written(held))
        self._fence.renewed(sent_at)
        return True

    async def _renew(self) -> None:
        if self._lease is None:
            raise NotLeadingError("there is no lease to renew")
        sent_at = self._clock()
        try:
            self._lease = await self._write(self._written(self._lease))
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            await self._look_who_holds()
            return
        self._fence.renewed(sent_at)

    async def _look_who_holds(self) -> None:
        """Find out who wrote the lease: another process, or we in a renewal whose answer was lost."""
        held = await self._read()
        if held is None or held["spec"].get("holderIdentity") != self._settings.identity:
            raise NotLeadingError("another process holds the lease")
        self._lease = held
        await self._renew()

    async def _write(self, lease: Manifest) -> Manifest:
        """Create the lease, or replace the one with the resource version in the manifest."""
        self._reached(CrashPoint.BEFORE_LEASE)
        named = "resourceVersion" in lease["metadata"]
        send = self._client.replace if named else self._client.create
        written = await send(LEASES, lease)
        self._reached(CrashPoint.AFTER_LEASE)
        return written

    async def _read(self) -> Manifest | None:
        try:
            return await self._client.get(LEASES, self._settings.namespace, self._settings.name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _is_held(self, lease: Manifest) -> bool:
        """Whether another process holds the lease.

        The lease counts as expired when we have seen it unchanged for its duration, because the times in it
        come from another clock.
        """
        version = lease["metadata"]["resourceVersion"]
        if self._seen[0] != version:
            self._seen = (version, self._clock())
        spec = lease["spec"]
        if spec.get("holderIdentity") in (None, "", self._settings.identity):
            return False
        duration: int = spec.get("leaseDurationSeconds") or self._settings.lease_duration_seconds
        return self._clock() - self._seen[1] < duration

    def _written(
        self,
        held: Manifest | None,
        *,
        holder: str | None = None,
        lease_duration_seconds: int | None = None,
    ) -> Manifest:
        before: dict[str, Any] = held["spec"] if held else {}
        identity = self._settings.identity if holder is None else holder
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same_holder = before.get("holderIdentity") == identity
        changed_hands = bool(before) and not same_holder and identity != ""
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": (
                held["metadata"]
                if held
                else {"namespace": self._settings.namespace, "name": self._settings.name}
            ),
            "spec": {
                "holderIdentity": identity,
                "leaseDurationSeconds": lease_duration_seconds or self._settings.lease_duration_seconds,
                "acquireTime": before.get("acquireTime", now) if same_holder or identity == "" else now,
                "renewTime": now,
                "leaseTransitions": before.get("leaseTransitions", 0) + changed_hands,
            },
        }
