"""A simple model of the task store: what the scripts must do, in Python's own lists."""

from dataclasses import dataclass, field, replace
from enum import Enum, auto

from flotilla_runtime.agent.tasks import child_id
from flotilla_runtime.contract import Priority

BATCH_FIRST_EVERY = 10
PLACES, PLACES_EACH = 24, 18
MOST_STEPS, MOST_TOKENS = 4, 100
MOST_ATTEMPTS, MOST_DEPTH, MOST_WIDTH = 2, 1, 2


class State(Enum):
    WAITING = auto()
    RUNNING = auto()
    SUSPENDED = auto()
    ENDED = auto()


@dataclass(slots=True)
class Line:
    """Those who wait for a turn, in order."""

    members: list[str] = field(default_factory=list)

    def join(self, who: str) -> None:
        if who not in self.members:
            self.members.append(who)

    def had_a_turn(self, who: str, *, has_more: bool) -> None:
        self.members.remove(who)
        if has_more:
            self.members.append(who)


@dataclass(slots=True)
class Queue:
    """One priority: the tasks of each caller, those ahead first, and who has the next turn."""

    tenants: Line = field(default_factory=Line)
    callers: dict[str, Line] = field(default_factory=dict)
    ahead: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    tasks: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def own(self, tenant: str, caller: str) -> list[str]:
        return self.ahead.get((tenant, caller), []) + self.tasks.get((tenant, caller), [])

    def join(self, task: str, tenant: str, caller: str, *, ahead: bool) -> None:
        self.callers.setdefault(tenant, Line()).join(caller)
        self.tenants.join(tenant)
        (self.ahead if ahead else self.tasks).setdefault((tenant, caller), []).append(task)

    def take(self) -> str | None:
        if not self.tenants.members:
            return None
        tenant = self.tenants.members[0]
        caller = self.callers[tenant].members[0]
        task = self.own(tenant, caller)[0]
        self._remove(task)
        self.callers[tenant].had_a_turn(caller, has_more=bool(self.own(tenant, caller)))
        self.tenants.had_a_turn(tenant, has_more=bool(self.callers[tenant].members))
        return task

    def leave(self, task: str, tenant: str, caller: str) -> None:
        self._remove(task)
        if not self.own(tenant, caller) and caller in self.callers.get(tenant, Line()).members:
            self.callers[tenant].members.remove(caller)
        if tenant in self.tenants.members and not self.callers[tenant].members:
            self.tenants.members.remove(tenant)

    def _remove(self, task: str) -> None:
        for own in (*self.ahead.values(), *self.tasks.values()):
            if task in own:
                own.remove(task)


@dataclass(slots=True)
class Budget:
    """The usage and the reservations of a tree of tasks."""

    used_steps: int = 0
    used_tokens: int = 0
    held_steps: int = 0
    held_tokens: int = 0


