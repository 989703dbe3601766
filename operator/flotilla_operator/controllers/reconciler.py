"""One reconcile: observe, plan, carry out; and what follows when it fails.

A reconcile never ends the loop. What the user can mend becomes conditions; what the server may mend by
itself is repeated with backoff. Only a lost lease goes further up, where it ends the process.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from pydantic import ValidationError

from flotilla_operator.cluster.client import ApiError
from flotilla_operator.cluster.events import Recorder, gathered
from flotilla_operator.cluster.lease import NotLeadingError
from flotilla_operator.cluster.ownership import Owner, Refusal, RefusalReason
from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.cluster.resources import NEVER_WATCHED, Key, Reference, Resource, resource_at
from flotilla_operator.cluster.writer import FINALIZER_PREFIX, Writer
from flotilla_operator.cluster.writes import Delete, Event, EventType, Manifest, Plan
from flotilla_operator.controllers.conditions import STALLED, conditions_of, is_true
from flotilla_operator.controllers.controller import Controller, World
from flotilla_operator.controllers.errors import SpecError
from flotilla_operator.controllers.failures import (
    as_far_as_it_came,
    plan_for_invalid_spec,
    spec_error_of,
    status_at_first,
)
from flotilla_operator.controllers.leaving import namespace_leaves, without_a_drain
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import Scraper

RECONCILE_TIMEOUT_SECONDS: Final = 120.0
STALLED_LOOK_SECONDS: Final = 600.0
UNWATCHED_LOOK_SECONDS: Final = 30.0  # no watch tells when a secret can be made
TERMINATING_LOOK_SECONDS: Final = 30.0
# These wait for something that wakes the key or for a person; the others are repeated with backoff.
NOT_REPEATED: Final = frozenset({RefusalReason.NAME_TAKEN, RefusalReason.NAMESPACE_TERMINATING})
# Someone else wrote the object meanwhile: no failure, only a reason to look again.
CONFLICT: Final = 409

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What a reconcile works with."""

    queue: KeyedQueue
    writer: Writer
    recorder: Recorder
    scraper: Scraper
    wakes: Wakes
    metrics: Metrics


