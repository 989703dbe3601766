"""A task that is crashed at every point of its life, and goes on each time until it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from agent_support.memory import CrashError, CrashPoints, MemoryStore, Stored
from agent_support.running import ScriptedCalls, run
from flotilla_runtime.agent.journal import CallOutcome, Done, Intended
from flotilla_runtime.agent.patterns.values import PatternEnd
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Reply

LONGEST_STORY = 20  # runs of one task

Script = Callable[[Call], Reply | Awaitable[Reply]]


async def never_answers(_call: Call) -> Reply:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


class Story:
    """One task, through as many runs as it takes."""

    def __init__(self, program: Program, script: Script, task_input: str = "Where to?") -> None:
        self.store = MemoryStore()
        self.store.submit("t1", task_input)
        self.calls = ScriptedCalls(script=script, points=self.store.points)
        self.program = program
        self.patterns: list[PatternEnd] = []

    @property
    def task(self) -> Stored:
        return self.store.tasks["t1"]

    @property
    def result(self) -> Any:
        assert self.task.finish is not None
        assert self.task.finish.result is not None, self.task.finish
        return self.task.finish.result

    def crash_at(self, point: int | None) -> None:
        self.store.points = self.calls.points = CrashPoints(crash_at=point)

    async def one_run(self) -> None:
        try:
            await run(self.store, self.program, self.calls, on_pattern=self.patterns.append)
        except* CrashError:
            pass

    async def to_the_end(self, crash_at: int | None = None) -> "Story":
        """Run the task, once up to a crash, and ring its timers. No finished call is made again."""
        self.crash_at(crash_at)
        for _ in range(LONGEST_STORY):
            finished = self.finished()
            made_before = len(self.calls.made)
            await self.one_run()
            repeated = finished & set(self.calls.made[made_before:])
            assert not repeated, repeated
            if self.task.finish is not None:
                self.check()
                return self
            if self.store.points.has_crashed:
                self.crash_at(None)
            waits = self.task.waits
            if waits is not None and waits.until is not None:
                self.store.now_ms = max(self.store.now_ms, waits.until)
        raise AssertionError("the task does not end")

    def finished(self) -> set[str]:
        """The calls that have a result in the journal."""
        return {entry.call for entry in self.task.entries if isinstance(entry, Done)}

    def given_up(self) -> set[str]:
        return {
            entry.call
            for entry in self.task.entries
            if isinstance(entry, Done) and entry.outcome is CallOutcome.CANCELLED
        }

    def check(self) -> None:
        """Nothing is left reserved, and each call has one result."""
        held = self.task.tree.reserved
        assert (held.steps, held.tokens, held.nano_usd) == (0, 0, 0)
        done = [entry.call for entry in self.task.entries if isinstance(entry, Done)]
        assert len(done) == len(set(done)), done
        intended = {entry.call for entry in self.task.entries if isinstance(entry, Intended)}
        assert set(done) <= intended


async def crashed_everywhere(make: Callable[[], Story]) -> list[Story]:
    """The story without a crash, and then with one at each point that it passes."""
    whole = make()
    await whole.to_the_end()
    points = len(whole.store.points.passed)
    return [whole, *[await make().to_the_end(crash_at=point) for point in range(points)]]
