"""Texts of more than 64 KiB are kept apart from journals and tasks: in Redis, or in an object store.

Each task has its own, by their hashes, so a task has a text once and never sees another's. The store alone
makes references; nothing that a caller, a tool or a model says is read as one. In Redis a text is written by
the script that writes its reference. To an object store it is written before, so a crash in between leaves an
object that nobody refers to. It goes with the others of its task.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol

from redis.asyncio import Redis

from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.agent.journal import Done, Entry, Intended, Payload, Resolved
from flotilla_runtime.agent.protocols import OneEntry
from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.agent.tasks import PAYLOAD_FIELDS, TaskRecord, read_payload
from flotilla_runtime.contract import TaskKeys

LARGE_BYTES: Final = 64 * 1024
DROP_AT_ONCE: Final = 20  # tasks


class ObjectStore(Protocol):
    """Where objects are kept by name. Each request raises StoreUnavailableError if it is not answered."""

    async def put(self, name: str, body: bytes, sha256: str) -> None:
        """Keep an object, also where there is one of this name."""

    async def get(self, name: str, most_bytes: int) -> bytes | None:
        """An object, up to a byte more than this; None if there is none."""

    async def delete(self, name: str) -> None:
        """Remove an object, if there is one."""

    async def names(self, under: str) -> list[str]:
        """Names that begin so: all, or at least a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """An entry as it is written, and the text that is kept apart from it."""

    entry: Entry
    text: str | None = None


def apart(entry: Entry) -> Apart:
    """An entry without its value, if it is large. Pure."""
    name = _value_of(entry)
    text = json_text(getattr(entry, name)) if name else ""
    if not is_large(text):
        return Apart(entry=entry)
    without: dict[str, Any] = {name: None}
    return Apart(entry=replace(entry, **without), text=text)


def _value_of(entry: Entry) -> str:
    """The field of an entry that may be large; empty if there is none."""
    match entry:
        case Intended():
            return "arguments"
        case Done():
            return "value"
        case Resolved():
            return "result"
    return ""


def is_large(text: str) -> bool:
    """Whether a text is kept apart."""
    return len(text) > LARGE_BYTES // 4 and len(text.encode()) > LARGE_BYTES


def payload_of(text: str) -> Payload:
    """The payload that stands for a text."""
    body = text.encode()
    return Payload(hash=hashlib.sha256(body).hexdigest(), bytes=len(body))


def json_text(value: Any) -> str:
    """A value as it is kept."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Payloads:
    """The texts of a fleet's tasks that are kept apart."""

    def __init__(
        self,
        client: Redis,
        keys: TaskKeys,
        objects: ObjectStore | None,
    ) -> None:
        self.are_elsewhere: Final = objects is not None
        self._client = client
        self._keys = keys
        self._objects = objects

    async def kept(self, task_id: str, text: str) -> tuple[Payload, str]:
        """Return the payload for a text, and what the script is to write into Redis: the text, or nothing."""
        payload = payload_of(text)
        if self._objects is None:
            return payload, text
        await self._objects.put(_name(task_id, payload.hash), text.encode(), payload.hash)
        return replace(payload, is_elsewhere=True), ""

    async def text(self, task_id: str, payload: Payload) -> str:
        """The text. Raises BrokenEntryError where it is gone, or is another one."""
        if not payload.is_elsewhere:
            found = await asked(self._client.hget(self._keys.payloads(task_id), payload.hash))
            if found is None:
                raise BrokenEntryError(f"its payload {payload.hash} is gone from Redis")
            return str(found)
        if self._objects is None:
            raise BrokenEntryError("its payload is in an object store, and queue.payloads names none")
        body = await self._objects.get(_name(task_id, payload.hash), payload.bytes)
        if body is None:
            raise BrokenEntryError(f"its payload {payload.hash} is gone from the object store")
        if hashlib.sha256(body).hexdigest() != payload.hash:
            raise BrokenEntryError(f"its payload {payload.hash} was changed in the object store")
        return body.decode()

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        """The entry with its value."""
        payload = getattr(entry, "payload", None)
        if payload is None:
            return entry
        value = json.loads(await self.text(task_id, payload))
        told: dict[str, Any] = {"payload": None, _value_of(entry): value}
        return replace(entry, **told)

    async def whole_record(self, record: TaskRecord) -> TaskRecord:
        """A task with its input and what it ended with."""
        if not record.payloads:
            return record
        texts = {name: await self.text(record.id, payload) for name, payload in record.payloads.items()}
        values: dict[str, Any] = {
            name: text if name == "input" else json.loads(text) for name, text in texts.items()
        }
        return replace(record, payloads={}, **values)

    async def drop(self, forget: Callable[[str, bool], Awaitable[Any]]) -> int:
        """Delete objects of some tasks that are forgotten, or whose journal is; returns of how many.

        `forget` says of a task that this is done, and whether the task was still there.
        """
        if self._objects is None:
            return 0
        ids: Any = await asked(self._client.srandmember(self._keys.drops, DROP_AT_ONCE))
        for task_id in ids:
            fields: Any = await asked(
                self._client.hmget(self._keys.task(task_id), "id", *map(payload_field, PAYLOAD_FIELDS))
            )
            named = {_name(task_id, read_payload(text).hash) for text in fields[1:] if text}
            await self._delete(self._objects, f"{task_id}/", named)
            await forget(task_id, fields[0] is not None)
        return len(ids)

    async def _delete(self, objects: ObjectStore, under: str, named: Collection[str]) -> None:
        while left := [name for name in await objects.names(under) if name not in named]:
            for name in left:
                await objects.delete(name)


def payload_field(name: str) -> str:
    """The field of a task's hash that stands for this one where it is kept apart."""
    return f"{name}Payload"


def payload_text(payload: Payload) -> str:
    """The value of that field."""
    return json.dumps(asdict(payload))


def _name(task_id: str, text_hash: str) -> str:
    """The name of an object: it begins with its task's id, which no caller chooses, and ends in a hash."""
    return f"{task_id}/{text_hash}"
