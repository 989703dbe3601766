"""Names what blocks the event loop of a worker: code that computes or waits without giving the loop back.

A thread of its own looks whether the loop still beats. If not, it says in the log at which line the loop's
thread is, and in which task. Tasks that others start have the names of those, unless they get one.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import structlog

BEAT_SECONDS: Final = 0.25
BLOCKED_AFTER_SECONDS: Final = 1.0
SAID_EVERY_SECONDS: Final = 10.0

log = structlog.get_logger(__name__)


class Watchdog:
    """Watches the loop in which it was started, until it is stopped."""

    def __init__(
        self,
        observe_lag: Callable[[float], None],
        *,
        blocked_after_seconds: float = BLOCKED_AFTER_SECONDS,
        said_every_seconds: float = SAID_EVERY_SECONDS,
    ) -> None:
        self._observe_lag = observe_lag
        self._blocked_after = blocked_after_seconds
        self._said_every = said_every_seconds
        self._beat_at = time.monotonic()
        self._stopped = threading.Event()
        self._said_at = float("-inf")

    async def run(self) -> None:
        """Beat until cancelled, and tell by how much the loop ran each beat late."""
        loop, thread = asyncio.get_running_loop(), threading.get_ident()
        loop.set_task_factory(_named_after_parent)
        self._beat_at = time.monotonic()
        watching = threading.Thread(target=self._watch, args=(loop, thread), name="watchdog", daemon=True)
        watching.start()
        try:
            while True:
                due = time.monotonic() + BEAT_SECONDS
                await asyncio.sleep(BEAT_SECONDS)
                self._beat_at = time.monotonic()
                self._observe_lag(max(0.0, self._beat_at - due))
        finally:
            loop.set_task_factory(None)
            self._stopped.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            now = time.monotonic()
            late = now - self._beat_at - BEAT_SECONDS
            if late < self._blocked_after or now - self._said_at < self._said_every:
                continue
            frame = sys._current_frames().get(thread)
            task = asyncio.current_task(loop)
            if frame is None or task is None:
                continue  # the machine is slow, or the loop is
            self._said_at = now
            log.warning("loop_blocked", at=place_of(frame), task=task.get_name(), seconds=round(late, 1))


def place_of(frame: FrameType) -> str:
    """Module, line and function of the innermost call that is not of the standard library."""
    inner: FrameType | None = frame
    while inner is not None and _is_standard(inner):
        inner = inner.f_back
    at = inner or frame
    return f"{at.f_globals.get('__name__', '?')}:{at.f_lineno} {at.f_code.co_name}"


def _is_standard(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in sys.stdlib_module_names


def _named_after_parent(
    loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
    parent = asyncio.current_task(loop)
    if parent is not None and not options.get("name"):
        task.set_name(parent.get_name())
    return task
