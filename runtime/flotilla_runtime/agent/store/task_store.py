"""Tasks in Redis: every write is one Lua script, and every script of a worker checks its fencing token.

Callers can rely on this: a submission is on disk before it returns (the managed Redis syncs before it
answers); a write with a stale token changes nothing; no token is granted twice, also after a failover that
lost writes; every write can be sent again when its answer was lost.
Where Redis has replicas, a submission is on one of them before it returns. Reads do not check a token.
"""

import json
import secrets
from collections.abc import Awaitable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import redis.exceptions
from redis.asyncio import Redis

from flotilla_runtime.agent import journal
from flotilla_runtime.agent.conversations import Message, messages_text, said_in
from flotilla_runtime.agent.errors import BrokenEntryError, LeaseLostError
from flotilla_runtime.agent.journal import (
    CallOutcome,
    Done,
    EndReason,
    Entry,
    Intended,
    Other,
    Resolved,
    TaskStatus,
)
from flotilla_runtime.agent.protocols import (
    Came,
    ChildEnd,
    Finish,
    OneEntry,
    StateRequest,
    Waits,
    Written,
)
from flotilla_runtime.agent.store.payloads import (
    LARGE_BYTES,
    ObjectStore,
    Payloads,
    apart,
    is_large,
    json_text,
    payload_field,
    payload_text,
)
from flotilla_runtime.agent.store.quotas import Quotas
from flotilla_runtime.agent.store.redis_errors import as_unavailable
from flotilla_runtime.agent.store.redis_facts import SECTIONS, RedisFacts
from flotilla_runtime.agent.store.replicas import Replicas
from flotilla_runtime.agent.store.script_values import (
    SCRIPTS,
    UNREVISED,
    about,
    all_revisions,
    read_approval,
    read_came,
    read_stated,
    read_written,
    script_source,
    script_text,
)
from flotilla_runtime.agent.store.tool_reports import ToolReports
from flotilla_runtime.agent.tasks import (
    BUDGET_FIELDS,
    SUMMARY_FIELDS,
    CancelOutcome,
    Claim,
    Decision,
    LoadedTask,
    NewTask,
    Renewal,
    ResolveOutcome,
    SignalOutcome,
    StoreFigures,
    Submission,
    SubmitOutcome,
    TaskRecord,
    Verdict,
    caller_key,
    child_id,
    idempotency_hash,
    read_budget,
    read_summary,
)
from flotilla_runtime.contract import Effect, Priority, QueueConfig, RedisTopology, TaskKeys

Answer = TypeVar("Answer")

FORGET_AT_ONCE: Final = 200
# Redis' scripts count exactly up to 2^53, so a task may be claimed 100,000 times.
MOST_TOKEN_STEP: Final = 2**36
# Of one tenant and agent.
MOST_STATE_KEYS: Final = 1000
MOST_STATE_BYTES: Final = 4 * 2**20
STATE_IS_FULL: Final = (
    f"the state of this tenant and agent has {MOST_STATE_KEYS} keys, or {MOST_STATE_BYTES} bytes, at most"
)
# Of one task, until its agent takes them.
MOST_SIGNALS: Final = 100
MOST_SIGNAL_BYTES: Final = 256 * 1024


def new_request() -> str:
    """A name for a claim or a write, which no other one has."""
    return secrets.token_hex(8)


