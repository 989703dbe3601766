"""The tasks in Redis for workers: they claim them, write their journals, and end them.

Every write checks the fencing token.
"""

import json
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from flotilla_runtime.agent import journal
from flotilla_runtime.agent.actors import OF_ACTORS, gone_with, unless_kept
from flotilla_runtime.agent.conversations import messages_text
from flotilla_runtime.agent.errors import LeaseLostError, NoRoomError
from flotilla_runtime.agent.journal import CallOutcome, Done, EndReason, Entry, Intended, TaskStatus
from flotilla_runtime.agent.protocols import Came, ChildEnd, Finish, Post, StateRequest, Waits, Written
from flotilla_runtime.agent.store.payloads import is_large, json_text, payload_field, payload_text
from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.agent.store.script_values import (
    UNREVISED,
    about,
    all_revisions,
    read_came,
    read_stated,
    read_written,
)
from flotilla_runtime.agent.store.stored_tasks import StoredTasks
from flotilla_runtime.agent.tasks import Claim, Renewal, child_id
from flotilla_runtime.contract import Effect

# Redis' scripts count exactly up to 2^53, so a task may be claimed 100,000 times.
MOST_TOKEN_STEP: Final = 2**36
# Of one tenant and agent.
MOST_STATE_KEYS: Final = 1000
MOST_STATE_BYTES: Final = 4 * 2**20
# Of all actors of one tenant and agent, those that have ended included.
MOST_ACTOR_KEYS: Final = 10_000
MOST_ACTOR_BYTES: Final = 16 * 2**20
STATE_IS_FULL: Final = "the state of this tenant and agent has {} keys, or {} bytes, at most"


def new_request() -> str:
    """A name for a claim or a write, which no other one has."""
    return secrets.token_hex(8)


