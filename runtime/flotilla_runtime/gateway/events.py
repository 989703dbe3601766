"""Streams a task's journal as server-sent events: first the past entries, then new ones, until the task ends.

The id of an event is its position in the journal, so a client that lost its connection can resume at any
gateway. A browser's EventSource reconnects when a stream ends, unless the answer is 204; a client that has
received all events of an ended task gets that. The journal is read four times a second. Comments in between
keep proxies from closing the stream.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import Entry, TaskStatus, document_of
from flotilla_runtime.agent.store import TaskStore
from flotilla_runtime.gateway.problems import ProblemError

LOOK_EVERY_SECONDS: Final = 0.25
COMMENT_EVERY_LOOKS: Final = 60
LAST_EVENT_ID: Final = "last-event-id"


def event_text(number: int, entry: Entry) -> str:
    """A journal entry as a server-sent event; its number is the id for Last-Event-ID."""
    document = document_of(entry)
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return f"id: {number}\nevent: {document.get('type', 'Other')}\ndata: {data}\n\n"


def place_after(last_event_id: str | None) -> int:
    """The position at which a stream starts: after the event of this id, which `event_text` wrote."""
    if not last_event_id:
        return 0
    if not last_event_id.isdecimal():
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "invalid-request",
            f"Last-Event-ID: {last_event_id!r} is not the id of an event; send the id of the last event that "
            "you received, or leave the header out to start from the beginning",
        )
    return int(last_event_id) + 1


async def task_events(
    store: TaskStore, task_id: str, place: int, stopping: asyncio.Event
) -> AsyncIterator[str]:
    """The events from a position on, until the task has ended or is forgotten, or the gateway stops."""
    looks = 0
    while not stopping.is_set():
        try:
            status, entries = await store.progress(task_id, place)
        except StoreUnavailableError:
            status, entries = TaskStatus.RUNNING, []  # as far as is known
        for entry in entries:
            yield event_text(place, entry)
            place += 1
        if status is None or status.is_final:
            return
        looks += 1
        if looks % COMMENT_EVERY_LOOKS == 1:
            yield ": still here\n\n"
        await asyncio.sleep(LOOK_EVERY_SECONDS)
