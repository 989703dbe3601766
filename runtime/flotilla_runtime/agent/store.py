"""Tasks in Redis: every write is one Lua script, and every script of a worker checks its fencing token.

Callers can rely on this: a submission is on disk before it returns (the managed Redis syncs before it
answers); a write with a stale token changes nothing; no token is granted twice, also after a failover that
lost writes; every write can be sent again when its answer was lost.
Reads do not check a token. redis-py's own retries are off, because only the caller knows for how long a
request is still worth repeating.
"""

import json
import os
import secrets
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from flotilla_runtime.agent import journal
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import Entry, TaskStatus
from flotilla_runtime.agent.protocols import Finish, Written
from flotilla_runtime.agent.redis_errors import as_unavailable
from flotilla_runtime.agent.story import read
from flotilla_runtime.agent.tasks import (
    CancelOutcome,
    Claim,
    LoadedTask,
    NewTask,
    Renewal,
    Submission,
    SubmitOutcome,
    TaskRecord,
    caller_key,
    idempotency_hash,
)
from flotilla_runtime.contract import ENV_REDIS_URL, Priority, QueueConfig, TaskKeys

Answer = TypeVar("Answer")

CONNECT_TIMEOUT_SECONDS: Final = 2.0
ANSWER_TIMEOUT_SECONDS: Final = 5.0
MOST_CONNECTIONS: Final = 64
FORGET_AT_ONCE: Final = 200
# Redis' scripts count exactly up to 2^53, so a task may be claimed 100,000 times.
MOST_TOKEN_STEP: Final = 2**36


class PasswordFile(CredentialProvider):
    """The password in a mounted secret, read for each connection, so that a new one needs no restart."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get_credentials(self) -> tuple[str]:
        """The password in the form that redis-py expects."""
        return (self._path.read_text(encoding="utf-8").strip(),)


def connect(config: QueueConfig, environment: Mapping[str, str] = os.environ) -> "Redis":
    """A client for the fleet's Redis; nothing is sent yet."""
    pool = BlockingConnectionPool.from_url(
        _readable(config.url or environment[ENV_REDIS_URL]),
        credential_provider=PasswordFile(Path(config.password_path)) if config.password_path else None,
        decode_responses=True,
        max_connections=MOST_CONNECTIONS,
        timeout=ANSWER_TIMEOUT_SECONDS,
        socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_timeout=ANSWER_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=15,
    )
    return Redis(connection_pool=pool)


def new_request() -> str:
    """A name for a claim, which no other claim has."""
    return secrets.token_hex(16)