class Reconciler:
    """Takes keys from the queue and reconciles them, one after another; run several for several at once."""

    def __init__(
        self,
        controllers: Sequence[Controller[Any]],
        world: World,
        hands: Hands,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._controllers = {controller.resource.kind: controller for controller in controllers}
        self._world = world
        self._hands = hands
        self._now = now
        self._uids: dict[Key, str] = {}
        self._running = 0
        self._draining = asyncio.Event()

    async def work(self) -> None:
        """Reconcile until cancelled, or until the reconciler is drained."""
        while not self._draining.is_set():
            key = await self._hands.queue.take()
            self._running += 1
            try:
                if not self._draining.is_set():
                    await self.attempt(key)
            finally:
                self._running -= 1
                self._hands.queue.done(key)

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and give what runs this long to end."""
        self._draining.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running:  # noqa: ASYNC110 - half a second at most, once in a process
                    await asyncio.sleep(0.01)

    async def attempt(self, key: Key) -> None:
        """Reconcile one key and see to what comes after, whatever happens."""
        started = time.perf_counter()
        result = "error"
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT_SECONDS):
                result = "refused" if await self._reconcile(key) else "success"
        except NotLeadingError:
            raise
        except Exception as error:
            await self._failed(key, error)
        finally:
            self._hands.metrics.reconciled(key, result, time.perf_counter() - started)

    async def _reconcile(self, key: Key) -> list[Refusal]:
        controller = self._controllers[key.kind]
        await self._begin(key, controller.resource)
        manifest = self._world.caches.get(controller.resource, key.namespace, key.name)
        if manifest is None:
            self._forget(key)
            return []
        owner = Owner(resource=controller.resource, manifest=manifest)
        plan = await self._plan(key, controller, manifest)
        if namespace_leaves(self._world.caches, key.namespace):
            plan = _on_leaving(plan, manifest, without_a_drain(self._world.caches, key, owner.uid))
        refusals = await self._carry_out(owner, plan)
        self._look_again(key, owner, plan, refusals)
        return refusals

    async def _begin(self, key: Key, resource: Resource) -> None:
        """Give a new object its conditions before anything can fail: an absent Ready reads as done."""
        manifest = self._world.caches.get(resource, key.namespace, key.name)
        if manifest is None or self._uids.get(key) == manifest["metadata"]["uid"]:
            return
        if not conditions_of(manifest) and "deletionTimestamp" not in manifest["metadata"]:
            owner = Owner(resource=resource, manifest=manifest)
            await self._hands.writer.write_status(owner, status_at_first(manifest, self._now()))
        self._uids[key] = manifest["metadata"]["uid"]

    def _newest(self, owner: Owner) -> Owner:
        """The object after a write of ours: its next write must name the version it has now."""
        metadata = owner.manifest["metadata"]
        held = self._world.caches.get(owner.resource, metadata["namespace"], metadata["name"])
        if held is None or held["metadata"]["uid"] != owner.uid:
            return owner
        return replace(owner, manifest=held)

    async def _plan(self, key: Key, controller: Controller[Any], manifest: Manifest) -> Plan:
        try:
            observed = await controller.observe(key, manifest, self._world)
            plan = controller.plan(observed, self._now())
        except ValidationError as error:
            # Only the kind's own model speaks of the user's object; any other is a failure of ours.
            if error.title != key.kind:
                raise
            return plan_for_invalid_spec(manifest, spec_error_of(error), self._now())
        except SpecError as error:
            return plan_for_invalid_spec(manifest, error, self._now())
        self._hands.scraper.set_targets(_name(key), controller.scrape_targets(observed))
        return plan

    async def _carry_out(self, owner: Owner, plan: Plan) -> list[Refusal]:
        """Finalizers before what they guard, the status after what it tells of, a finalizer off at last."""
        writer = self._hands.writer
        held = {
            f for f in owner.manifest["metadata"].get("finalizers") or () if f.startswith(FINALIZER_PREFIX)
        }
        takes_off = plan.finalizers is not None and set(plan.finalizers) < held
        if plan.finalizers is not None and not takes_off:
            await writer.write_finalizers(owner, plan.finalizers)
        refusals = await writer.carry_out(owner, plan.writes)
        self._controllers[owner.resource.kind].carried_out(owner.manifest)
        done = as_far_as_it_came(owner.manifest, plan, refusals, self._now())
        wait_seconds = await writer.write_status(owner, done.status) if done.status is not None else None
        if wait_seconds:
            self._hands.queue.add_after(_key(owner), wait_seconds)
        if plan.finalizers is not None and takes_off and not refusals:
            await writer.write_finalizers(self._newest(owner), plan.finalizers)
        for event in gathered(done.events):
            await self._hands.recorder.record(owner, event)
        return refusals

    def _look_again(self, key: Key, owner: Owner, plan: Plan, refusals: Sequence[Refusal]) -> None:
        queue = self._hands.queue
        in_the_way = [r.ref for r in refusals if r.reason is RefusalReason.NAME_TAKEN]
        self._hands.wakes.blocked_by(
            key, [Reference(resource_at(ref), ref.namespace, ref.name) for ref in in_the_way]
        )
        for refusal in refusals:
            log.info("write_refused", key=_name(key), reason=refusal.reason, message=refusal.message)
        if any(refusal.reason not in NOT_REPEATED for refusal in refusals):
            queue.retry(key)
        else:
            queue.succeeded(key)
        if any(refusal.reason is RefusalReason.NAMESPACE_TERMINATING for refusal in refusals):
            queue.add_after(key, TERMINATING_LOOK_SECONDS)
        if plan.look_again_seconds is not None:
            queue.add_after(key, plan.look_again_seconds)
        if any(resource_at(refusal.ref) in NEVER_WATCHED for refusal in refusals):
            queue.add_after(key, UNWATCHED_LOOK_SECONDS)
        if in_the_way or is_true({"status": plan.status}, STALLED) or is_true(owner.manifest, STALLED):
            queue.add_after(key, STALLED_LOOK_SECONDS)

    async def _failed(self, key: Key, error: Exception) -> None:
        asked = error.retry_after_seconds if isinstance(error, ApiError) else None
        delay_seconds = self._hands.queue.retry(key, asked or 0.0)
        if isinstance(error, ApiError) and error.status == CONFLICT:
            log.info("reconcile_conflict", key=_name(key), error=str(error))
            return
        expected = isinstance(error, ApiError | TimeoutError | OSError)
        say = log.warning if expected else log.exception
        say(
            "reconcile_failed",
            key=_name(key),
            error=str(error) or repr(error),
            retry_in_seconds=round(delay_seconds, 1),
        )
        if self._hands.queue.failures(key) == 1 or not expected:
            await self._tell(key, error)

    async def _tell(self, key: Key, error: Exception) -> None:
        controller = self._controllers[key.kind]
        manifest = self._world.caches.get(controller.resource, key.namespace, key.name)
        if manifest is None:
            return
        note = f"the reconcile failed and will be repeated: {str(error) or repr(error)}"
        event = Event(type=EventType.WARNING, reason="ReconcileFailed", note=note)
        await self._hands.recorder.record(Owner(resource=controller.resource, manifest=manifest), event)

    def _forget(self, key: Key) -> None:
        self._hands.scraper.set_targets(_name(key), [])
        self._hands.queue.forget(key)
        if (uid := self._uids.pop(key, None)) is not None:
            self._hands.writer.forget(uid)


def _on_leaving(plan: Plan, manifest: Manifest, deletes: Sequence[Delete]) -> Plan:
    """What is still to be done in a namespace that is being deleted; an object's own farewell goes on."""
    if "deletionTimestamp" in manifest["metadata"]:
        return replace(plan, writes=deletes)
    return Plan(writes=deletes, look_again_seconds=TERMINATING_LOOK_SECONDS)


def key_named(name: str) -> Key:
    """The key that `_name` made a word of."""
    return Key(*name.split("/", 2))


def _name(key: Key) -> str:
    return f"{key.kind}/{key.namespace}/{key.name}"


def _key(owner: Owner) -> Key:
    metadata = owner.manifest["metadata"]
    return Key(owner.resource.kind, metadata["namespace"], metadata["name"])
