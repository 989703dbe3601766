"""One reconcile: observe, decide, act and tell; and what happens when it fails.

A failed reconcile never ends the loop. A write that was refused or failed becomes a condition, and so does
what the user can mend. Everything else is repeated with backoff. Only a lost lease is raised further.
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
from flotilla_operator.cluster.ownership import Reconciled
from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.cluster.writer import FINALIZER_PREFIX, Writer
from flotilla_operator.cluster.writes import Acts, Delete, Event, EventType, Told
from flotilla_operator.controllers.conditions import STALLED, conditions_of, is_true
from flotilla_operator.controllers.controller import Controller, World
from flotilla_operator.controllers.errors import SpecError
from flotilla_operator.controllers.failures import (
    corrected,
    spec_error_of,
    status_at_first,
    told_of_invalid_spec,
)
from flotilla_operator.controllers.leaving import namespace_leaves, without_a_drain
from flotilla_operator.controllers.steering import SteeringLoop
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import NEVER_WATCHED, Key, Manifest, Reference, Resource, resource_at
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import Scraper
from flotilla_runtime.contract.failure_texts import what_failed

RECONCILE_TIMEOUT_SECONDS: Final = 120.0
STALLED_LOOK_SECONDS: Final = 600.0
UNWATCHED_LOOK_SECONDS: Final = 30.0  # for resources that are not watched, such as secrets
TERMINATING_LOOK_SECONDS: Final = 30.0
# These end with an event that wakes the key or with a person's action; the others are repeated with backoff.
NOT_REPEATED: Final = frozenset({WriteReason.NAME_TAKEN, WriteReason.NAMESPACE_TERMINATING})
# Someone else changed the object in the meantime. That is no failure; the reconcile is repeated.
CONFLICT: Final = 409

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """The parts that a reconcile uses to act."""

    queue: KeyedQueue
    writer: Writer
    recorder: Recorder
    scraper: Scraper
    steering: SteeringLoop
    wakes: Wakes
    metrics: Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Writes of a reconcile, and its reports once the answers are there."""

    acts: Acts
    tell: Callable[[Sequence[RefusedWrite]], Told]


