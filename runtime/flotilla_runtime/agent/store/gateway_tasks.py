"""The tasks in Redis for gateways: they submit, decide, read and forget.

Reads do not check a token.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from flotilla_runtime.agent import journal
from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.agent.journal import Entry, Other, Resolved, TaskStatus
from flotilla_runtime.agent.store.payloads import is_large, payload_field, payload_text
from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.agent.store.script_values import fields_of_replay, read_approval, to_decide
from flotilla_runtime.agent.store.stored_tasks import StoredTasks
from flotilla_runtime.agent.tasks import (
    SUMMARY_FIELDS,
    CancelOutcome,
    Decision,
    NewTask,
    ResolveOutcome,
    SignalOutcome,
    StoreFigures,
    Submission,
    SubmitOutcome,
    TaskRecord,
    Verdict,
    caller_key,
    idempotency_hash,
    read_summary,
)
from flotilla_runtime.contract import Priority

FORGET_AT_ONCE: Final = 200
# Of one task, until its agent takes them.
MOST_SIGNALS: Final = 100
MOST_SIGNAL_BYTES: Final = 256 * 1024


class GatewayTasks(StoredTasks):
    """A fleet's tasks for its gateways."""

    async def submit(self, task: NewTask) -> Submission:
        """Store a task and put it in the queue, both or neither.

        Raises UncertainError when nobody knows whether the task is stored, and UnconfirmedError when it is,
        but no replica has said in time that it has it.
        """
        outcome, task_id = await self._run_confirmed(
            "submit",
            task.id,
            task.priority,
            caller_key(task.tenant or task.caller),
            caller_key(task.caller),
            idempotency_hash(task.idempotency_key),
            json.dumps(await asked(self._quotas.now())),
            json.dumps(await self._fields(task)),
        )
        return Submission(outcome=SubmitOutcome(outcome), id=task_id)

    async def replay(self, source: TaskRecord, task: NewTask, begun: Sequence[Entry]) -> Submission:
        """Store a task of the same caller and tenant as `source`, which begins with these entries.

        Keys of replays are apart from those of submissions. Raises as `submit` does.
        """
        key = idempotency_hash(task.idempotency_key)
        outcome, task_id = await self._run_confirmed(
            "submit",
            task.id,
            task.priority,
            caller_key(source.tenant) if source.tenant else source.caller,
            source.caller,
            key and f"replay:{key}",
            json.dumps(await asked(self._quotas.now())),
            json.dumps({**await self._fields(task), **fields_of_replay(source.id, begun)}),
            *map(journal.encode, begun),
        )
        return Submission(outcome=SubmitOutcome(outcome), id=task_id)

    async def summaries(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """The same records without input, metadata, limits and results, which may be long."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for task_id in task_ids:
                pipeline.hmget(self.keys.task(task_id), list(SUMMARY_FIELDS))
            found = await asked(pipeline.execute())
        return [record for values in found if (record := read_summary(values)) is not None]

    async def to_approve(self, task_ids: Sequence[str]) -> dict[str, frozenset[str]]:
        """The calls on which somebody may decide now, by task, whatever else it does."""
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for task_id in task_ids:
                pipeline.hget(self.keys.task(task_id), "status")
                pipeline.hgetall(self.keys.asked(task_id))
                pipeline.hkeys(self.keys.decided(task_id))
            (seconds, microseconds), *told = await asked(pipeline.execute())
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        each = zip(task_ids, told[::3], told[1::3], told[2::3], strict=True)
        return {
            task_id: calls
            for task_id, status, waits, decided in each
            if status and not TaskStatus(status).is_final and (calls := to_decide(waits, decided, now_ms))
        }

    async def progress(self, task_id: str, place: int, count: int) -> tuple[TaskStatus | None, list[Entry]]:
        """A task's status, None when it no longer exists, and up to `count` entries of its journal."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(self.keys.task(task_id), "status")
            pipeline.lrange(self.keys.journal(task_id), place, place + count - 1)
            status, texts = await asked(pipeline.execute())
        return TaskStatus(status) if status else None, [_shown(text) for text in texts]

    async def ids(
        self, caller: str | None, before: str | None, count: int, *, approvals: bool = False
    ) -> list[str]:
        """The task ids of one caller or of all, newest first, starting after the id `before`.

        With `approvals`, those of all tasks of which somebody may decide on a call, and perhaps some of which
        nobody may any more.
        """
        key = self.keys.tasks if caller is None else self.keys.tasks_of(caller_key(caller))
        key = self.keys.approvals if approvals else key
        start = "+" if before is None else f"({before}"
        found = await asked(self._client.zrange(key, start, "-", bylex=True, desc=True, offset=0, num=count))
        return [str(task_id) for task_id in found]

    async def resolve(
        self, task_id: str, call: str, *, happened: bool, by: str, result: Any = None
    ) -> ResolveOutcome:
        """Say whether an Unsafe call happened, for which the task waits; the task then goes on."""
        entry = Resolved(at=0, call=call, happened=happened, by=by, result=result)
        parts = await self._parts(task_id, entry)
        outcome = await self._run("resolve", task_id, call, happened, *parts, await self._share())
        return ResolveOutcome(outcome)

    async def approve(self, task_id: str, call: str, decision: Decision) -> Verdict:
        """Decide on a call that waits for approval, unless somebody has; the task then goes on."""
        told = {"approved": decision.approved, "by": decision.by, "comment": decision.comment}
        return read_approval(await self._run("approve", task_id, call, json.dumps(told)))

    async def signal(self, task_id: str, name: str, value: Any, request: str) -> SignalOutcome:
        """Give a task a signal. `request` names this one: sent again under it, it stays one signal."""
        text = json.dumps(value, ensure_ascii=False)
        quota = json.dumps(await asked(self._quotas.now()))
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

    async def admit(self, most: int | None, hold_seconds: float) -> None:
        """Let so many tasks be at work, None for any number. Without a repetition it ends by itself."""
        if most is None:
            await asked(self._client.delete(self.keys.admitted))
        else:
            await asked(self._client.set(self.keys.admitted, most, px=round(hold_seconds * 1000)))

    async def queue_lengths(self) -> tuple[int, int]:
        """The numbers of waiting and of running tasks."""
        async with self._client.pipeline(transaction=True) as pipeline:
            for priority in Priority:
                pipeline.zcard(self.keys.waiting(priority))
                pipeline.xlen(self.keys.stream(priority))
            pipeline.zcard(self.keys.leases)
            pipeline.zcard(self.keys.old_leases)
            *waiting, running, before = await asked(pipeline.execute())
        return sum(waiting), running + before

    async def figures(self) -> StoreFigures:
        """Count what there is now. Tasks whose timer has rung are put back into the queue first."""
        return StoreFigures.of(json.loads(await self._run("status")))

    async def oldest_waiting_ms(self) -> int | None:
        """For how long the oldest waiting task has waited; None when none waits."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.time()
            for priority in Priority:
                pipeline.zrange(self.keys.waiting(priority), 0, 0, withscores=True)
                pipeline.xrange(self.keys.stream(priority), count=1)
            (seconds, microseconds), *heads = await asked(pipeline.execute())
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
            found = await asked(pipeline.execute())
        return [{name: int(value) for name, value in window.items()} for window in found]

    async def _fields(self, task: NewTask) -> dict[str, str]:
        fields = task.fields()
        if self._payloads.are_elsewhere and is_large(task.input):
            payload, fields["input"] = await self._payloads.kept(task.id, task.input)
            fields[payload_field("input")] = payload_text(payload)
        return fields


def _shown(text: str) -> Entry:
    """An entry for callers. One that this version cannot read is none of theirs."""
    try:
        return journal.decode(text)
    except BrokenEntryError:
        return Other(at=0)
