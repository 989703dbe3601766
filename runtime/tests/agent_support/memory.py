"""A task store in memory with the promises of the real one, and crash points before and after each write.

Entries go through their text form. After each write the budget of a tree is checked: nothing is overspent.
test_memory_journal.py holds this double against the real store.
"""

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flotilla_runtime.agent.actors import OF_ACTORS, gone_with, unless_kept
from flotilla_runtime.agent.budgets import NOTHING, Amount, Budget, LimitName, MessageRefusal, Refusal
from flotilla_runtime.agent.engine.history import reserve_of, spent_of, use_of
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import (
    ENDING,
    WAIT_OUTSIDE,
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Ended,
    EndReason,
    Entry,
    HandedOver,
    Intended,
    Resolved,
    Resumed,
    Submitted,
    Suspended,
    TaskStatus,
    WaitKind,
    decode,
    encode,
)
from flotilla_runtime.agent.protocols import (
    Came,
    CheckpointChange,
    Checkpointed,
    ChildEnd,
    Finish,
    OneEntry,
    Post,
    StateOperation,
    StateRequest,
    Waits,
    Written,
)
from flotilla_runtime.agent.tasks import Claim, LoadedTask, TaskRecord, checkpoint_space
from flotilla_runtime.contract import TaskLimits

NANO_USD = 10**9


class CrashError(BaseException):
    """The process is gone, as far as the task can tell; no handler of ours may catch it."""


@dataclass(slots=True)
class CrashPoints:
    """Counts the points that a run passes and crashes at one of them; nothing happens after that.

    `crash_at` is the number of the point, or its name where other points may come in another order.
    """

    crash_at: int | str | None = None
    passed: list[str] = field(default_factory=list)
    has_crashed: bool = False

    def reach(self, point: str) -> None:
        if self.has_crashed:
            raise CrashError(point)
        self.passed.append(point)
        if self.crash_at in (len(self.passed) - 1, point):
            self.has_crashed = True
            raise CrashError(point)


@dataclass(slots=True)
class Tree:
    """The budget of a tree of tasks."""

    limits: TaskLimits
    used: Amount = NOTHING
    reserved: Amount = NOTHING

    @property
    def budget(self) -> Budget:
        cost = self.limits.max_cost_usd
        return Budget(
            used=self.used,
            reserved=self.reserved,
            most_steps=self.limits.max_steps,
            most_tokens=self.limits.max_tokens,
            most_nano_usd=None if cost is None else round(cost * NANO_USD),
        )

    def refusal(self, intent: Intended) -> Refusal | None:
        budget, wanted, held = self.budget, reserve_of(intent), self.used + self.reserved
        for limit, most, committed, asked, under_way in (
            (LimitName.STEPS, budget.most_steps, held.steps, wanted.steps, 0),
            (LimitName.TOKENS, budget.most_tokens, held.tokens, wanted.tokens, self.reserved.tokens),
            (LimitName.COST, budget.most_nano_usd, held.nano_usd, wanted.nano_usd, self.reserved.nano_usd),
        ):
            if most is not None and asked and committed + asked > most:
                return Refusal(
                    call=intent.call,
                    limit=limit,
                    most=most,
                    committed=committed,
                    wanted=asked,
                    may_change=under_way > 0,
                )
        return None

    def settle(self, reserve: Amount, use: Amount) -> None:
        self.reserved = self.reserved - reserve
        self.used = self.used + use
        self.check()

    def check(self) -> None:
        budget, held = self.budget, self.used + self.reserved
        assert held.steps <= budget.most_steps, held
        assert held.tokens <= budget.most_tokens, held
        assert budget.most_nano_usd is None or held.nano_usd <= budget.most_nano_usd, held
        assert min(self.reserved.steps, self.reserved.tokens, self.reserved.nano_usd) >= 0


@dataclass(slots=True)
class Stored:
    """One task."""

    id: str
    input: str
    limits: TaskLimits
    tree: Tree
    depth: int = 0
    parent: str | None = None
    conversation: str | None = None
    agent: str = ""
    status: TaskStatus = TaskStatus.WAITING
    token: int = 0
    attempts: int = 0
    started_at: int | None = None
    idle_ms: int = 0
    suspended_at: int | None = None
    cancel_requested: bool = False
    waits: Waits | None = None
    finish: Finish | None = None
    texts: list[str] = field(default_factory=list)
    open: dict[str, Intended] = field(default_factory=dict)
    decided: dict[str, Any] = field(default_factory=dict)
    signals: dict[str, tuple[str, Any]] = field(default_factory=dict)
    signalled: int = 0
    post: Post | None = None

    @property
    def line(self) -> tuple[str, str] | None:
        """The mailbox that it is in."""
        return (self.post.agent, self.post.delivery.to.name) if self.post else None

    @property
    def unwinds(self) -> bool:
        return any(isinstance(entry, Intended) and entry.call == ENDING for entry in self.entries)

    @property
    def must_run_to_end(self) -> bool:
        kinds = (entry.kind for entry in self.entries if isinstance(entry, Intended))
        compensates = self.post is not None or CallKind.COMPENSATE in kinds
        return compensates and self.started_at is not None

    @property
    def entries(self) -> list[Entry]:
        return [decode(text) for text in self.texts]


