"""Replays an ended task: a new one with its results up to a call.

The new task is the same caller's and the same tenant's, whoever replays it, and has the fleet's present
revision and no higher limits than the fleet. What would happen again is named, in spawned tasks too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Final

from flotilla_runtime.agent import journal
from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.agent.journal import Done, Entry, Intended
from flotilla_runtime.agent.replays import (
    NewerJournalError,
    Replay,
    UnknownCallError,
    effects_of,
    replay_of,
    spawns,
)
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import LoadedTask, NewTask, Submission
from flotilla_runtime.contract import GatewayConfig, TaskLimits
from flotilla_runtime.gateway.auth import Identity
from flotilla_runtime.gateway.problems import FieldProblem, ProblemError, not_found
from flotilla_runtime.gateway.requests import ReplayRequest, named_agent, refused
from flotilla_runtime.gateway.service import TaskService

MOST_KEPT_BYTES: Final = 32 * 2**20
MOST_SPAWNED: Final = 200  # tasks whose journals are read
SHOWN: Final = 20  # effects that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A call that would happen again, and of which tool or kind it is."""

    call: str
    what: str


class Replays:
    """The replays of a fleet's tasks."""

    def __init__(self, service: TaskService, store: TaskStore, config: GatewayConfig) -> None:
        self._service = service
        self._store = store
        self._config = config

    async def replay(
        self, task: str, said: ReplayRequest, caller: Identity, *, may_approve: bool
    ) -> Submission:
        """Store the new task; raises a problem where that cannot be, or would repeat an effect unasked."""
        await self._service.summary(task, caller)
        loaded = await self._loaded(task)
        if loaded is None:
            raise not_found(task)
        if (problem := cannot_be_replayed(loaded)) is not None:
            raise problem
        planned = _planned(await self._readable(loaded, said.from_), said.from_)
        if planned.approvals and not may_approve:
            raise approvals_refusal(planned.approvals[0])
        if not said.repeat_effects and (again := await self._again(planned)):
            raise effects_refusal(again)
        if (problem := length_refusal(planned.kept)) is not None:
            raise problem
        key = said.idempotency_key
        own_key = None if key is None else json.dumps([task, caller.name, key])
        return await self._submitted(loaded, await self._whole(task, planned.kept), own_key)

    async def _readable(self, loaded: LoadedTask, start: str | None) -> Sequence[Entry]:
        """The journal, with how spawned tasks ended, which a plan without a call reads."""
        read = spawns(loaded.entries) if start is None else ()
        return [
            await self._with_status(loaded.record.id, entry)
            if isinstance(entry, Done) and entry.payload is not None and entry.call in read
            else entry
            for entry in loaded.entries
        ]

    async def _with_status(self, task: str, end: Done) -> Done:
        """The end of a spawned task with its status; the rest stays apart."""
        [whole] = await self._whole(task, [end])
        assert isinstance(whole, Done)
        return replace(end, value={"status": whole.value["status"]})

    async def _whole(self, task: str, entries: Sequence[Entry]) -> list[Entry]:
        """These entries with the values that are kept apart, which go with the task of which they are."""
        try:
            return [await self._service.asked(partial(self._store.whole, task, entry)) for entry in entries]
        except BrokenEntryError as problem:
            raise ProblemError(HTTPStatus.GONE, "payload-gone", f"{problem}; submit the task anew") from None

    async def _submitted(self, loaded: LoadedTask, kept: Sequence[Entry], key: str | None) -> Submission:
        record = loaded.record
        new = NewTask(
            id=self._service.new_id(),
            input=record.input,
            caller="",
            tenant=record.tenant,
            limits=within(record.limits, self._config.limits),
            priority=record.priority,
            idempotency_key=key,
            revision=self._config.revision,
            metadata=record.metadata,
            history=loaded.history,
            agent=named_agent(record.agent or None, self._config.agents),
        )
        return await self._service.submitted(new, lambda: self._store.replay(record, new, kept))

    async def _again(self, planned: Replay) -> list[Again]:
        """The calls whose effects would happen again, those of spawned tasks too.

        A spawned task whose journal is gone may have had any effect, so it is named itself.
        """
        again = [_named(intent) for intent in planned.effects]
        left = list(planned.spawned)
        for _ in range(MOST_SPAWNED):
            if not left:
                return again
            spawn = left.pop(0)
            child = await self._loaded(spawn.child) if spawn.child else None
            if child is None or not child.entries:
                again.append(Again(call=spawn.call, what="a spawned task whose journal is gone"))
                continue
            try:
                done = effects_of(child.entries)
            except NewerJournalError:
                again.append(Again(call=spawn.call, what="a spawned task of a newer version"))
                continue
            again += [
                Again(call=f"{spawn.call}: {intent.call}", what=_named(intent).what)
                for intent in done.effects
            ]
            left += done.spawned
        return [*again, *(Again(call=spawn.call, what="a spawned task") for spawn in left)]

    async def _loaded(self, task: str) -> LoadedTask | None:
        try:
            return await self._service.asked(lambda: self._store.load(task))
        except BrokenEntryError as problem:
            detail = f"{problem}; submit the task anew"
            raise ProblemError(HTTPStatus.CONFLICT, "journal-broken", detail) from None