def _readable(url: str) -> str:
    """The URL unchanged. The error of an unreadable port shows no part of the password."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(
            "the URL of Redis has no readable port; percent-encode the special characters of the password"
        ) from None
    return url


class TaskStore:
    """A fleet's tasks."""

    def __init__(self, client: Redis, config: QueueConfig) -> None:
        self.keys: Final = TaskKeys(config.fleet)
        self._client = client
        self._config = config
        folder = files("flotilla_runtime.agent") / "scripts"
        prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
        names = ("submit", "claim", "append", "renew", "finish", "release", "cancel", "forget")
        self._scripts = {
            name: client.register_script(f"{prelude}\n{(folder / f'{name}.lua').read_text(encoding='utf-8')}")
            for name in names
        }

    @property
    def lease_ms(self) -> int:
        """For how long a worker holds a task without renewing its lease."""
        return round(self._config.lease_seconds * 1000)

    async def submit(self, task: NewTask) -> Submission:
        """Store a task and put it in the queue, both or neither."""
        outcome, task_id = await self._run(
            "submit",
            task.id,
            task.priority,
            caller_key(task.tenant or task.caller),
            caller_key(task.caller),
            idempotency_hash(task.idempotency_key),
            self._config.max_waiting,
            json.dumps(task.fields()),
        )
        return Submission(outcome=SubmitOutcome(outcome), id=task_id)

    async def claim(self, worker: str, wanted: int, request: str | None = None) -> list[Claim]:
        """Claim up to `wanted` tasks: first those whose lease has ended, then interactive, then batch.

        Each tenth task from the queue is a batch task where one waits. Tenants take turns, and in a tenant's
        turn its callers do.

        `request` names this claim. When its answer was lost, the same request gets the same tasks.
        """
        named = request or new_request()
        step = 1 + secrets.randbelow(MOST_TOKEN_STEP)
        granted = await self._run("claim", worker, self.lease_ms, wanted, named, step)
        return [Claim(id=task_id, token=int(token)) for task_id, token in granted]

    async def wait_for_work(self, seconds: float) -> None:
        """Return when a task was submitted that woke no other worker, or after this time."""
        await self._asked(self._client.blpop([self.keys.calls], timeout=seconds))

    async def load(self, task_id: str) -> LoadedTask | None:
        """A task and its journal as they are now."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(self.keys.task(task_id))
            pipeline.lrange(self.keys.journal(task_id), 0, -1)
            pipeline.time()
            fields, entries, (seconds, microseconds) = await self._asked(pipeline.execute())
        if not fields:
            return None
        return LoadedTask(
            record=TaskRecord.of(fields),
            entries=tuple(map(journal.decode, entries)),
            read_at=int(seconds) * 1000 + int(microseconds) // 1000,
        )

    async def records(self, task_ids: Sequence[str]) -> list[TaskRecord]:
        """The records of these tasks, without those that no longer exist."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for task_id in task_ids:
                pipeline.hgetall(self.keys.task(task_id))
            found = await self._asked(pipeline.execute())
        return [TaskRecord.of(fields) for fields in found if fields]

    async def progress(self, task_id: str, place: int) -> tuple[TaskStatus | None, list[Entry]]:
        """A task's status, None when it no longer exists, and its journal from this position on."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hget(self.keys.task(task_id), "status")
            pipeline.lrange(self.keys.journal(task_id), place, -1)
            status, texts = await self._asked(pipeline.execute())
        return TaskStatus(status) if status else None, [journal.decode(text) for text in texts]

    async def ids(self, caller: str | None, before: str | None, count: int) -> list[str]:
        """The task ids of one caller or of all, newest first, starting after the id `before`."""
        key = self.keys.tasks if caller is None else self.keys.tasks_of(caller_key(caller))
        start = "+" if before is None else f"({before}"
        found = await self._asked(
            self._client.zrange(key, start, "-", bylex=True, desc=True, offset=0, num=count)
        )
        return [str(task_id) for task_id in found]

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        """Append entries at this position of the journal."""
        texts = [journal.encode(entry) for entry in entries]
        outcome, cancelled = await self._run("append", claim.id, claim.token, self.lease_ms, expected, *texts)
        if outcome != "Written":
            raise LeaseLostError(claim.id)
        return Written(length=expected + len(entries), cancel_requested=bool(cancelled))

    async def renew(self, claims: Iterable[Claim]) -> Renewal:
        """Renew the leases of these tasks."""
        pairs = [part for claim in claims for part in (claim.id, claim.token)]
        lost, cancelled = await self._run("renew", self.lease_ms, *pairs)
        return Renewal(lost=frozenset(lost), cancelled=frozenset(cancelled))

    async def finish(self, claim: Claim, end: Finish) -> None:
        """End the task with its result, or with a partial one."""
        task = await self.load(claim.id)
        story = read(task.entries if task is not None else ())
        shown = {"result": end.result, "partial": end.partial}
        kept = {name: json.dumps(value, ensure_ascii=False) for name, value in shown.items() if value}
        figures = {"steps": story.steps, "tokens": story.used_tokens, "busy": dict(end.busy_ms)}
        outcome = await self._run(
            "finish",
            claim.id,
            claim.token,
            end.status,
            end.reason,
            end.message,
            json.dumps(kept),
            json.dumps(figures),
        )
        if outcome != "Written":
            raise LeaseLostError(claim.id)

    async def release(self, claim: Claim, worker: str) -> None:
        """Hand the task over to the next worker that claims."""
        if await self._run("release", claim.id, claim.token, worker) != "Written":
            raise LeaseLostError(claim.id)

    async def cancel(self, task_id: str) -> CancelOutcome:
        """Cancel a waiting task, or record that a running one is to be cancelled."""
        return CancelOutcome(await self._run("cancel", task_id))

    async def forget_ended(self) -> int:
        """Remove some of the tasks whose results have expired; returns how many."""
        forgotten = await self._run("forget", self._config.result_ttl_seconds * 1000, FORGET_AT_ONCE)
        return int(forgotten)

    async def queue_lengths(self) -> tuple[int, int]:
        """The numbers of waiting and of running tasks."""
        async with self._client.pipeline(transaction=True) as pipeline:
            for priority in Priority:
                pipeline.zcard(self.keys.waiting(priority))
                pipeline.xlen(self.keys.stream(priority))
            pipeline.zcard(self.keys.leases)
            *waiting, running = await self._asked(pipeline.execute())
        return sum(waiting), running

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

    async def ping(self) -> None:
        """Raise `StoreUnavailableError` unless Redis answers."""
        await self._asked(self._client.ping())

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _run(self, script: str, *arguments: Any) -> Any:
        keys = [self.keys.leases]
        return await self._asked(
            self._scripts[script](keys=keys, args=[self.keys.prefix, *map(str, arguments)])
        )

    @staticmethod
    async def _asked(answer: Awaitable[Answer]) -> Answer:
        try:
            return await answer
        except (redis.exceptions.RedisError, OSError) as problem:
            unavailable = as_unavailable(problem)
            if unavailable is None:
                raise
            raise unavailable from problem
