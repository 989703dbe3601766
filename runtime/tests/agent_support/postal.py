"""Several tasks that send messages to actors: all run, crashed once, until nothing is left to do."""

from collections.abc import Callable
from typing import Any

from agent_support.lives import Script
from agent_support.memory import CrashError, CrashPoints, MemoryStore, Stored
from agent_support.running import ScriptedCalls, run
from flotilla_runtime.agent.journal import Done, TaskStatus
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.contract import TaskLimits

LONGEST_STORY = 80  # rounds
STEPS = 100


class Village:
    """A task and the messages that come of it. Of a mailbox only the first message runs."""

    def __init__(
        self, program: Program, script: Script, task_input: str = "go", max_steps: int = STEPS
    ) -> None:
        self.store = MemoryStore()
        limits = TaskLimits(max_depth=4, max_steps=max_steps)
        self.store.submit("01jd0000000000000000000001", task_input, limits)
        self.calls = ScriptedCalls(script=script, points=self.store.points)
        self.program = program

    @property
    def task(self) -> Stored:
        return self.store.tasks["01jd0000000000000000000001"]

    @property
    def result(self) -> Any:
        assert self.task.finish is not None
        assert self.task.finish.status is TaskStatus.SUCCEEDED, self.task.finish
        return self.task.finish.result

    def messages(self, address: str) -> list[Stored]:
        return [task for task in self.store.tasks.values() if task.line and task.line[1] == address]

    def kept(self, key: str) -> str | None:
        return self.store.state_of.get(("#actors", key))

    def crash_at(self, point: int | None) -> None:
        self.store.points = self.calls.points = CrashPoints(crash_at=point)

    async def to_the_end(self, crash_at: int | None = None) -> "Village":
        """Run what can run until all has ended. No finished call is made again."""
        self.crash_at(crash_at)
        for _ in range(LONGEST_STORY):
            if not self.live:
                self.check()
                return self
            if not await self.one_round():
                self.ring()
        raise AssertionError([task.entries[-1] for task in self.live])

    @property
    def live(self) -> list[Stored]:
        return [task for task in self.store.tasks.values() if task.finish is None]

    async def one_round(self) -> bool:
        """Run each task that may run; False if none may."""
        has_run = False
        for task in self.live:
            if task.finish is None and self.may_run(task):
                has_run = True
                await self.one_run(task)
        return has_run

    def ring(self) -> None:
        """Let the time come for which some task waits."""
        times = [task.waits.until for task in self.live if task.waits and task.waits.until is not None]
        assert times, "all that is left waits for each other"
        self.store.now_ms = max(self.store.now_ms, min(times))

    def may_run(self, task: Stored) -> bool:
        waits = task.waits
        if waits is not None:
            rings = waits.until is not None and waits.until <= self.store.now_ms
            return rings or any(self.store.tasks[one].finish for one in waits.children)
        return task.line is None or self.store.mailbox(task.line)[0] is task

    async def one_run(self, task: Stored) -> None:
        finished = {entry.call for entry in task.entries if isinstance(entry, Done)}
        made_before = len(self.calls.made)
        try:
            await run(self.store, self.program, self.calls, task.id)
        except* CrashError:
            pass
        assert not finished & set(self.calls.made[made_before:])
        if self.store.points.has_crashed:
            self.crash_at(None)

    def check(self) -> None:
        """Nothing is left reserved, and each call has one result."""
        held = self.task.tree.reserved
        assert (held.steps, held.tokens) == (0, 0)
        for task in self.store.tasks.values():
            done = [entry.call for entry in task.entries if isinstance(entry, Done)]
            assert len(done) == len(set(done)), done


async def village_crashed_everywhere(make: Callable[[], Village], every: int = 1) -> list[Village]:
    """The story without a crash, and then with one at each point that it passes, or at some of them."""
    whole = await make().to_the_end()
    points = len(whole.store.points.passed)
    return [whole, *[await make().to_the_end(crash_at=point) for point in range(0, points, every)]]