def cannot_be_replayed(loaded: LoadedTask) -> ProblemError | None:
    """Why this task has no replay."""
    record = loaded.record
    if record.actor is not None:
        detail = f"the task is a message for the actor {record.actor.to.name}; have it sent anew"
        return ProblemError(HTTPStatus.CONFLICT, "message", detail)
    if record.parent is not None:
        root = record.root or record.parent
        detail = f"the task was spawned by another one; replay the one that was submitted, {root}"
        return ProblemError(HTTPStatus.CONFLICT, "spawned", detail)
    if not record.status.is_final:
        detail = f"the task has not ended: it is {record.status}; cancel it first, or wait for its end"
        return ProblemError(HTTPStatus.CONFLICT, "not-ended", detail)
    if not loaded.entries:
        detail = (
            "the task's journal is forgotten, so its results cannot be used again; submit the task anew. "
            "queue.journalTTLSeconds and queue.deadLetterTTLSeconds say how long journals are kept"
        )
        return ProblemError(HTTPStatus.CONFLICT, "journal-forgotten", detail)
    return None


def approvals_refusal(call: str) -> ProblemError:
    """The problem for a caller that would take an approval over to another task."""
    return ProblemError(
        HTTPStatus.FORBIDDEN,
        "approval-of-another-task",
        f"{call!r} was approved for the other task alone; replay from it, so that somebody is asked again, "
        "or have somebody replay the task who has the verb approve",
    )


def length_refusal(kept: Sequence[Entry]) -> ProblemError | None:
    """The problem for a replay that would keep too much, before values that are kept apart are read."""
    if sum(map(_bytes_of, kept)) <= MOST_KEPT_BYTES:
        return None
    return ProblemError(
        HTTPStatus.CONFLICT,
        "journal-too-long",
        f"the results before that call have more than {MOST_KEPT_BYTES} bytes; replay from an earlier call",
    )


def effects_refusal(again: list[Again]) -> ProblemError:
    """The problem for a replay that repeats effects without being told to."""
    names = ", ".join(f"{each.call} ({each.what})" for each in again[:SHOWN])
    more = f" and {len(again) - SHOWN} more" if len(again) > SHOWN else ""
    return ProblemError(
        HTTPStatus.CONFLICT,
        "effects-again",
        f"the replay would repeat what has happened, or may have: {names}{more}; replay from a later call, "
        "or say repeatEffects: true",
        fields=[FieldProblem(field=each.call, problem=each.what) for each in again[:SHOWN]],
    )


def within(limits: TaskLimits, fleet: TaskLimits) -> TaskLimits:
    """The limits of a task, none above the fleet's own."""
    lower = {}
    for name in TaskLimits.model_fields:
        wanted, most = getattr(limits, name), getattr(fleet, name)
        if most is not None and (wanted is None or wanted > most):
            lower[name] = most
    return limits.model_copy(update=lower)


def _planned(entries: Sequence[Entry], start: str | None) -> Replay:
    try:
        return replay_of(entries, start)
    except UnknownCallError:
        problem = f"the task has made no call {start!r}; its timeline names the calls"
        raise refused([FieldProblem(field="from", problem=problem)]) from None
    except NewerJournalError:
        raise ProblemError(
            HTTPStatus.CONFLICT,
            "newer-journal",
            "a newer version has written the task's journal; replay it when the gateways have that version",
        ) from None


def _bytes_of(entry: Entry) -> int:
    """The bytes of an entry with its value, also if that is kept apart."""
    payload = getattr(entry, "payload", None)
    return len(journal.encode(entry)) + (0 if payload is None else payload.bytes)


def _named(intent: Intended) -> Again:
    return Again(call=intent.call, what=f"{intent.effect} {intent.kind} {intent.target}".strip())
