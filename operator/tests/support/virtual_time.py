"""An event loop without waiting: when nothing can run, its clock jumps to the next timer.

An hour of `asyncio.sleep` takes no real time, and a test runs the same way each time. What runs at one moment
of the clock takes none of its time. Timers of the same moment run in the order in which they were set.

All that runs must be on the loop. An answer from a socket or a thread comes at a time that the clock can only
guess, so both are refused. When nothing can run and no timer is set, nothing will ever happen: the loop then
raises `DeadlockError`, which names the tasks and where each waits.
"""

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

Answer = TypeVar("Answer")

# When the clock starts: on a full minute, so that a time in a failed test's output is easy to read.
BEGINNING: Final = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class DeadlockError(Exception):
    """Nothing can run any more, and no timer is set."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop; `time` starts at 0, and `now` is the date that belongs to it."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._timers_set = 0
        super().__init__(_Jumping(selectors.DefaultSelector(), self._jump))

    def time(self) -> float:
        """The seconds since the loop was made, by its own clock."""
        return self._seconds

    def now(self) -> datetime:
        """The date and time by the loop's own clock."""
        return BEGINNING + timedelta(seconds=self._seconds)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer. asyncio's own timers of the same moment run in any order."""
        self._timers_set += 1
        timer = _Timer(when, callback, args, self, context)
        timer.turn = self._timers_set
        timer._scheduled = True  # type: ignore[attr-defined]
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]
        return timer

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Refuse, because a thread needs real time."""
        raise RuntimeError(f"{func} would run in a thread, which needs real time")

    def _jump(self, seconds: float | None) -> None:
        if seconds is None:
            raise DeadlockError(f"nothing can run and no timer is set; {_waiting(self)}")
        self._seconds += seconds


class _Timer(asyncio.TimerHandle):
    """A timer that knows when it was set, compared with others."""

    turn = 0

    def __lt__(self, other: Any) -> bool:
        when: float = self.when()
        others: float = other.when()
        return when < others or (when == others and self.turn < other.turn)


class _Jumping(selectors.BaseSelector):
    """Passes everything on to a selector, but lets the clock jump where that one would wait."""

    def __init__(self, inner: selectors.BaseSelector, jump: Callable[[float | None], None]) -> None:
        self._inner = inner
        self._jump = jump
        self._allowed: set[Any] = set()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register the loop's own pipe, by which it is woken, and refuse everything else."""
        if self._allowed:
            raise RuntimeError(f"{fileobj} is a socket, which needs real time")
        self._allowed.add(fileobj)
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Unregister the loop's own pipe."""
        return self._inner.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Say what is ready now; when nothing is, jump."""
        ready = self._inner.select(0)
        if not ready and timeout != 0:
            self._jump(timeout)
        return ready

    def close(self) -> None:
        """Close the selector."""
        self._inner.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Files that are registered."""
        return self._inner.get_map()


def running_loop() -> VirtualTimeLoop:
    """The loop that runs this code."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "this needs the loop with its own clock"
    return loop


def run(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


def _waiting(loop: asyncio.AbstractEventLoop) -> str:
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    return "; ".join(f"{task.get_name()} waits {_place(task)}" for task in tasks) or "no task is left"


def _place(task: "asyncio.Task[Any]") -> str:
    """Where a task waits, from the outermost call to the innermost."""
    lines: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            lines.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return "in " + " > ".join(lines)