class TaskStore:
    """A fleet's tasks. With `objects`, large texts are kept there."""

    def __init__(self, client: Redis, config: QueueConfig, objects: ObjectStore | None = None) -> None:
        self.keys: Final = TaskKeys(config.fleet)
        self.tool_reports: Final = ToolReports(client, self.keys)
        self._client = client
        self._config = config
        self._replicas = Replicas(client, self.keys.confirmations)
        self._quotas = Quotas(client, config)
        self._payloads = Payloads(client, self.keys, objects, self._asked)
        self._scripts = {name: client.register_script(script_source(name)) for name in SCRIPTS}

    @property
    def lease_ms(self) -> int:
        """For how long a worker holds a task without renewing its lease."""
        return round(self._config.lease_seconds * 1000)

    async def submit(self, task: NewTask) -> Submission:
        """Store a task and put it in the queue, both or neither.

        Raises UnconfirmedError when the task is stored, but no replica has said in time that it has it.
        """
        outcome, task_id = await self._run_confirmed(
            "submit",
            task.id,
            task.priority,
            caller_key(task.tenant or task.caller),
            caller_key(task.caller),
            idempotency_hash(task.idempotency_key),
            json.dumps(await self._asked(self._quotas.now())),
            json.dumps(await self._fields(task)),
        )
        return Submission(outcome=SubmitOutcome(outcome), id=task_id)

    async def replay(self, source: TaskRecord, task: NewTask, begun: Sequence[Entry]) -> Submission:
        """Store a task of the same caller and tenant as `source`, which begins with these entries."""
        outcome, task_id = await self._run_confirmed(
            "submit",
            task.id,
            task.priority,
            caller_key(source.tenant) if source.tenant else source.caller,
            source.caller,
            idempotency_hash(None),
            json.dumps(await self._asked(self._quotas.now())),
            json.dumps({**await self._fields(task), "replayOf": source.id}),
            *map(journal.encode, begun),
        )
        return Submission(outcome=SubmitOutcome(outcome), id=task_id)

    async def _fields(self, task: NewTask) -> dict[str, str]:
        fields = task.fields()
        if self._payloads.are_elsewhere and is_large(task.input):
            payload, fields["input"] = await self._payloads.kept(task.id, task.input)
            fields[payload_field("input")] = payload_text(payload)
        return fields

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
        await self._asked(self._client.blpop(calls, timeout=seconds))

    async def load(self, task_id: str) -> LoadedTask | None:
        """A task and its journal as they are now, with its input but no other value that is kept apart."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(self.keys.task(task_id))
            pipeline.lrange(self.keys.journal(task_id), 0, -1)
            pipeline.time()
            fields, entries, (seconds, microseconds) = await self._asked(pipeline.execute())
        if not fields:
            return None
        record = await self._payloads.whole_record(TaskRecord.of(fields))
        shown = [fields.get(name) for name in BUDGET_FIELDS]
        if record.root is not None:
            shown = await self._asked(self._client.hmget(self.keys.task(record.root), list(BUDGET_FIELDS)))
        return LoadedTask(
            record=record,
            entries=tuple(map(journal.decode, entries)),
            history=await self._history(record),
            read_at=int(seconds) * 1000 + int(microseconds) // 1000,
            budget=read_budget(shown),
        )

    async def _history(self, record: TaskRecord) -> tuple[Message, ...]:
        """What was said before the task: in its conversation, and as it was submitted."""
        if record.conversation is None:
            return record.history
        turns: Any = await self._asked(self._client.lrange(self.keys.turns(record.conversation), 0, -1))
        return (*said_in(turns), *record.history)

    async def records(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """The records of these tasks, without those that no longer exist."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for task_id in task_ids:
                pipeline.hgetall(self.keys.task(task_id))
            found = await self._asked(pipeline.execute())
        return [await self._payloads.whole_record(TaskRecord.of(fields)) for fields in found if fields]

    async def summaries(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """The same records without input, metadata, limits and results, which may be long."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for task_id in task_ids:
                pipeline.hmget(self.keys.task(task_id), list(SUMMARY_FIELDS))
            found = await self._asked(pipeline.execute())
        return [record for values in found if (record := read_summary(values)) is not None]

    async def progress(self, task_id: str, place: int, count: int) -> tuple[TaskStatus | None, list[Entry]]:
        """A task's status, None when it no longer exists, and up to `count` entries of its journal."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(self.keys.task(task_id), "status")
            pipeline.lrange(self.keys.journal(task_id), place, place + count - 1)
            status, texts = await self._asked(pipeline.execute())
        return TaskStatus(status) if status else None, [_shown(text) for text in texts]

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        """An entry of this task with its value, also if that is kept apart. Raises BrokenEntryError."""
        return await self._payloads.whole(task_id, entry)

    async def ids(
        self, caller: str | None, before: str | None, count: int, *, approvals: bool = False
    ) -> list[str]:
        """The task ids of one caller or of all, newest first, starting after the id `before`.

        With `approvals`, those of all tasks that wait for approval.
        """
        key = self.keys.tasks if caller is None else self.keys.tasks_of(caller_key(caller))
        key = self.keys.approvals if approvals else key
        start = "+" if before is None else f"({before}"
        found = await self._asked(
            self._client.zrange(key, start, "-", bylex=True, desc=True, offset=0, num=count)
        )
        return [str(task_id) for task_id in found]

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
            json.dumps(about(intent)),
            child_input,
            payload,
            await self._share(),
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
        good = Done(at=intent.at, call=intent.call, outcome=CallOutcome.SUCCEEDED, took_ms=0)
        full = replace(good, outcome=CallOutcome.FAILED, problem=STATE_IS_FULL)
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
            MOST_STATE_KEYS,
            MOST_STATE_BYTES,
            intent.call,
            await self._share(),
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

        It ends as Infrastructure if its caller's share of the bytes has no room for what it has found.
        """
        outcome = await self._finished(claim, finish)
        if outcome == "NoRoom":
            message = (
                "there is no room for the result: the tasks of this caller hold their share of the store "
                "(gateway.callerLimits.queuePercent of queue.maxStoredMiB)"
            )
            failed = replace(
                finish, status=TaskStatus.FAILED, reason=EndReason.INFRASTRUCTURE, message=message
            )
            outcome = await self._finished(claim, replace(failed, result=None, partial=None, said=()))
        if outcome != "Written":
            raise LeaseLostError(claim.id)

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
        figures: dict[str, Any] = {"busy": dict(finish.busy_ms), "calls": dict(finish.calls)}
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

    async def resolve(
        self, task_id: str, call: str, *, happened: bool, by: str, result: Any = None
    ) -> ResolveOutcome:
        """Say whether an Unsafe call happened, for which the task waits; the task then goes on."""
        entry = Resolved(at=0, call=call, happened=happened, by=by, result=result)
        parts = await self._parts(task_id, entry)
        outcome = await self._run("resolve", task_id, call, happened, *parts, await self._share())
        return ResolveOutcome(outcome)

    async def came(self, claim: Claim, call: str, taken: Collection[str]) -> Came | None:
        """What came for this call, which waits for approval or a signal; none of the `taken` signals."""
        return read_came(claim, await self._run("came", claim.id, claim.token, call, *taken))

    async def approve(self, task_id: str, call: str, decision: Decision) -> Verdict:
        """Decide on a call that waits for approval, unless somebody has; the task then goes on."""
        told = {"approved": decision.approved, "by": decision.by, "comment": decision.comment}
        return read_approval(await self._run("approve", task_id, call, json.dumps(told)))

    async def signal(self, task_id: str, name: str, value: Any, request: str) -> SignalOutcome:
        """Give a task a signal. `request` names this one: sent again under it, it stays one signal."""
        text = json.dumps(value, ensure_ascii=False)
        quota = json.dumps(await self._asked(self._quotas.now()))
        bounds = (MOST_SIGNALS, MOST_SIGNAL_BYTES)
        return SignalOutcome(await self._run("signal", task_id, request, name, text, *bounds, quota))

    async def cancel(self, task_id: str) -> CancelOutcome:
        """Cancel a waiting or suspended task, or record that a running one is to be cancelled."""
        return CancelOutcome(await self._run("cancel", task_id))

    async def forget_ended(self) -> int:
        """Remove some of the tasks whose results have expired; returns how many.

        Journals of tasks that succeeded or were cancelled go earlier.
        """
        config = self._config
        forgotten = await self._run(
            "forget",
            config.journal_ttl_seconds * 1000,
            config.result_ttl_seconds * 1000,
            FORGET_AT_ONCE,
            config.dead_letter_ttl_seconds * 1000,
        )
        return int(forgotten)

    async def drop_payloads(self) -> int:
        """Delete what some forgotten tasks have in the object store; returns how many tasks."""
        return await self._payloads.drop(lambda task_id, was_there: self._run("dropped", task_id, was_there))

    async def forget_conversations(self) -> int:
        """Remove some of the conversations whose last task ended long ago; returns how many."""
        ttl_ms = self._config.conversation_ttl_seconds * 1000
        return int(await self._run("forget_conversations", ttl_ms, FORGET_AT_ONCE))

    async def queue_lengths(self) -> tuple[int, int]:
        """The numbers of waiting and of running tasks."""
        async with self._client.pipeline(transaction=True) as pipeline:
            for priority in Priority:
                pipeline.zcard(self.keys.waiting(priority))
                pipeline.xlen(self.keys.stream(priority))
            pipeline.zcard(self.keys.leases)
            pipeline.zcard(self.keys.old_leases)
            *waiting, running, before = await self._asked(pipeline.execute())
        return sum(waiting), running + before

    async def figures(self) -> StoreFigures:
        """What there is now. Tasks whose timer has rung are put back into the queue first."""
        return StoreFigures.of(json.loads(await self._run("status")))

    async def oldest_waiting_ms(self) -> int | None:
        """For how long the oldest waiting task has waited; None when none waits."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.time()
            for priority in Priority:
                pipeline.zrange(self.keys.waiting(priority), 0, 0, withscores=True)
                pipeline.xrange(self.keys.stream(priority), count=1)
            (seconds, microseconds), *heads = await self._asked(pipeline.execute())
        in_lines, in_streams = heads[::2], heads[1::2]
        since = [
            *(int(first[0][1]) for first in in_lines if first),
            *(int(first[0][0].split("-")[0]) for first in in_streams if first),
        ]
        now = int(seconds) * 1000 + int(microseconds) // 1000
        return max(0, now - min(since)) if since else None

    async def windows(self, minutes: Sequence[int]) -> list[dict[str, int]]:
        """The counts of what ended in each of these minutes since the epoch."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for minute in minutes:
                pipeline.hgetall(self.keys.window(minute))
            found = await self._asked(pipeline.execute())
        return [{name: int(value) for name, value in window.items()} for window in found]

    async def facts(self) -> RedisFacts:
        """What Redis says of itself; all is unknown where it refuses to."""
        try:
            info = await self._asked(self._client.info(*SECTIONS))
        except redis.exceptions.NoPermissionError:
            info = {}
        fails_over = self._config.topology is not RedisTopology.SINGLE
        return RedisFacts.of(info, self._config.max_stored_mib, fails_over=fails_over)

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless Redis answers."""
        await self._asked(self._client.ping())

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _parts(self, task_id: str, entry: Entry) -> tuple[str, str, str]:
        """An entry, what the script must know of it, and the text that Redis keeps apart from it."""
        split, said, text = apart(entry), about(entry), ""
        if split.text is not None:
            payload, text = await self._payloads.kept(task_id, split.text)
            reference: dict[str, Any] = {"payload": payload}
            split = replace(split, entry=replace(split.entry, **reference))
            said |= {"payload": payload.hash, "elsewhere": payload.is_elsewhere}
        if self._payloads.are_elsewhere and "room" in said:
            said["room"] = min(said["room"], LARGE_BYTES)
        return journal.encode(split.entry), json.dumps(said), text

    async def _share(self) -> int | str:
        """The bytes that each caller's tasks may hold, for a script."""
        share = await self._asked(self._quotas.share())
        return "" if share is None else share

    async def _run(self, script: str, *arguments: Any) -> Any:
        keys = [self.keys.leases]
        return await self._asked(
            self._scripts[script](keys=keys, args=[self.keys.prefix, *map(script_text, arguments)])
        )

    async def _run_confirmed(self, script: str, *arguments: Any) -> Any:
        keys, values = [self.keys.leases], [self.keys.prefix, *map(script_text, arguments)]

        async def write(one: Redis) -> Any:
            return await self._scripts[script](keys=keys, args=values, client=one)

        return await self._asked(self._replicas.confirmed(write))

    @staticmethod
    async def _asked(answer: Awaitable[Answer]) -> Answer:
        try:
            return await answer
        except (redis.exceptions.RedisError, OSError) as problem:
            unavailable = as_unavailable(problem)
            if unavailable is None:
                raise
            raise unavailable from problem


def _shown(text: str) -> Entry:
    """An entry for callers. One that this version cannot read is none of theirs."""
    try:
        return journal.decode(text)
    except BrokenEntryError:
        return Other(at=0)