class WorkerTasks(StoredTasks):
    """A fleet's tasks for its workers."""

    @property
    def lease_ms(self) -> int:
        """For how long a worker holds a task without renewing its lease."""
        return round(self._config.lease_seconds * 1000)

    async def claim(
        self,
        worker: str,
        wanted: int,
        request: str | None = None,
        revisions: Sequence[str] = (),
    ) -> list[Claim]:
        """Claim up to `wanted` tasks, but no more than this worker's share of what waits.

        First come tasks that were handed over or lost with their worker, then interactive ones, then batch.
        Each tenth task from the queue is a batch task where one waits. Tenants take turns, and in a tenant's
        turn its callers do. Only tasks of these revisions are granted, and such that have none.

        `worker` is the worker's name, with `#` and a mark of this process behind it. `request` names this
        claim. When its answer was lost, the same request gets the same tasks.
        """
        granted = await self._run(
            "claim",
            worker,
            self.lease_ms,
            wanted,
            request or new_request(),
            1 + secrets.randbelow(MOST_TOKEN_STEP),
            self._config.max_attempts,
            journal.FORMAT,
            *all_revisions(revisions),
        )
        return [Claim(id=task_id, token=int(token)) for task_id, token in granted]

    async def leave(self, worker: str, revision: str = UNREVISED) -> None:
        """Say that this worker claims no more, so that the others take its share."""
        await self._run("leave", worker, revision)

    async def wait_for_work(self, seconds: float, revisions: Sequence[str] = ()) -> None:
        """Return when a task came that woke no other worker, or after this time."""
        calls = [self.keys.calls(revision) for revision in all_revisions(revisions)]
        await asked(self._client.blpop(calls, timeout=seconds))

    async def append(
        self, claim: Claim, expected: int, entries: Sequence[Entry], write: str | None = None
    ) -> Written:
        """Append entries at this position; reserve for intents, settle for results, on the tree's root.

        `write` names this write. When its answer was lost, the same name gets the same answer. The intent of
        an Unsafe call is on a replica before this returns, where there is one.
        """
        parts = [part for entry in entries for part in await self._parts(claim.id, entry)]
        is_unsafe = any(isinstance(entry, Intended) and entry.effect is Effect.UNSAFE for entry in entries)
        run = self._run_confirmed if is_unsafe else self._run
        named, share = write or new_request(), await self._share()
        return read_written(
            claim, await run("append", claim.id, claim.token, self.lease_ms, named, expected, share, *parts)
        )

    async def spawn(
        self, claim: Claim, expected: int, intent: Intended, child_input: str, write: str | None = None
    ) -> Written:
        """Write the intent of a spawned task and submit that task, both or neither."""
        child = intent.child or child_id(claim.id, intent.call)
        payload = ""
        if self._payloads.are_elsewhere and is_large(child_input):
            kept, child_input = await self._payloads.kept(child, child_input)
            payload = payload_text(kept)
        answer = await self._run(
            "spawn",
            claim.id,
            claim.token,
            self.lease_ms,
            write or new_request(),
            expected,
            child,
            intent.call,
            journal.encode(replace(intent, child=child)),
            json.dumps(about(claim.id, intent)),
            child_input,
            payload,
            await self._share(),
        )
        return read_written(claim, answer)

    async def deliver(
        self, claim: Claim, expected: int, intent: Intended, post: Post, write: str | None = None
    ) -> Written:
        """Write the intent of a message and submit the task that handles it, both or neither."""
        told = {
            "actor": post.delivery.text,
            "line": post.delivery.to.line,
            "space": post.agent + OF_ACTORS,
            "mailbox": post.mailbox,
            "is_asked": post.is_asked,
        }
        answer = await self._run(
            "deliver",
            claim.id,
            claim.token,
            self.lease_ms,
            write or new_request(),
            expected,
            intent.child or child_id(claim.id, intent.call),
            intent.call,
            journal.encode(intent),
            json.dumps(about(claim.id, intent)),
            post.text,
            await self._share(),
            json.dumps(told),
        )
        return read_written(claim, answer)

    async def state(
        self,
        claim: Claim,
        expected: int,
        intent: Intended,
        request: StateRequest,
        write: str | None = None,
    ) -> Written:
        """Read or write a value of the state, and write the call with its result, both or neither."""
        is_of_actors = request.agent.endswith(OF_ACTORS)
        most_keys = MOST_ACTOR_KEYS if is_of_actors else MOST_STATE_KEYS
        most_bytes = MOST_ACTOR_BYTES if is_of_actors else MOST_STATE_BYTES
        problem = STATE_IS_FULL.format(most_keys, most_bytes)
        good = Done(at=intent.at, call=intent.call, outcome=CallOutcome.SUCCEEDED, took_ms=0)
        full = replace(good, outcome=CallOutcome.FAILED, problem=problem)
        answer = await self._run(
            "state",
            claim.id,
            claim.token,
            self.lease_ms,
            write or new_request(),
            expected,
            request.agent,
            request.operation,
            request.key,
            request.expected,
            request.value,
            journal.encode(intent),
            journal.encode(good),
            journal.encode(full),
            most_keys,
            most_bytes,
            intent.call,
            await self._share(),
            json.dumps([unless_kept(request.key), gone_with(request.key)]) if is_of_actors else "",
        )
        return read_stated(claim, answer)

    async def children(self, ids: Sequence[str]) -> dict[str, ChildEnd]:
        """Those of these tasks that have ended."""
        return {
            record.id: ChildEnd(
                status=record.status,
                reason=record.reason or "",
                message=record.message or "",
                result=record.result,
                partial=record.partial,
            )
            for record in await self.records(ids)
            if record.status.is_final
        }

    async def suspend(self, claim: Claim, expected: int, waits: Waits, write: str | None = None) -> bool:
        """Give the place up; False if what it waits for has come already."""
        outcome = await self._run(
            "suspend",
            claim.id,
            claim.token,
            write or new_request(),
            expected,
            waits.kind,
            waits.call,
            "" if waits.until is None else waits.until,
            json.dumps(waits.children),
        )
        if outcome not in ("Suspended", "Come"):
            raise LeaseLostError(claim.id)
        return bool(outcome == "Suspended")

    async def renew(self, claims: Iterable[Claim]) -> Renewal:
        """Renew the leases of these tasks."""
        pairs = [part for claim in claims for part in (claim.id, claim.token)]
        lost, cancelled = await self._run("renew", self.lease_ms, *pairs)
        return Renewal(lost=frozenset(lost), cancelled=frozenset(cancelled))

    async def finish(self, claim: Claim, finish: Finish) -> None:
        """End the task. Reservations of calls without a result count as used.

        It ends as Infrastructure if its caller's share of the bytes has no room for what it has found; one
        that unwinds does not end then: this raises NoRoomError.
        """
        outcome = await self._finished(claim, finish)
        if outcome == "NoRoom":
            message = (
                "there is no room for the result: the tasks of this caller hold their share of the store "
                "(gateway.callerLimits.queuePercent of queue.maxStoredMiB)"
            )
            if finish.unwinds:
                raise NoRoomError(message)
            failed = replace(
                finish, status=TaskStatus.FAILED, reason=EndReason.INFRASTRUCTURE, message=message
            )
            outcome = await self._finished(claim, replace(failed, result=None, partial=None, said=()))
        if outcome != "Written":
            raise LeaseLostError(claim.id)

    async def release(self, claim: Claim, worker: str, *, is_newer: bool = False) -> None:
        """Hand the task over to the next worker that claims.

        One that `is_newer` waits for a worker that knows more than this one.
        """
        needs = journal.FORMAT + 1 if is_newer else ""
        if await self._run("release", claim.id, claim.token, worker, needs) != "Written":
            raise LeaseLostError(claim.id)

    async def crashed(self, claim: Claim) -> None:
        """Say that an error of ours has stopped the run: the task loses an attempt, and runs on alone."""
        if await self._run("crash", claim.id, claim.token, self._config.max_attempts) != "Written":
            raise LeaseLostError(claim.id)

    async def came(self, claim: Claim, call: str, taken: Collection[str]) -> Came | None:
        """Return the answer for a call that waits for approval or a signal; none of the `taken` signals."""
        return read_came(claim, await self._run("came", claim.id, claim.token, call, *taken))

    async def _finished(self, claim: Claim, finish: Finish) -> str:
        found = {"result": finish.result, "partial": finish.partial}
        shown: dict[str, str] = {}
        payloads: dict[str, str] = {}
        for name, text in {
            name: json_text(value) for name, value in found.items() if value is not None
        }.items():
            if is_large(text):
                payload, payloads[payload.hash] = await self._payloads.kept(claim.id, text)
                shown[payload_field(name)] = payload_text(payload)
            else:
                shown[name] = text
        figures: dict[str, Any] = {
            "busy": dict(finish.busy_ms),
            "waited": dict(finish.waited_ms),
            "calls": dict(finish.calls),
        }
        if finish.said:
            figures["said"] = messages_text(finish.said)
        outcome = await self._run(
            "finish",
            claim.id,
            claim.token,
            finish.status,
            finish.reason,
            finish.message,
            json.dumps(shown),
            json.dumps(figures),
            json.dumps(payloads),
            await self._share(),
        )
        return str(outcome)
