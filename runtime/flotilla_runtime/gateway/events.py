"""Streams a task's events: first the past ones, then new ones as its journal grows, until the task ends.

The id of an event is the position of its entry in the journal, so a client that lost its connection can
resume at any gateway. Not every entry is an event, so ids have gaps. A browser's EventSource reconnects when
a stream ends, unless the answer is 204; a client that has received all events of an ended task gets that. The
journal is read a few entries at a time, from where the client resumes. The end of a call is told with what
its start said: if the client has that already, it is read backwards from there, no further than to it or to
the beginning of the attempt. Comments in between keep proxies from closing the stream.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import Claimed, Done, Entry, Intended, TaskStatus
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.gateway.growth import Growth
from flotilla_runtime.gateway.history import Event, History
from flotilla_runtime.gateway.problems import ProblemError

READ_AT_ONCE: Final = 16
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


class EarlierStarts:
    """What a stream that begins in the middle of a journal does not see: how the calls under way began."""

    def __init__(self, store: TaskStore, task_id: str, place: int) -> None:
        self._store = store
        self._task_id = task_id
        self._unread = place  # what is before this position was not looked at
        self._found: dict[str, Intended | None] = {}

    async def recall(self, history: History, entries: Sequence[Entry]) -> None:
        """Tell the history of the starts that these entries need."""
        begun: set[str] = set()
        for entry in entries:
            match entry:
                case Claimed():  # the calls of a lost worker count no more
                    self._unread = 0
                    self._found.clear()
                case Intended():
                    begun.add(entry.call)
                case Done() if entry.call not in begun and not history.is_open(entry.call):
                    if (start := await self._start_of(entry.call)) is not None:
                        history.recall(start)

    async def _start_of(self, call: str) -> Intended | None:
        while call not in self._found and self._unread:
            count = min(READ_AT_ONCE, self._unread)
            _, entries = await self._store.progress(self._task_id, self._unread - count, count)
            self._unread -= count
            for entry in reversed(entries):
                match entry:
                    case Claimed():
                        self._unread = 0
                        break
                    case Intended():
                        self._found.setdefault(entry.call, replace(entry, arguments=None))
                    case Done():
                        self._found.setdefault(entry.call, None)
        start = self._found.get(call)
        self._found[call] = None
        return start


async def task_events(
    store: TaskStore, growth: Growth, task_id: str, first: int, stopping: asyncio.Event
) -> AsyncIterator[str]:
    """The events from a position on, until the task has ended or is forgotten, or the gateway stops."""
    history, place = History(), first
    earlier = EarlierStarts(store, task_id, first)
    clock = asyncio.get_running_loop().time
    comment_at = clock()
    async with growth.of(task_id) as watch:
        while not stopping.is_set():
            try:
                status, entries = await store.progress(task_id, place, READ_AT_ONCE)
                await earlier.recall(history, entries)
            except StoreUnavailableError:
                status, entries = TaskStatus.RUNNING, []  # as far as is known
            for entry in entries:
                event = history.told(entry)
                if event is not None:
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
