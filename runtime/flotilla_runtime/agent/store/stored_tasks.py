"""Operations on tasks in Redis that gateways and workers share."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import redis.exceptions
from redis.asyncio import Redis

from flotilla_runtime.agent import journal
from flotilla_runtime.agent.conversations import Message, said_in
from flotilla_runtime.agent.errors import StoreUnavailableError, UncertainError
from flotilla_runtime.agent.journal import Entry
from flotilla_runtime.agent.protocols import OneEntry
from flotilla_runtime.agent.store.payloads import LARGE_BYTES, ObjectStore, Payloads, apart
from flotilla_runtime.agent.store.quotas import Quotas
from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.agent.store.redis_facts import SECTIONS, RedisFacts
from flotilla_runtime.agent.store.replicas import Replicas
from flotilla_runtime.agent.store.script_values import SCRIPTS, about, script_source, script_text
from flotilla_runtime.agent.store.tool_reports import ToolReports
from flotilla_runtime.agent.store.tool_requests import ToolRequests
from flotilla_runtime.agent.tasks import BUDGET_FIELDS, LoadedTask, TaskRecord, read_budget
from flotilla_runtime.contract import QueueConfig, RedisTopology, TaskKeys


class StoredTasks:
    """A fleet's tasks. With `objects`, large texts are kept there."""

    def __init__(self, client: Redis, config: QueueConfig, objects: ObjectStore | None = None) -> None:
        self.keys: Final = TaskKeys(config.fleet)
        self.tool_reports: Final = ToolReports(client, self.keys)
        self.tool_requests: Final = ToolRequests(client, config)
        self._client = client
        self._config = config
        self._replicas = Replicas(client, self.keys.confirmations)
        self._quotas = Quotas(client, config)
        self._payloads = Payloads(client, self.keys, objects)
        self._scripts = {name: client.register_script(script_source(name)) for name in SCRIPTS}

    async def load(self, task_id: str) -> LoadedTask | None:
        """A task and its journal as they are now, with its input but no other value that is kept apart."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(self.keys.task(task_id))
            pipeline.lrange(self.keys.journal(task_id), 0, -1)
            pipeline.time()
            fields, entries, (seconds, microseconds) = await asked(pipeline.execute())
        if not fields:
            return None
        record = await self._payloads.whole_record(TaskRecord.of(fields))
        shown = [fields.get(name) for name in BUDGET_FIELDS]
        if record.root is not None:
            shown = await asked(self._client.hmget(self.keys.task(record.root), list(BUDGET_FIELDS)))
        return LoadedTask(
            record=record,
            entries=tuple(map(journal.decode, entries)),
            history=await self._history(record),
            read_at=int(seconds) * 1000 + int(microseconds) // 1000,
            budget=read_budget(shown),
        )

    async def records(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """The records of these tasks, without those that no longer exist."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for task_id in task_ids:
                pipeline.hgetall(self.keys.task(task_id))
            found = await asked(pipeline.execute())
        return [await self._payloads.whole_record(TaskRecord.of(fields)) for fields in found if fields]

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        """An entry of this task with its value, also if that is kept apart. Raises BrokenEntryError."""
        return await self._payloads.whole(task_id, entry)

    async def facts(self) -> RedisFacts:
        """Read the facts of Redis; all is unknown where it refuses to tell them."""
        try:
            info = await asked(self._client.info(*SECTIONS))
        except redis.exceptions.NoPermissionError:
            info = {}
        fails_over = self._config.topology is not RedisTopology.SINGLE
        return RedisFacts.of(info, self._config.max_stored_mib, fails_over=fails_over)

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless Redis answers."""
        await asked(self._client.ping())

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _history(self, record: TaskRecord) -> tuple[Message, ...]:
        """Read the messages before the task: those of its conversation, and those it was submitted with."""
        if record.conversation is None:
            return record.history
        turns: Any = await asked(self._client.lrange(self.keys.turns(record.conversation), 0, -1))
        return (*said_in(turns), *record.history)

    async def _parts(self, task_id: str, entry: Entry) -> tuple[str, str, str]:
        """An entry, what the script must know of it, and the text that Redis keeps apart from it."""
        split, said, text = apart(entry), about(task_id, entry), ""
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
        share = await asked(self._quotas.share())
        return "" if share is None else share

    async def _run(self, script: str, *arguments: Any) -> Any:
        keys = [self.keys.leases]
        return await asked(
            self._scripts[script](keys=keys, args=[self.keys.prefix, *map(script_text, arguments)])
        )

    async def _run_confirmed(self, script: str, *arguments: Any) -> Any:
        """The answer, once a replica has the write. Raises UncertainError where it may have been done."""
        keys, values = [self.keys.leases], [self.keys.prefix, *map(script_text, arguments)]
        may_be_done = False

        async def write(one: Redis) -> Any:
            nonlocal may_be_done
            may_be_done = True
            try:
                return await self._scripts[script](keys=keys, args=values, client=one)
            except redis.exceptions.ResponseError:
                may_be_done = False  # Redis has refused it
                raise

        try:
            return await asked(self._replicas.confirmed(write))
        except StoreUnavailableError as problem:
            if not may_be_done or isinstance(problem, UncertainError):
                raise
            raise UncertainError(problem.problem) from problem