@dataclass(slots=True)
class Task:
    id: str
    tenant: str
    caller: str
    priority: Priority
    root: str
    parent: str | None = None
    state: State = State.WAITING
    worker: str | None = None
    attempts: int = 0
    company: int | None = None
    strict: bool = False
    lost: tuple[int | None, bool, bool] | None = None
    cancel_requested: bool = False
    open: dict[str, int] = field(default_factory=dict)
    room: dict[str, int] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    children: set[str] = field(default_factory=set)
    waits_for: tuple[str, ...] = ()
    waits_effect: bool = False
    outside: set[str] = field(default_factory=set)  # calls that wait for somebody outside
    approvals: dict[str, bool | None] = field(default_factory=dict)
    listens: dict[str, str] = field(default_factory=dict)
    signals: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Store:
    """The fleet's tasks. Its methods say what came of each request."""

    tasks: dict[str, Task] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    queues: dict[Priority, Queue] = field(default_factory=lambda: {name: Queue() for name in Priority})
    first: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    rung: list[str] = field(default_factory=list)
    waits_long: set[str] = field(default_factory=set)
    emptying: str | None = None
    taken: int = 0

    def of(self, state: State) -> list[Task]:
        return [task for task in self.tasks.values() if task.state is state]

    def held_by(self, worker: str) -> list[Task]:
        return [task for task in self.of(State.RUNNING) if task.worker == worker]

    def room_of(self, caller: str) -> int:
        return sum(sum(task.room.values()) for task in self.tasks.values() if task.caller == caller)

    def places_of(self, caller: str) -> int:
        return len([task for task in self.of(State.WAITING) if task.caller == caller])

    def submit(self, name: str, tenant: str, caller: str, priority: Priority) -> str:
        if len(self.of(State.WAITING)) >= PLACES:
            return "Full"
        if self.places_of(caller) >= PLACES_EACH:
            return "CallerFull"
        self.tasks[name] = Task(name, tenant, caller, priority, root=name)
        self.budgets[name] = Budget()
        self._join(self.tasks[name], ahead=False)
        return "Created"

    def claim(self, worker: str, wanted: int) -> list[str]:
        self._sweep()
        for name in self.rung:
            self._resume(self.tasks[name])
        self.rung.clear()
        room = min(wanted, len(self.of(State.WAITING)))
        if self._is_alone(worker):
            return []
        granted: list[str] = []
        if not self._take_apart(worker, room, granted):
            while self.first and len(granted) < room:
                self._grant(self.first.pop(0), worker, granted)
            while len(granted) < room and (taken := self._next()):
                self._grant(taken, worker, granted)
        return granted

    def _take_apart(self, worker: str, room: int, granted: list[str]) -> bool:
        """Whether the worker takes nothing else."""
        for name in list(self.apart):
            task = self.tasks[name]
            if len(granted) >= room:
                return False
            if self._may_join(task, worker):
                self.apart.remove(name)
                self._grant(name, worker, granted)
                if self._is_alone(worker):
                    return True
            elif self._must_empty(task, worker):
                self.emptying = worker
                return True
        return False

    def _must_empty(self, task: Task, worker: str) -> bool:
        waits = task.strict and task.id in self.waits_long
        return waits and bool(self.held_by(worker)) and self.emptying in (None, worker)

    def _may_join(self, task: Task, worker: str) -> bool:
        assert task.company is not None
        suspects = [other.company for other in self.held_by(worker) if other.company is not None]
        others = self.held_by(worker)
        if task.company == 1 and others and (task.strict or task.id not in self.waits_long):
            return False
        return len(suspects) + 1 <= min([task.company, *suspects])

    def _is_alone(self, worker: str) -> bool:
        return [task.company for task in self.held_by(worker)] == [1]

    def _grant(self, name: str, worker: str, granted: list[str]) -> None:
        task = self.tasks[name]
        task.state, task.worker, task.lost = State.RUNNING, worker, None
        self.waits_long.discard(name)
        task.attempts = max(1, task.attempts)
        granted.append(name)

    def _next(self) -> str | None:
        first, second = self.queues[Priority.INTERACTIVE], self.queues[Priority.BATCH]
        if (self.taken + 1) % BATCH_FIRST_EVERY == 0:
            first, second = second, first
        name = first.take() or second.take()
        self.taken += name is not None
        return name

    def lose(self, worker: str) -> list[str]:
        """A worker is killed; the next claim finds that. The order in which its leases end."""
        names = [task.id for task in self.held_by(worker) if task.id not in self.expired]
        self.expired.extend(names)
        return names

    def _sweep(self) -> None:
        sizes: dict[str, tuple[int, int]] = {}
        for name in self.expired:
            worker = self.tasks[name].worker
            assert worker is not None
            held = self.held_by(worker)
            sizes.setdefault(worker, (len(held), len([task for task in held if task.company is not None])))
        for name in self.expired:
            task = self.tasks[name]
            if task.state is State.RUNNING:
                self._lose_one(task, *sizes[task.worker or ""])
        self.expired.clear()

    def _lose_one(self, task: Task, everybody: int, suspects: int) -> None:
        alone = everybody == 1
        if alone and task.attempts > MOST_ATTEMPTS:
            self.end(task)
            return
        budget = self.budgets[task.root]
        for call, tokens in task.open.items():
            budget.held_tokens -= tokens
            budget.used_tokens += tokens
            task.open[call] = 0
        before, task.lost = task.company, (task.company, task.strict, alone)
        task.strict = task.strict or (before is not None and suspects == 1)
        task.company = everybody if before is None else max(1, suspects // 4)
        task.attempts += alone
        task.state = State.WAITING
        self.apart.append(task.id)

    def owns(self, name: str, worker: str) -> bool:
        """Whether whoever held the task last may still write, and has it again."""
        task = self.tasks[name]
        if task.worker != worker:
            return False
        if task.state is State.WAITING and task.lost is not None:
            task.company, task.strict, alone = task.lost
            task.attempts -= alone
            task.lost, task.state = None, State.RUNNING
            self.waits_long.discard(name)
            self.apart.remove(name)
        return task.state is State.RUNNING

    def begin(self, name: str, call: str, tokens: int, room: int) -> str | None:
        """The limit that refuses the call."""
        task = self.tasks[name]
        if call in task.open:
            self._settle(task, call, steps=0, tokens=task.open[call])
        return self._reserve(task, call, tokens, room)

    def go_on(self, name: str, call: str, spent: int, tokens: int, room: int) -> str | None:
        """The same for a call whose tries have spent so much of what it holds, which it keeps if refused."""
        task = self.tasks[name]
        budget, held = self.budgets[task.root], task.open.get(call)
        before, had_room = replace(budget), task.room.get(call)
        if held is not None:
            self._settle(task, call, steps=0, tokens=spent)
        refused = self._reserve(task, call, tokens, room)
        if refused and held is not None:
            self.budgets[task.root], task.open[call] = before, held
            if had_room is not None:
                task.room[call] = had_room
        return refused

    def _reserve(self, task: Task, call: str, tokens: int, room: int) -> str | None:
        budget = self.budgets[task.root]
        if budget.used_steps + budget.held_steps + 1 > MOST_STEPS:
            return "maxSteps"
        if budget.used_tokens + budget.held_tokens + tokens > MOST_TOKENS:
            return "maxTokens"
        task.open[call] = tokens
        task.room[call] = room
        budget.held_steps += 1
        budget.held_tokens += tokens
        return None

    def done(self, name: str, call: str, tokens: int) -> None:
        task = self.tasks[name]
        if call in task.open:
            task.company, task.strict = None, False
            self._settle(task, call, steps=1, tokens=tokens)

    def _settle(self, task: Task, call: str, *, steps: int, tokens: int) -> None:
        budget = self.budgets[task.root]
        budget.held_tokens -= task.open.pop(call)
        task.room.pop(call, None)
        budget.held_steps -= 1
        budget.used_steps += steps
        budget.used_tokens += tokens

    def spawn(self, name: str, call: str) -> str | None:
        """The limit that refuses it."""
        parent, child = self.tasks[name], child_id(name, call)
        if child in self.tasks:
            return None
        if parent.parent is not None:
            return "maxDepth"
        if len(parent.children) >= MOST_WIDTH:
            return "maxFanOut"
        self.tasks[child] = Task(
            child, parent.tenant, parent.caller, parent.priority, root=parent.root, parent=name
        )
        parent.children.add(child)
        self._join(self.tasks[child], ahead=False)
        return None

    def suspend(self, name: str, children: tuple[str, ...], *, effect: bool) -> bool:
        task = self.tasks[name]
        if task.cancel_requested or any(self.tasks[child].state is State.ENDED for child in children):
            return False
        if self._has_come(task):
            return False
        task.state, task.waits_for, task.waits_effect = State.SUSPENDED, children, effect
        task.room.clear()
        return True

    def ask(self, name: str, call: str) -> None:
        self.tasks[name].outside.add(call)
        self.tasks[name].approvals[call] = None

    def listen(self, name: str, call: str, signal: str) -> None:
        self.tasks[name].outside.add(call)
        self.tasks[name].listens[call] = signal

    def answered(self, name: str, call: str) -> None:
        """The result of a call that somebody outside answered is written."""
        task = self.tasks[name]
        task.signals.pop(str(self.came(name, call)), None)
        task.outside.remove(call)

    def approve(self, name: str, call: str, approved: bool) -> bool | str:
        """Return the decision that stands: this one or an earlier one."""
        task = self.tasks[name]
        before = task.approvals.get(call)
        if before is not None:
            return before
        if call not in task.outside or task.state is State.ENDED:
            return "NotAsked"
        task.approvals[call] = approved
        if task.state is State.SUSPENDED:
            self._resume(task)
        return approved

    def signal(self, name: str, signal: str, kept_as: str) -> str:
        task = self.tasks[name]
        if task.state is State.ENDED:
            return "Ended"
        task.signals[kept_as] = signal
        if task.state is State.SUSPENDED and self._has_come(task):
            self._resume(task)
        return "Kept"

    def came(self, name: str, call: str) -> bool | str | None:
        """The decision on a call, or the signal that it takes."""
        task = self.tasks[name]
        if call in task.approvals:
            return task.approvals[call]
        kept = [kept_as for kept_as, signal in task.signals.items() if signal == task.listens[call]]
        return kept[0] if kept else None

    def _has_come(self, task: Task) -> bool:
        """Whether a call that is open has what it waits for."""
        return any(self.came(task.id, call) is not None for call in task.outside)

    def resolve(self, name: str) -> None:
        self._resume(self.tasks[name])

    def _resume(self, task: Task) -> None:
        task.state, task.waits_for, task.waits_effect = State.WAITING, (), False
        self._join(task, ahead=True)

    def release(self, name: str) -> None:
        task = self.tasks[name]
        task.state = State.WAITING
        (self.first if task.company is None else self.apart).append(name)

    def cancel(self, name: str) -> str:
        task = self.tasks[name]
        if task.state is State.ENDED:
            return "Ended"
        if task.state is State.RUNNING:
            task.cancel_requested = True
            return "Requested"
        self.end(task)
        return "Cancelled"

    def end(self, task: Task) -> None:
        if task.state is State.WAITING:
            self._leave(task)
        for call in list(task.open):
            self._settle(task, call, steps=1, tokens=task.open[call])
        task.state, task.company, task.waits_for = State.ENDED, None, ()
        if task.id in self.rung:
            self.rung.remove(task.id)
        if task.parent is not None:
            parent = self.tasks[task.parent]
            parent.children.discard(task.id)
            if parent.state is State.SUSPENDED and task.id in parent.waits_for:
                self._resume(parent)
        for child in sorted(task.children):
            self.cancel(child)
        task.children.clear()

    def _join(self, task: Task, *, ahead: bool) -> None:
        self.queues[task.priority].join(task.id, task.tenant, task.caller, ahead=ahead)

    def _leave(self, task: Task) -> None:
        for line in (self.first, self.apart):
            if task.id in line:
                line.remove(task.id)
        self.queues[task.priority].leave(task.id, task.tenant, task.caller)
