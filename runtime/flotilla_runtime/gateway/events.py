"""Streams a task's events: first the past ones, then new ones as its journal grows, until the task ends.

The id of an event is the position of its entry in the journal, so a client that lost its connection can
resume at any gateway. Not every entry is an event, so ids have gaps. A browser's EventSource reconnects when
a stream ends, unless the answer is 204; a client that has received all events of an ended task gets that. The
journal is read a few entries at a time, from its beginning also by a client that resumes, since the end of a
call is told with what its start said. Comments in between keep proxies from closing the stream.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

from flotilla_runtime.agent.errors import BrokenEntryError, StoreUnavailableError
from flotilla_runtime.agent.journal import Entry, TaskStatus
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.gateway.growth import Growth
from flotilla_runtime.gateway.history import Event, History
from flotilla_runtime.gateway.problems import ProblemError

READ_AT_ONCE: Final = 16
ASK_AGAIN_SECONDS: Final = 1.0
COMMENT_EVERY_SECONDS: Final = 15.0
LAST_EVENT_ID: Final = "last-event-id"
EVENT_ID: Final = re.compile(r"[0-9]{1,12}")


def event_text(number: int, event: Event) -> str:
    """An event as a server-sent event; its number is the id for Last-Event-ID."""
    data = event.model_dump_json(by_alias=True, exclude_none=True)
    return f"id: {number}\nevent: {event.event}\ndata: {data}\n\n"


def place_after(last_event_id: str | None) -> int:
    """The position at which a stream starts: after the event of this id, which `event_text` wrote."""
    if not last_event_id:
        return 0
    if not EVENT_ID.fullmatch(last_event_id):
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "invalid-request",
            f"Last-Event-ID: {last_event_id!r} is not the id of an event; send the id of the last event that "
            "you received, or leave the header out to start from the beginning",
        )
    return int(last_event_id) + 1


async def task_events(
    store: TaskStore, growth: Growth, task_id: str, first: int, stopping: asyncio.Event
) -> AsyncIterator[str]:
    """The events from a position on, until the task has ended or is forgotten, or the gateway stops."""
    history, place = History(), 0
    clock = asyncio.get_running_loop().time
    comment_at = clock()
    async with growth.of(task_id) as watch:
        while not stopping.is_set():
            try:
                status, entries = await store.progress(task_id, place, READ_AT_ONCE)
            except StoreUnavailableError:
                status, entries = TaskStatus.RUNNING, []  # as far as is known
            for entry in entries:
                shown = await _whole(store, task_id, entry, stopping) if place >= first else entry
                if shown is None:
                    return
                event = history.told(shown)
                if event is not None and place >= first:
                    yield event_text(place, event)
                place += 1
            if len(entries) == READ_AT_ONCE:
                continue
            if status is None or status.is_final:
                return
            if clock() >= comment_at:
                yield ": still here\n\n"
                comment_at = clock() + COMMENT_EVERY_SECONDS
            await watch.next()


async def _whole(store: TaskStore, task_id: str, entry: Entry, stopping: asyncio.Event) -> Entry | None:
    """An entry with its value, or without it if it is gone. None if the gateway stops before it is there."""
    while not stopping.is_set():
        try:
            return await store.whole(task_id, entry)
        except BrokenEntryError:
            return entry
        except StoreUnavailableError:
            await asyncio.sleep(ASK_AGAIN_SECONDS)
    return None