class Reconciler:
    """Reconciles the keys of the queue. Each running `work` reconciles one key at a time."""

    def __init__(
        self,
        controllers: Sequence[Controller[Any, Any]],
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

    def begin(self) -> None:
        """Reconcile again after a drain."""
        self._draining.clear()

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
        """Start no further reconcile, and wait this long for the running ones to end."""
        self._draining.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running:  # noqa: ASYNC110 - half a second at most, once in a process
                    await asyncio.sleep(0.01)

    async def attempt(self, key: Key) -> None:
        """Reconcile one key. A failure is recorded and repeated; only a lost lease is raised."""
        started = time.perf_counter()
        result = "error"
        try:
            async with asyncio.timeout(RECONCILE_TIMEOUT_SECONDS):
                result = _result(await self._reconcile(key))
        except NotLeadingError:
            raise
        except Exception as error:
            await self._failed(key, error)
        finally:
            self._hands.metrics.reconciled(key, result, time.perf_counter() - started)

    async def _reconcile(self, key: Key) -> list[RefusedWrite]:
        controller = self._controllers[key.kind]
        await self._begin(key, controller.resource)
        manifest = self._world.caches.get(controller.resource, key.namespace, key.name)
        if manifest is None:
            refusals = await self._clear_up(key, controller)
            self._forget(key)
            return refusals
        now = self._now()
        owner = Reconciled(resource=controller.resource, manifest=manifest)
        doubt_seconds = await self._hands.writer.settle_doubts(owner)
        step = await self._decided(key, controller, manifest, now)
        for other, seconds in step.acts.wakes.items():
            self._wake_other(other, seconds)
        if namespace_leaves(self._world.caches, key.namespace):
            deletes = without_a_drain(self._world.caches, key, owner.uid)
            step = _on_leaving(step, manifest, deletes, now)
        refusals, told = await self._carry_out(owner, step)
        self._look_again(key, owner, step.acts, told, refusals)
        if doubt_seconds is not None:
            self._hands.queue.add_after(key, doubt_seconds)
        return refusals

    async def _clear_up(self, key: Key, controller: Controller[Any, Any]) -> list[RefusedWrite]:
        """Delete what an object that is gone has left; repeated after a while where that failed."""
        deletes = controller.left_behind(key, self._world)
        if not deletes:
            return []
        gone = {"metadata": {"namespace": key.namespace, "name": key.name, "uid": ""}}
        owner = Reconciled(resource=controller.resource, manifest=gone)
        refusals = await self._hands.writer.carry_out(owner, deletes)
        if refusals:
            log.warning("not_cleared_up", key=_name(key), message=refusals[0].message)
            self._hands.queue.add_after(key, UNWATCHED_LOOK_SECONDS)
        return refusals

    def _wake_other(self, key: Key, seconds: float) -> None:
        if seconds > 0:
            self._hands.queue.add_after(key, seconds)
        else:
            self._hands.queue.add(key)

    async def _begin(self, key: Key, resource: Resource) -> None:
        """Write the first conditions of a new object before anything can fail.

        kstatus takes an object without a Ready condition for finished.
        """
        manifest = self._world.caches.get(resource, key.namespace, key.name)
        if manifest is None or self._uids.get(key) == manifest["metadata"]["uid"]:
            return
        if not conditions_of(manifest) and "deletionTimestamp" not in manifest["metadata"]:
            owner = Reconciled(resource=resource, manifest=manifest)
            await self._hands.writer.write_status(owner, status_at_first(manifest, self._now()))
        self._uids[key] = manifest["metadata"]["uid"]

    def _newest(self, owner: Reconciled) -> Reconciled:
        """The object as it is after our last write: the next write must name its current version."""
        metadata = owner.manifest["metadata"]
        held = self._world.caches.get(owner.resource, metadata["namespace"], metadata["name"])
        if held is None or held["metadata"]["uid"] != owner.uid:
            return owner
        return replace(owner, manifest=held)

    async def _decided(
        self, key: Key, controller: Controller[Any, Any], manifest: Manifest, now: datetime
    ) -> Step:
        try:
            facts = await controller.observe(key, manifest, self._world, now)
            decision = controller.decide(facts, now)
            acts = controller.act(facts, decision, now)
        except ValidationError as error:
            # An error of the kind's own model is about the user's object. Any other is a bug of ours.
            if error.title != key.kind:
                raise
            return _invalid(manifest, spec_error_of(error), now)
        except SpecError as error:
            return _invalid(manifest, error, now)
        steering = controller.steering(facts, decision)
        self._hands.scraper.set_targets(_name(key), steering.targets)
        self._hands.steering.follow(key, steering)
        return Step(acts=acts, tell=lambda refusals: controller.tell(facts, decision, refusals, now))

    async def _carry_out(self, owner: Reconciled, step: Step) -> tuple[list[RefusedWrite], Told]:
        """Add finalizers before the writes that they guard, write the status after them, and remove
        finalizers last.
        """
        writer, acts = self._hands.writer, step.acts
        held = {
            f for f in owner.manifest["metadata"].get("finalizers") or () if f.startswith(FINALIZER_PREFIX)
        }
        takes_off = acts.finalizers is not None and set(acts.finalizers) < held
        if acts.finalizers is not None and not takes_off:
            await writer.write_finalizers(owner, acts.finalizers)
        refusals = await writer.carry_out(owner, acts.writes)
        self._controllers[owner.resource.kind].carried_out(owner.manifest)
        told = step.tell(refusals)
        wait_seconds = await writer.write_status(owner, told.status) if told.status is not None else None
        self._controllers[owner.resource.kind].was_told(owner.manifest)
        if wait_seconds:
            self._hands.queue.add_after(owner.key, wait_seconds)
        if acts.finalizers is not None and takes_off and not refusals:
            await writer.write_finalizers(self._newest(owner), acts.finalizers)
        for event in gathered(told.events):
            await self._hands.recorder.record(owner, event)
        return refusals, told

    def _look_again(
        self, key: Key, owner: Reconciled, acts: Acts, told: Told, refusals: Sequence[RefusedWrite]
    ) -> None:
        queue = self._hands.queue
        in_the_way = [r.ref for r in refusals if r.reason is WriteReason.NAME_TAKEN]
        self._hands.wakes.blocked_by(
            key, [Reference(resource_at(ref), ref.namespace, ref.name) for ref in in_the_way]
        )
        for refusal in refusals:
            say = log.warning if refusal.reason is WriteReason.FAILED else log.info
            say("write_refused", key=_name(key), reason=refusal.reason, message=refusal.message)
        if any(refusal.reason not in NOT_REPEATED for refusal in refusals):
            queue.retry(key, max((r.retry_after_seconds or 0.0 for r in refusals), default=0.0))
        else:
            queue.succeeded(key)
        if any(refusal.reason is WriteReason.NAMESPACE_TERMINATING for refusal in refusals):
            queue.add_after(key, TERMINATING_LOOK_SECONDS)
        if acts.look_again_seconds is not None:
            queue.add_after(key, acts.look_again_seconds)
        if any(resource_at(refusal.ref) in NEVER_WATCHED for refusal in refusals):
            queue.add_after(key, UNWATCHED_LOOK_SECONDS)
        if in_the_way or is_true({"status": told.status}, STALLED) or is_true(owner.manifest, STALLED):
            queue.add_after(key, STALLED_LOOK_SECONDS)

    async def _failed(self, key: Key, error: Exception) -> None:
        asked = error.retry_after_seconds if isinstance(error, ApiError) else None
        delay_seconds = self._hands.queue.retry(key, asked or 0.0)
        if isinstance(error, ApiError) and error.status == CONFLICT:
            log.info("reconcile_conflict", key=_name(key), error=what_failed(error))
            return
        expected = isinstance(error, ApiError | TimeoutError | OSError)
        say = log.warning if expected else log.exception
        say(
            "reconcile_failed",
            key=_name(key),
            error=what_failed(error),
            retry_in_seconds=round(delay_seconds, 1),
        )
        if self._hands.queue.failures(key) == 1 or not expected:
            await self._tell(key, error)

    async def _tell(self, key: Key, error: Exception) -> None:
        controller = self._controllers[key.kind]
        manifest = self._world.caches.get(controller.resource, key.namespace, key.name)
        if manifest is None:
            return
        note = f"the reconcile failed and is repeated: {what_failed(error)}"
        event = Event(type=EventType.WARNING, reason="ReconcileFailed", note=note)
        await self._hands.recorder.record(Reconciled(resource=controller.resource, manifest=manifest), event)

    def _forget(self, key: Key) -> None:
        self._hands.scraper.set_targets(_name(key), [])
        self._hands.steering.forget(key)
        self._hands.queue.forget(key)
        if (uid := self._uids.pop(key, None)) is not None:
            self._hands.writer.forget(uid)


def _result(refusals: Sequence[RefusedWrite]) -> str:
    """The outcome of a reconcile, as the metric names it."""
    if any(refusal.reason is WriteReason.FAILED for refusal in refusals):
        return "error"
    return "refused" if refusals else "success"


def _on_leaving(step: Step, manifest: Manifest, deletes: Sequence[Delete], now: datetime) -> Step:
    """The step in a namespace that is being deleted: delete the pods. An object that is being deleted itself
    keeps the rest of its step.
    """
    if "deletionTimestamp" in manifest["metadata"]:
        return replace(step, acts=replace(step.acts, writes=deletes))
    acts = Acts(writes=deletes, look_again_seconds=TERMINATING_LOOK_SECONDS)
    return Step(acts=acts, tell=lambda refusals: corrected(Told(), refusals, manifest, now))


def _invalid(manifest: Manifest, error: SpecError, now: datetime) -> Step:
    """Change no object, and report what is wrong with the spec."""
    told = told_of_invalid_spec(manifest, error, now)
    return Step(acts=Acts(), tell=lambda refusals: corrected(told, refusals, manifest, now))


def key_named(name: str) -> Key:
    """The key for a name that `_name` made."""
    return Key(*name.split("/", 2))


def _name(key: Key) -> str:
    return f"{key.kind}/{key.namespace}/{key.name}"
