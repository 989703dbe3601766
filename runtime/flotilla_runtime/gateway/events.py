"""A task's journal as server-sent events: what has happened, then what happens, until the end.

The event's id is its place in the journal, so a client that lost its connection goes on where it stopped, at
any gateway. A browser's EventSource connects again when a stream ends, and the answer 204 stops it: a client
that has seen all of an ended task gets one. The journal is looked at four times a second; comments in between
keep proxies from closing the stream.
"""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.agent.store import TaskStore
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.views import event_text

LOOK_EVERY_SECONDS: Final = 0.25
COMMENT_EVERY_LOOKS: Final = 60
LAST_EVENT_ID: Final = "last-event-id"


def place_after(last_event_id: str | None) -> int:
    """The place in the journal that a stream starts from."""
    if not last_event_id:
        return 0
    if not last_event_id.isdecimal():
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "invalid-request",
            f"Last-Event-ID: {last_event_id!r} is not the id of an event of ours; leave it out to start anew",
        )
    return int(last_event_id) + 1


async def task_events(
    store: TaskStore, task_id: str, place: int, stopping: asyncio.Event
) -> AsyncIterator[str]:
    """The events from a place on, until the task has ended or is forgotten, or the gateway must stop."""
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
