"""Carries plans out: the only code that changes anything in the cluster.

An apply is skipped when the live object already has its hash and has not drifted. An existing object without
our owner reference is never written. A write that is refused (an exhausted quota, an invalid field, a name
that is taken) or that fails (a webhook that does not answer, a lost connection) is returned as a
`RefusedWrite` and does not stop the other writes. Only the API server's plea to send less (429) does.

The server's answers are put into the caches at once. So is a pod whose creation was not answered
(unanswered.py). `reached` is called before and after each kind of write; tests kill the process there.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

import structlog

from flotilla_operator.api.annotations import refresh_of
from flotilla_operator.cluster.cached_answers import CachedAnswers, OnWritten
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import STATUS_MANAGER, ApiError, Client
from flotilla_operator.cluster.crash_points import CrashPoint, go_on
from flotilla_operator.cluster.drift import drifted
from flotilla_operator.cluster.kept_templates import with_kept_template
from flotilla_operator.cluster.ownership import Reconciled, RefusedError, refusal_reason, refuse_unless_ours
from flotilla_operator.cluster.status import StatusLimiter, without_nulls
from flotilla_operator.cluster.unanswered import ANSWERED_BELOW, UnansweredCreates
from flotilla_operator.cluster.writes import Apply, Create, Delete, DryRun, JsonPatch, Write
from flotilla_operator.objects.hashes import hash_of
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import (
    FLOTILLA_GROUP,
    NEVER_WATCHED,
    PODS,
    Manifest,
    ObjectRef,
    Resource,
    resource_at,
    resource_of,
)
from flotilla_operator.objects.unseen import is_unseen
from flotilla_runtime.contract.failure_texts import what_failed

ANNOTATION_APPLIED_HASH: Final = f"{FLOTILLA_GROUP}/applied-hash"
NOT_FOUND: Final = 404
CONFLICT: Final = 409
INVALID: Final = 422
TOO_MANY_REQUESTS: Final = 429
FINALIZER_PREFIX: Final = f"{FLOTILLA_GROUP}/"
WRITES_AT_ONCE: Final = (
    8  # for one object; several objects are reconciled at once and share the client's pool
)

log = structlog.get_logger(__name__)


class Writer:
    """Sends the writes of plans."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        limiter: StatusLimiter,
        *,
        on_change: OnWritten,
        quiet: bool = False,
        reached: Callable[[CrashPoint], None] = go_on,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._cached = CachedAnswers(caches, on_change, quiet=quiet)
        self._limiter = limiter
        self._reached = reached
        self._unanswered = UnansweredCreates(clock, now)
        self._normalised: dict[str, dict[ObjectRef, tuple[str, frozenset[str]]]] = {}
        self._found_right: dict[str, dict[ObjectRef, tuple[str, str]]] = {}

    async def carry_out(self, owner: Reconciled, writes: Sequence[Write]) -> list[RefusedWrite]:
        """Carry out the writes; returns those that were refused.

        Objects are applied one after another, because a later one may need an earlier one, as a role binding
        needs its role. Creations, patches and deletions that follow each other run in parallel and wait only
        for the objects in their `needs`. A write that needs a refused object is skipped without a refusal of
        its own. So are all that are left when the API server asks to send less.
        """
        refusals: list[RefusedWrite] = []
        for kind, neighbours in groupby(writes, key=_kind):
            at_once = 1 if kind is Apply else WRITES_AT_ONCE
            refusals += await self._together(owner, list(neighbours), refusals, at_once=at_once)
        return refusals

    async def _together(
        self, owner: Reconciled, writes: Sequence[Write], earlier: Sequence[RefusedWrite], *, at_once: int
    ) -> list[RefusedWrite]:
        """Carry out writes, at most `at_once` in parallel, and each after those that it needs.

        `earlier` are refusals of writes before these.
        """
        waiting = iter(enumerate(writes))
        begun: dict[ObjectRef, asyncio.Event] = {}
        refusals: dict[int, RefusedWrite] = {}

        def is_skipped(needed: frozenset[ObjectRef]) -> bool:
            refused = [*earlier, *refusals.values()]
            return any(one.ref in needed or one.asks_for_fewer for one in refused)

        async def work() -> None:
            for position, write in waiting:
                needed = write.needs
                before = [begun[ref] for ref in needed & begun.keys()]
                over = begun[ref_of(write)] = asyncio.Event()
                for one in before:
                    await one.wait()
                if not is_skipped(needed) and (refusal := await self._try(owner, write)) is not None:
                    refusals[position] = refusal
                over.set()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(at_once, len(writes))):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [refusals[position] for position in sorted(refusals)]

    async def _try(self, owner: Reconciled, write: Write) -> RefusedWrite | None:
        try:
            await self._do(owner, write)
        except RefusedError as refused:
            return _refusal(write, refused.reason, refused.message)
        except ApiError as error:
            return _refused_by_server(write, error)
        except (OSError, TimeoutError) as error:
            return _refusal(write, WriteReason.FAILED, f"no answer: {what_failed(error)}")
        return None

    async def write_status(self, owner: Reconciled, status: Mapping[str, Any]) -> float | None:
        """Write the whole status if it changed; returns the seconds to wait if it may not be written yet."""
        wanted = without_nulls(status)
        wait_seconds = self._limiter.wait_seconds(owner.manifest, wanted)
        if wait_seconds is None or wait_seconds > 0:
            return wait_seconds
        metadata = owner.manifest["metadata"]
        manifest = {
            "apiVersion": owner.resource.api_version,
            "kind": owner.resource.kind,
            "metadata": {"namespace": metadata["namespace"], "name": metadata["name"], "uid": owner.uid},
            "status": wanted,
        }
        self._limiter.written(owner.manifest)
        self._reached(CrashPoint.BEFORE_STATUS)
        with self._owner_may_be_gone(owner):
            try:
                live = await self._client.apply(
                    owner.resource, manifest, manager=STATUS_MANAGER, subresource="status"
                )
            except ApiError as error:
                if await self._was_exchanged(owner, error, owner.resource, owner.manifest):
                    return None
                raise
            self._reached(CrashPoint.AFTER_STATUS)
            self._cached.keep(owner.resource, live, owner.key)
        return None

    async def write_finalizers(self, owner: Reconciled, wanted: Sequence[str]) -> None:
        """Make our finalizers of the object exactly these; the finalizers of others stay.

        The API server answers 422 when the tested version has changed, which is raised as a conflict.
        """
        metadata = owner.manifest["metadata"]
        held = metadata.get("finalizers") or []
        others = [name for name in held if not name.startswith(FINALIZER_PREFIX)]
        finalizers = [*others, *wanted]
        if sorted(finalizers) == sorted(held):
            return
        self._reached(CrashPoint.BEFORE_FINALIZERS)
        with self._owner_may_be_gone(owner), _stale_version_is_a_conflict():
            live = await self._client.json_patch(
                owner.resource,
                metadata["namespace"],
                metadata["name"],
                [
                    _same_version(metadata["resourceVersion"]),
                    {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
                ],
            )
            self._reached(CrashPoint.AFTER_FINALIZERS)
            self._cached.keep(owner.resource, live, owner.key)
            _tell("finalizers_written", owner.resource.ref_to(live))

    @contextmanager
    def _owner_may_be_gone(self, owner: Reconciled) -> Iterator[None]:
        """Ignore that the object was deleted between decision and write, and drop it from the cache."""
        try:
            yield
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            self._cached.evict(owner.resource, owner.resource.ref_to(owner.manifest), owner.uid, owner.key)

    def forget(self, uid: str) -> None:
        """Forget an object that is gone."""
        for one in self._unanswered.forget(uid):
            self._cached.evict(PODS, one.ref, one.uid, None)
        self._limiter.forget(uid)
        self._normalised.pop(uid, None)
        self._found_right.pop(uid, None)

    async def _do(self, owner: Reconciled, write: Write) -> None:
        if isinstance(write, JsonPatch | Delete) and self._is_in_doubt(write.ref):
            return
        match write:
            case Apply():
                await self._apply(owner, write)
            case Create():
                await self._create(owner, write)
            case JsonPatch():
                await self._json_patch(owner, write)
            case Delete():
                await self._delete(owner, write)
            case DryRun():
                await self._dry_run(write)

    async def _apply(self, owner: Reconciled, write: Apply) -> None:
        resource = resource_of(write.manifest)
        wanted = write.manifest if write.retained else _owned(write.manifest, owner)
        live = self._find(resource, wanted) or await self._read(owner, resource, wanted)
        wanted = with_kept_template(wanted, live, refresh=refresh_of(owner.manifest), parts=write.parts)
        digest = hash_of(wanted)
        wanted = _annotated(wanted, digest)
        if live is not None:
            refuse_unless_ours(owner, live, retained=write.retained)
            if self._is_applied(owner, digest, wanted, live):
                return
            wanted = _for_this_object_only(wanted, live)
        self._reached(CrashPoint.BEFORE_APPLY)
        try:
            applied = await self._client.apply(resource, wanted, force=live is not None)
        except ApiError as error:
            if live is not None and await self._was_exchanged(owner, error, resource, live):
                raise RefusedError(WriteReason.CONFLICT, error.message) from None
            raise
        self._reached(CrashPoint.AFTER_APPLY)
        self._remember_normalised(owner, digest, wanted, applied)
        self._cached.keep(resource, applied, owner.key)
        _tell("object_applied", resource.ref_to(applied))

    async def _was_exchanged(
        self, owner: Reconciled, error: ApiError, resource: Resource, seen: Manifest
    ) -> bool:
        """Whether an apply was refused because another object has the name now.

        The API server then says that the UID in the apply is invalid, as it says of a wrong field.
        """
        if error.status != INVALID:
            return False
        live = await self._read(owner, resource, seen)
        return live is None or live["metadata"]["uid"] != seen["metadata"]["uid"]

    async def _create(self, owner: Reconciled, write: Create) -> None:
        resource = resource_of(write.manifest)
        wanted = write.manifest if write.retained else _owned(write.manifest, owner)
        live = self._find(resource, wanted)
        if live is None and resource in NEVER_WATCHED:
            live = await self._read(owner, resource, wanted)
        if live is not None:
            refuse_unless_ours(owner, live, retained=write.retained)
            return
        self._reached(CrashPoint.BEFORE_CREATE)
        try:
            with self._kept_in_doubt(owner, resource, wanted):
                created = await self._client.create(resource, wanted)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            if (live := await self._read(owner, resource, wanted)) is None:
                raise RefusedError(
                    WriteReason.CONFLICT,
                    "the object existed and was deleted meanwhile; it is tried again",
                ) from None
            refuse_unless_ours(owner, live, retained=write.retained)
            return
        self._reached(CrashPoint.AFTER_CREATE)
        self._cached.keep(resource, created, owner.key)
        _tell("object_created", resource.ref_to(created))

    async def _dry_run(self, write: DryRun) -> None:
        """Raise what would refuse a new object like this one; nothing is kept of the answer."""
        resource = resource_at(write.ref)
        try:
            await self._client.create(resource, write.manifest, dry_run=True)
        except ApiError as error:
            # Quotas are asked last, so everything else has admitted it.
            if refusal_reason(error) is not WriteReason.QUOTA_EXCEEDED:
                raise
        _tell("object_tried", write.ref)

    @contextmanager
    def _kept_in_doubt(self, owner: Reconciled, resource: Resource, sent: Manifest) -> Iterator[None]:
        """Keep a pod in the cache when nobody can say whether it was created."""
        try:
            yield
        except (ApiError, OSError, TimeoutError, asyncio.CancelledError) as error:
            answered = isinstance(error, ApiError) and error.status < ANSWERED_BELOW
            if resource == PODS and not answered and self._find(resource, sent) is None:
                assumed = self._unanswered.note(owner.uid, resource.ref_to(sent), sent)
                self._cached.keep(resource, assumed, owner.key)
            raise

    async def settle_doubts(self, owner: Reconciled) -> float | None:
        """Ask for the pods whose creation was not answered a minute ago.

        Returns the seconds until the next one has to be asked for; None if none is in doubt.
        """
        for one in self._unanswered.of(owner.uid):
            held = self._cached.find(PODS, one.ref)
            if held is not None and held["metadata"]["uid"] == one.uid:
                if not self._unanswered.is_due(one):
                    continue
                await self._read(owner, PODS, held)
            self._unanswered.settle(owner.uid, one)
        return self._unanswered.next_seconds(owner.uid)

    def _is_in_doubt(self, ref: ObjectRef) -> bool:
        held = self._cached.find(PODS, ref) if ref.plural == PODS.plural else None
        return held is not None and is_unseen(held["metadata"])

    async def _json_patch(self, owner: Reconciled, write: JsonPatch) -> None:
        resource = resource_at(write.ref)
        self._reached(CrashPoint.BEFORE_JSON_PATCH)
        try:
            live = await self._client.json_patch(
                resource,
                write.ref.namespace,
                write.ref.name,
                [*write.guards, *write.operations],
            )
        except ApiError as error:
            if error.status == NOT_FOUND:
                self._cached.evict(resource, write.ref, None, owner.key)
                return
            if error.status in (CONFLICT, INVALID):
                raise RefusedError(WriteReason.CONFLICT, error.message) from None
            raise
        self._reached(CrashPoint.AFTER_JSON_PATCH)
        self._cached.keep(resource, live, owner.key)
        _tell("object_patched", write.ref)

    async def _delete(self, owner: Reconciled, write: Delete) -> None:
        resource = resource_at(write.ref)
        if write.grace_period_seconds is None and self._is_being_deleted(resource, write):
            return
        self._reached(CrashPoint.BEFORE_DELETE)
        try:
            answer = await self._client.delete(
                resource,
                write.ref.namespace,
                write.ref.name,
                uid=write.uid,
                resource_version=write.resource_version,
                propagation=write.propagation,
                grace_period_seconds=write.grace_period_seconds,
            )
        except ApiError as error:
            if error.status not in (NOT_FOUND, CONFLICT):
                raise
            if error.status == CONFLICT and await self._has_changed(owner, write):
                raise RefusedError(WriteReason.CONFLICT, error.message) from None
            self._cached.evict(resource, write.ref, write.uid, owner.key)
            return
        self._reached(CrashPoint.AFTER_DELETE)
        _tell("object_deleted", write.ref)
        if answer.get("kind") == resource.kind and answer["metadata"].get("deletionTimestamp"):
            self._cached.keep(resource, answer, owner.key)
        else:
            self._cached.evict(resource, write.ref, write.uid, owner.key)

    async def _has_changed(self, owner: Reconciled, write: Delete) -> bool:
        """Whether the object is still there, in a newer version than the one to be deleted."""
        held = self._cached.find(resource_at(write.ref), write.ref)
        if write.resource_version is None or held is None:
            return False
        live = await self._read(owner, resource_at(write.ref), held)
        return live is not None and live["metadata"]["uid"] == write.uid

    def _is_being_deleted(self, resource: Resource, write: Delete) -> bool:
        held = self._cached.find(resource, write.ref)
        if held is None or held["metadata"]["uid"] != write.uid:
            return False
        return "deletionTimestamp" in held["metadata"]

    def _is_applied(self, owner: Reconciled, digest: str, wanted: Manifest, live: Manifest) -> bool:
        """Whether the live object equals the wanted one, except for fields that the server normalises."""
        metadata = live["metadata"]
        if (metadata.get("annotations") or {}).get(ANNOTATION_APPLIED_HASH) != digest:
            return False
        ref = resource_of(wanted).ref_to(wanted)
        found_right = self._found_right.setdefault(owner.uid, {})
        version = (digest, metadata["resourceVersion"])
        if found_right.get(ref) == version:
            return True
        known_digest, known_paths = self._normalised.get(owner.uid, {}).get(ref, ("", frozenset[str]()))
        if not drifted(wanted, live) <= (known_paths if known_digest == digest else frozenset()):
            return False
        found_right[ref] = version
        return True

    def _remember_normalised(
        self, owner: Reconciled, digest: str, wanted: Manifest, applied: Manifest
    ) -> None:
        """Remember the paths at which the server's answer to an apply differs from it: they are no drift."""
        paths = drifted(wanted, applied)
        ref = resource_of(wanted).ref_to(wanted)
        if paths:
            self._normalised.setdefault(owner.uid, {})[ref] = (digest, paths)
        else:
            self._normalised.get(owner.uid, {}).pop(ref, None)

    def _find(self, resource: Resource, manifest: Manifest) -> Manifest | None:
        """The object in the cache; resources that are not watched are never in it."""
        return self._cached.find(resource, resource.ref_to(manifest))

    async def _read(self, owner: Reconciled, resource: Resource, manifest: Manifest) -> Manifest | None:
        """The object on the API server, for cases in which the cache may not have it yet."""
        ref = resource.ref_to(manifest)
        try:
            live = await self._client.get(resource, ref.namespace, ref.name)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            self._cached.evict(resource, ref, None, owner.key)
            return None
        self._cached.keep(resource, live, owner.key)
        return live


@contextmanager
def _stale_version_is_a_conflict() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status != INVALID:
            raise
        raise ApiError(status=409, reason="Conflict", message=error.message) from error


def ref_of(write: Write) -> ObjectRef:
    """The object that a write changes."""
    if isinstance(write, Apply | Create):
        return resource_of(write.manifest).ref_to(write.manifest)
    return write.ref


def _kind(write: Write) -> type[Write]:
    """Writes of the same kind are sent together; a patch of an object that this reconcile creates counts as
    one of the creations.
    """
    return Create if isinstance(write, JsonPatch) and write.needs else type(write)


def _refused_by_server(write: Write, error: ApiError) -> RefusedWrite:
    reason = refusal_reason(error)
    said = error.message if reason is not WriteReason.FAILED else what_failed(error)
    return replace(
        _refusal(write, reason, said),
        asks_for_fewer=error.status == TOO_MANY_REQUESTS,
        retry_after_seconds=error.retry_after_seconds,
    )


def _refusal(write: Write, reason: WriteReason, message: str) -> RefusedWrite:
    """A refusal with the server's message, after the field that the user can change."""
    field = write.field if isinstance(write, Apply | Create) else ""
    return RefusedWrite(ref=ref_of(write), reason=reason, message=f"{field}: {message}" if field else message)


def _tell(event: str, ref: ObjectRef) -> None:
    log.info(event, resource=ref.plural, namespace=ref.namespace, name=ref.name)


def _owned(manifest: Manifest, owner: Reconciled) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner.reference]}}


def _annotated(manifest: Manifest, digest: str) -> Manifest:
    metadata = manifest["metadata"]
    annotations = {**(metadata.get("annotations") or {}), ANNOTATION_APPLIED_HASH: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _for_this_object_only(manifest: Manifest, live: Manifest) -> Manifest:
    """Name the UID of the live object, so that the server refuses the apply for any other object."""
    return {**manifest, "metadata": {**manifest["metadata"], "uid": live["metadata"]["uid"]}}


def _same_version(resource_version: str) -> dict[str, Any]:
    return {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version}
