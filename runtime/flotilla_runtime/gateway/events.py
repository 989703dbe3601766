"""Streams a task's events: first the past ones, then new ones as its journal grows, until the task ends.

The id of an event is the position of its entry in the journal, so a client that lost its connection can
resume at any gateway. Not every entry is an event, so ids have gaps. A browser's EventSource reconnects when
a stream ends, unless the answer is 204; a client that has received all events of an ended task gets that. The
journal is read a few entries at a time, from where the client resumes. The end of a call is told with what
its start said: if the client has that already, it is read backwards from there, no further than to it or to
the beginning of the attempt. Comments in between keep proxies from closing the stream.

Text that a model is writing has no id: it is in no journal. Who resumes is told it from its beginning.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from flotilla_runtime.agent.errors import BrokenEntryError, StoreUnavailableError
from flotilla_runtime.agent.journal import Claimed, Done, Entry, Intended, TaskStatus
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.texts import TextStore
from flotilla_runtime.gateway.growth import Growth
from flotilla_runtime.gateway.history import Event, History
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.texts import TextView

READ_AT_ONCE: Final = 16
TEXTS_AT_ONCE: Final = 64
NOWHERE: Final = 2**40  # behind the end of every journal
ASK_AGAIN_SECONDS: Final = 1.0
COMMENT_EVERY_SECONDS: Final = 15.0
LAST_EVENT_ID: Final = "last-event-id"
EVENT_ID: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """An event for a follower, with its number where it is in the journal. Without an event, all that is
    known so far has been told.
    """

    event: Event | None = None
    number: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The sources of followers: the stores, the watch for growth, and the sign that the gateway stops."""

    store: TaskStore
    texts: TextStore
    growth: Growth
    stopping: asyncio.Event


def event_text(number: int | None, event: Event) -> str:
    """An event as a server-sent event; its number, if it has one, is the id for Last-Event-ID."""
    data = event.model_dump_json(by_alias=True, exclude_none=True)
    told = f"event: {event.event}\ndata: {data}\n\n"
    return told if number is None else f"id: {number}\n{told}"


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
    """The starts of calls under way, which a stream that begins in the middle of a journal does not see."""

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


async def task_events(sight: Sight, task_id: str, first: int) -> AsyncIterator[str]:
    """The events from a position on, as server-sent events."""
    clock = asyncio.get_running_loop().time
    comment_at = clock()
    async for heard in followed(sight, task_id, first):
        if heard.event is not None:
            yield event_text(heard.number, heard.event)
        elif clock() >= comment_at:
            yield ": still here\n\n"
            comment_at = clock() + COMMENT_EVERY_SECONDS


async def followed(sight: Sight, task_id: str, first: int) -> AsyncIterator[Followed]:
    """Follow a task from a position on, until it has ended or is forgotten, or the gateway stops."""
    history, texts, place = History(), TextView(), first
    earlier = EarlierStarts(sight.store, task_id, first)
    async with sight.growth.of(task_id, sight.texts.channel(task_id)) as watch:
        while not sight.stopping.is_set():
            try:
                status, entries = await sight.store.progress(task_id, place, READ_AT_ONCE)
                await earlier.recall(history, entries)
            except StoreUnavailableError:
                status, entries = TaskStatus.RUNNING, []  # as far as is known
            for entry in entries:
                shown = await _whole(sight, task_id, entry)
                if shown is None:
                    return
                for text in texts.before(shown):
                    yield Followed(event=text)
                event = history.told(shown)
                if event is not None:
                    yield Followed(event=event, number=place)
                place += 1
            if len(entries) == READ_AT_ONCE:
                continue
            if status is None or status.is_final:
                return
            async for text in _written(sight.texts, task_id, texts):
                yield Followed(event=text)
            yield Followed()
            await watch.next()


async def until_ended(sight: Sight, task_id: str) -> bool:
    """Return when the task has ended or is forgotten; False if the gateway stops before. Reads no journal."""
    async with sight.growth.of(task_id) as watch:
        while not sight.stopping.is_set():
            with contextlib.suppress(StoreUnavailableError):
                status, _ = await sight.store.progress(task_id, NOWHERE, 1)
                if status is None or status.is_final:
                    return True
            await watch.next()
    return False


async def _written(store: TextStore, task_id: str, texts: TextView) -> AsyncIterator[Event]:
    """Read the text that models have written since the last look."""
    while True:
        try:
            pieces = await store.after(task_id, texts.place, TEXTS_AT_ONCE)
        except StoreUnavailableError:
            return
        for text in texts.shown(pieces):
            yield text
        if len(pieces) < TEXTS_AT_ONCE:
            return


async def _whole(sight: Sight, task_id: str, entry: Entry) -> Entry | None:
    """An entry with its value, or without it if it is gone. None if the gateway stops before it is there."""
    while not sight.stopping.is_set():
        try:
            return await sight.store.whole(task_id, entry)
        except BrokenEntryError:
            return entry
        except StoreUnavailableError:
            await asyncio.sleep(ASK_AGAIN_SECONDS)
    return None