class MemoryStore:
    """Tasks in memory. `now_ms` is its clock, which stands still until a test moves it."""

    def __init__(self, points: CrashPoints | None = None) -> None:
        self.tasks: dict[str, Stored] = {}
        self.points = points or CrashPoints()
        self.now_ms = 1_000_000
        self.writes: list[list[Entry]] = []
        self.state_of: dict[tuple[str, str], str] = {}
        self.state_writes: list[str] = []
        self.checkpoints: dict[str, dict[str, str]] = {}

    def submit(
        self, task_id: str, task_input: str, limits: TaskLimits | None = None, agent: str = ""
    ) -> None:
        limits = limits or TaskLimits()
        tree = Tree(limits=limits)
        self._store(Stored(id=task_id, input=task_input, limits=limits, tree=tree, agent=agent))

    def restore(self, task_id: str, entries: Sequence[Entry]) -> None:
        """Let a task have this journal, whose last claim counts as begun by `claim`."""
        task = self.tasks[task_id]
        for entry in entries:
            task.texts.append(encode(entry))
            if isinstance(entry, Intended):
                task.open[entry.call] = entry
                task.tree.reserved += reserve_of(entry)
            elif isinstance(entry, Done) and (intent := task.open.pop(entry.call, None)) is not None:
                task.tree.settle(reserve_of(intent), use_of(intent, entry))
            elif isinstance(entry, Claimed):
                task.attempts = entry.attempt - 1
        task.started_at = self.now_ms

    def claim(self, task_id: str, worker: str = "w") -> tuple[Claim, LoadedTask]:
        """Take a task over: the leases of its former workers have ended."""
        task = self.tasks[task_id]
        if task.status is TaskStatus.SUSPENDED:
            self._resume(task)
        if not (task.entries and isinstance(task.entries[-1], HandedOver | Resumed)):
            task.attempts += 1
        if task.suspended_at is not None:
            task.idle_ms += self.now_ms - task.suspended_at
            task.suspended_at = None
        task.status = TaskStatus.RUNNING
        task.token += 7
        task.started_at = task.started_at if task.started_at is not None else self.now_ms
        self._append(task, Claimed(at=self.now_ms, worker=worker, attempt=task.attempts))
        return Claim(id=task_id, token=task.token), self.load(task_id)

    def load(self, task_id: str) -> LoadedTask:
        task = self.tasks[task_id]
        fields = {
            "id": task_id,
            "status": str(task.status),
            "priority": "Interactive",
            "caller": "ann",
            "input": task.input,
            "limits": task.limits.model_dump_json(),
            "metadata": "{}",
            "submittedAt": "0",
            "startedAt": str(task.started_at or 0),
            "attempts": str(task.attempts),
            "suspendedMs": str(task.idle_ms),
        }
        if task.post is not None:
            fields |= {"actor": task.post.delivery.text, "conversation": "actor-"}
        if task.cancel_requested:
            fields["cancelRequested"] = "1"
        if task.conversation is not None:
            fields["conversation"] = task.conversation
        if task.agent:
            fields["agent"] = task.agent
        if task.parent is not None:
            fields |= {"parent": task.parent, "root": self._root_of(task)}
        return LoadedTask(record=TaskRecord.of(fields), entries=tuple(task.entries), read_at=self.now_ms)

    def _root_of(self, task: Stored) -> str:
        return task.id if task.parent is None else self._root_of(self.tasks[task.parent])

    def resolve(self, task_id: str, call: str, *, happened: bool, result: Any = None) -> None:
        task = self.tasks[task_id]
        assert task.waits is not None
        assert (task.waits.kind, task.waits.call) == (WaitKind.EFFECT, call)
        self._append(task, Resolved(at=self.now_ms, call=call, happened=happened, by="ann", result=result))
        self._resume(task)

    def decide(self, task_id: str, call: str, *, approved: bool = True, comment: str | None = None) -> bool:
        """Whether this decision stands."""
        task = self.tasks[task_id]
        if task.finish or call not in task.open or self._came(task, task.open[call], ()) is not None:
            return False
        task.decided[call] = {"approved": approved, "by": "boss", "comment": comment, "at": self.now_ms}
        if task.status is TaskStatus.SUSPENDED:
            self._resume(task)
        return True

    def signal(self, task_id: str, name: str, value: Any) -> None:
        task = self.tasks[task_id]
        task.signals[f"s{task.signalled}"] = (name, value)
        task.signalled += 1
        if task.status is TaskStatus.SUSPENDED and self._has_come(task):
            self._resume(task)

    async def came(self, claim: Claim, call: str, taken: Collection[str]) -> Came | None:
        await self._reach("came")
        task = self._owned(claim, None)
        return self._came(task, task.open[call], taken)

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        what = "+".join(f"{type(entry).__name__} {getattr(entry, 'call', '')}" for entry in entries)
        await self._reach(f"before {what}")
        task = self._owned(claim, expected)
        refused = []
        written: list[Entry] = []
        for entry in entries:
            if isinstance(entry, Intended):
                refusal = self._reserve(task, entry)
                if refusal is not None:
                    refused.append(refusal)
                    continue
            elif isinstance(entry, Done) and (intent := task.open.pop(entry.call, None)) is not None:
                task.tree.settle(reserve_of(intent), use_of(intent, entry))
                task.signals.pop(entry.signal or "", None)
                if intent.child and entry.outcome is CallOutcome.CANCELLED:
                    self._cancel(self.tasks[intent.child], "the task that spawned it no longer waits for it")
            written.append(entry)
            self._append(task, entry)
            if isinstance(entry, Intended) and entry.call == ENDING:
                self._cancel_children(task)
        self.writes.append(written)
        await self._reach(f"after {what}")
        return self._written(task, refused)

    async def spawn(self, claim: Claim, expected: int, intent: Intended, child_input: str) -> Written:
        await self._reach(f"before spawn {intent.call}")
        task = self._owned(claim, expected)
        refusal = self._no_room(task, intent)
        if refusal is None:
            self._append(task, intent)
            task.open[intent.call] = intent
            assert intent.child is not None
            if intent.child not in self.tasks:
                self._store(
                    Stored(
                        id=intent.child,
                        input=child_input,
                        limits=task.limits,
                        tree=task.tree,
                        depth=task.depth + 1,
                        parent=task.id,
                        agent=intent.target or task.agent,
                    )
                )
        await self._reach(f"after spawn {intent.call}")
        return self._written(task, [refusal] if refusal else [])

    async def deliver(self, claim: Claim, expected: int, intent: Intended, post: Post) -> Written:
        await self._reach(f"before deliver {intent.call}")
        task = self._owned(claim, expected)
        assert intent.child is not None
        is_known = intent.child in self.tasks
        refusal = (None if is_known else self._declined(task, intent, post)) or self._reserve(task, intent)
        if refusal is None:
            self._append(task, intent)
            if not is_known:
                message = Stored(id=intent.child, input=post.text, limits=task.limits, tree=task.tree)
                message.depth = task.depth + post.is_asked
                message.parent = task.id if post.is_asked else None
                message.post = post
                self._store(message)
        await self._reach(f"after deliver {intent.call}")
        return self._written(task, [refusal] if refusal else [])

    def mailbox(self, line: tuple[str, str]) -> list[Stored]:
        """The messages of an actor that have not ended, in order."""
        return [task for task in self.tasks.values() if task.line == line and task.finish is None]

    async def state(self, claim: Claim, expected: int, intent: Intended, request: StateRequest) -> Written:
        await self._reach(f"before state {intent.call}")
        task = self._owned(claim, expected)
        kept = self.state_of.get((request.agent, request.key), "")
        value: Any = json.loads(kept or "null")
        if request.operation is not StateOperation.GET:
            value = self._may_write(request, kept)
            if value:
                self._put(request)
        done = Done(at=self.now_ms, call=intent.call, outcome=CallOutcome.SUCCEEDED, took_ms=0, value=value)
        for entry in (intent, done):
            self._append(task, entry)
        await self._reach(f"after state {intent.call}")
        return replace(self._written(task, []), done=done)

    def _may_write(self, request: StateRequest, kept: str) -> bool:
        unless = unless_kept(request.key) if request.agent.endswith(OF_ACTORS) else ()
        if any((request.agent, name) in self.state_of for name in unless):
            return False
        return request.operation is StateOperation.PUT or kept == request.expected

    def _put(self, request: StateRequest) -> None:
        for top in gone_with(request.key) if request.agent.endswith(OF_ACTORS) else ():
            for space, name in list(self.state_of):
                if space == request.agent and f"{name}/".startswith(f"{top}/"):
                    del self.state_of[space, name]
        self.state_of[request.agent, request.key] = request.value
        if not request.value:
            del self.state_of[request.agent, request.key]
        self.state_writes.append(request.value)

    async def checkpoint(self, claim: Claim, change: CheckpointChange) -> Checkpointed:
        what = ", ".join(sorted({name[:5] for name in (*change.put, *change.add, *change.drop)}))
        await self._reach(f"before checkpoint {what}")
        task = self._owned(claim, None)
        kept = self.checkpoints.setdefault(checkpoint_space(task.id, task.conversation), {})
        kept |= change.put
        kept |= {name: text for name, text in change.add.items() if name not in kept}
        for name in change.drop:
            kept.pop(name, None)
        await self._reach(f"after checkpoint {what}")
        return Checkpointed(bytes=sum(len(name) + len(text) for name, text in kept.items()))

    async def checkpoint_fields(self, space: str) -> Sequence[str]:
        await self._reach("checkpoint fields")
        return list(self.checkpoints.get(space, {}))

    async def checkpoint_texts(self, space: str, fields: Sequence[str]) -> Sequence[str | None]:
        await self._reach("checkpoint texts")
        return [self.checkpoints.get(space, {}).get(name) for name in fields]

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        return entry

    async def children(self, ids: Sequence[str]) -> Mapping[str, ChildEnd]:
        await self._reach("children")
        ended = {name: task.finish for name in ids if (task := self.tasks[name]).finish is not None}
        return {
            name: ChildEnd(
                status=finish.status,
                reason=str(finish.reason),
                message=finish.message,
                result=finish.result,
                partial=finish.partial,
            )
            for name, finish in ended.items()
            if finish is not None
        }

    async def suspend(self, claim: Claim, expected: int, waits: Waits) -> bool:
        await self._reach("before suspend")
        task = self._owned(claim, expected)
        has_come = (task.cancel_requested and not task.unwinds) or (
            waits.until is not None and waits.until <= self.now_ms
        )
        if has_come or self._has_come(task) or any(self.tasks[child].finish for child in waits.children):
            return False
        self._append(
            task, Suspended(at=self.now_ms, waits_for=waits.kind, call=waits.call, until=waits.until)
        )
        task.status, task.waits, task.suspended_at = TaskStatus.SUSPENDED, waits, self.now_ms
        await self._reach("after suspend")
        return True

    async def finish(self, claim: Claim, finish: Finish) -> None:
        await self._reach("before finish")
        task = self._owned(claim, None)
        json.dumps([finish.result, finish.partial])
        self._end(task, finish)
        await self._reach("after finish")

    async def release(self, claim: Claim, worker: str) -> None:
        await self._reach("before release")
        task = self._owned(claim, None)
        self._append(task, HandedOver(at=self.now_ms, worker=worker))
        task.status = TaskStatus.WAITING
        await self._reach("after release")

    def _store(self, task: Stored) -> None:
        self.tasks[task.id] = task
        self._append(task, Submitted(at=self.now_ms))

    def _resume(self, task: Stored) -> None:
        assert task.waits is not None
        self._append(task, Resumed(at=self.now_ms, waits_for=task.waits.kind))
        task.waits, task.status = None, TaskStatus.WAITING

    def _end(self, task: Stored, finish: Finish) -> None:
        for intent in task.open.values():
            task.tree.settle(reserve_of(intent), reserve_of(intent))
        task.open.clear()
        task.finish, task.status, task.waits = finish, finish.status, None
        if task.conversation is None:
            self.checkpoints.pop(task.id, None)
        self._append(
            task,
            Ended(at=self.now_ms, status=finish.status, reason=str(finish.reason), message=finish.message),
        )
        for other in self.tasks.values():
            if other.waits is not None and task.id in other.waits.children:
                self._resume(other)
        self._cancel_children(task)

    def _cancel_children(self, task: Stored) -> None:
        for child in [one for one in self.tasks.values() if one.parent == task.id]:
            self._cancel(child, "the task that spawned it has come to its end")

    def _cancel(self, task: Stored, message: str) -> None:
        """Cancel a task; one that must run to its end is told so, and does."""
        if task.finish is not None:
            return
        if task.status is TaskStatus.RUNNING or task.must_run_to_end:
            task.cancel_requested = True
            if task.status is TaskStatus.SUSPENDED and not task.unwinds:
                self._resume(task)
        else:
            reason = EndReason.CANCELLED
            cancelled = Finish(
                status=TaskStatus.CANCELLED, reason=reason, message=message, result=None, busy_ms={}, calls={}
            )
            self._end(task, cancelled)

    def _has_come(self, task: Stored) -> bool:
        return any(self._came(task, intent, ()) for intent in task.open.values())

    def _came(self, task: Stored, intent: Intended, taken: Collection[str]) -> Came | None:
        """The answer for a call; that nobody decided in time is a decision too, which stands."""
        if intent.kind not in WAIT_OUTSIDE:
            return None
        for name, (kind, value) in task.signals.items():
            if intent.kind is CallKind.SIGNAL and kind == intent.target and name not in taken:
                return Came(value=value, signal=name)
        if intent.call in task.decided:
            return Came(value=task.decided[intent.call])
        return Came(is_late=True) if self.now_ms >= (intent.until or 0) else None

    def _owned(self, claim: Claim, expected: int | None) -> Stored:
        task = self.tasks[claim.id]
        held = task.token == claim.token and task.status is TaskStatus.RUNNING
        if not held or expected not in (None, len(task.texts)):
            raise LeaseLostError(claim.id)
        return task

    def _reserve(self, task: Stored, intent: Intended) -> Refusal | None:
        before, tree = task.open.get(intent.call), replace(task.tree)
        if before is not None:
            task.tree.settle(reserve_of(before), spent_of(before, intent))
        refusal = task.tree.refusal(intent)
        if refusal is not None and intent.spent_tokens is not None:
            task.tree.used, task.tree.reserved = tree.used, tree.reserved
        elif refusal is not None:
            task.open.pop(intent.call, None)
        else:
            task.tree.reserved = task.tree.reserved + reserve_of(intent)
            task.tree.check()
            task.open[intent.call] = intent
        return refusal

    def _declined(self, task: Stored, intent: Intended, post: Post) -> Refusal | None:
        to, space = post.delivery.to, post.agent + OF_ACTORS
        waiting = len(self.mailbox((post.agent, to.name)))
        refused = None
        if any((space, f"ended/{name}") in self.state_of for name in to.line):
            refused = (MessageRefusal.ACTOR_ENDED, 0, 0)
        elif post.is_asked and self._asks_itself(task, (post.agent, to.name)):
            refused = (MessageRefusal.ASKS_ITSELF, 0, 0)
        elif waiting >= post.mailbox:
            refused = (MessageRefusal.MAILBOX_FULL, post.mailbox, waiting)
        if refused is None:
            return self._no_room(task, intent) if post.is_asked else None
        limit, most, committed = refused
        return Refusal(
            call=intent.call, limit=limit, most=most, committed=committed, wanted=1, may_change=False
        )

    def _asks_itself(self, task: Stored, line: tuple[str, str]) -> bool:
        askers: list[Stored] = [task]
        while (above := askers[-1].parent) is not None:
            askers.append(self.tasks[above])
        followed = self.mailbox(line)[:1]
        for one in followed:  # which grows meanwhile
            below = [child for child in self.tasks.values() if child.parent == one.id and not child.finish]
            heads = [self.mailbox(child.line)[0] if child.line else child for child in below]
            followed += [head for head in heads if head not in followed]
        return any(one in askers for one in followed)

    def _no_room(self, task: Stored, intent: Intended) -> Refusal | None:
        siblings = sum(one.parent == task.id and one.finish is None for one in self.tasks.values())
        for limit, most, committed, may_change in (
            (LimitName.DEPTH, task.limits.max_depth, task.depth, False),
            (LimitName.FAN_OUT, task.limits.max_fan_out, siblings, True),
        ):
            if committed + 1 > most:
                return Refusal(
                    call=intent.call,
                    limit=limit,
                    most=most,
                    committed=committed,
                    wanted=1,
                    may_change=may_change,
                )
        return None

    def _append(self, task: Stored, entry: Entry) -> None:
        task.texts.append(encode(entry))

    def _written(self, task: Stored, refused: Sequence[Refusal]) -> Written:
        return Written(
            length=len(task.texts),
            cancel_requested=task.cancel_requested,
            refused=tuple(refused),
            budget=task.tree.budget,
        )

    async def _reach(self, point: str) -> None:
        await asyncio.sleep(0)
        self.points.reach(point)
