"""Reads the tasks and journals of a fleet from Redis, as they stand there. No code of the runtime is used.

What this module knows of the format is on docs/recovery.md: a hash `…task:ID`, a list `…journal:ID` of JSON
objects, and the types and fields of those that the checker needs.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FINAL = frozenset({"Succeeded", "Failed", "Cancelled"})
COUNT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of a journal. `number` is its place in the list."""

    number: int
    type: str
    at: int
    fields: Mapping[str, Any]

    @property
    def call(self) -> str:
        """The id of the call that it is about; empty if it is about none."""
        return str(self.fields.get("call", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """One task: its hash in Redis, and its journal."""

    id: str
    fields: Mapping[str, str]
    entries: tuple[Entry, ...]

    @property
    def status(self) -> str:
        return self.fields.get("status", "")

    @property
    def has_ended(self) -> bool:
        return self.status in FINAL


def entries_of(texts: Iterable[str]) -> tuple[Entry, ...]:
    """The entries of a journal."""
    documents = (json.loads(text) for text in texts)
    return tuple(
        Entry(number=number, type=document["type"], at=int(document["at"]), fields=document)
        for number, document in enumerate(documents)
    )


def tasks_in(client: Any, fleet: str) -> dict[str, TaskFacts]:
    """All tasks of a fleet, by id. `client` is one of redis-py, with decoded answers."""
    prefix = f"flotilla:{{{fleet}}}:"
    ids = [key.removeprefix(f"{prefix}task:") for key in client.scan_iter(f"{prefix}task:*", count=COUNT)]
    found = {}
    for task_id in ids:
        fields = client.hgetall(f"{prefix}task:{task_id}")
        texts = client.lrange(f"{prefix}journal:{task_id}", 0, -1)
        found[task_id] = TaskFacts(id=task_id, fields=fields, entries=entries_of(texts))
    return found


def statuses_in(client: Any, fleet: str, ids: Iterable[str]) -> list[str]:
    """The statuses of these tasks, empty for one that is not there."""
    with client.pipeline(transaction=False) as pipeline:
        for task_id in ids:
            pipeline.hget(f"flotilla:{{{fleet}}}:task:{task_id}", "status")
        return [status or "" for status in pipeline.execute()]
