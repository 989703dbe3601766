"""The scripts against a simple model: drawn sequences of submissions, claims and losses on a real Redis.

The model keeps tasks in Python's own lists. After each step both must have granted the same tasks in the same
order, refuse the same writes, and count the same.
"""

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from flotilla_runtime.agent.connections import connect
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import EndReason, TaskStatus
from flotilla_runtime.agent.protocols import Finish
from flotilla_runtime.agent.store import TaskStore
from flotilla_runtime.agent.tasks import CancelOutcome, Claim, NewTask, SubmitOutcome
from flotilla_runtime.contract import Priority, QueueConfig, TaskLimits

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

MOST_WAITING = 8
BATCH_FIRST_EVERY = 10
PEOPLE = [("red", "ann"), ("red", "bob"), ("blue", "cleo"), ("green", "dan")]
END = Finish(
    status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, result={"answer": "so"}, busy_ms={}, calls={}
)


@dataclass(slots=True)
class Line:
    """Those who wait for a turn, in order, each with what waits for them."""

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
    """One priority: the tasks of each caller, and who has the next turn."""

    tenants: Line = field(default_factory=Line)
    callers: dict[str, Line] = field(default_factory=dict)
    tasks: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def join(self, task: str, tenant: str, caller: str) -> None:
        self.tenants.join(tenant)
        self.callers.setdefault(tenant, Line()).join(caller)
        self.tasks.setdefault((tenant, caller), []).append(task)

    def take(self) -> str | None:
        if not self.tenants.members:
            return None
        tenant = self.tenants.members[0]
        caller = self.callers[tenant].members[0]
        task = self.tasks[tenant, caller].pop(0)
        self._turn_over(tenant, caller)
        return task

    def leave(self, task: str) -> None:
        for (tenant, caller), tasks in self.tasks.items():
            if task in tasks:
                tasks.remove(task)
                if not tasks:
                    self.callers[tenant].members.remove(caller)
                if not self.callers[tenant].members:
                    self.tenants.members.remove(tenant)

    def _turn_over(self, tenant: str, caller: str) -> None:
        self.callers[tenant].had_a_turn(caller, has_more=bool(self.tasks[tenant, caller]))
        self.tenants.had_a_turn(tenant, has_more=bool(self.callers[tenant].members))

    def __len__(self) -> int:
        return sum(map(len, self.tasks.values()))


class Scripts(RuleBasedStateMachine):
    """One fleet's tasks in Redis and in the model."""

    server: Any

    def __init__(self) -> None:
        super().__init__()
        fleet = f"default/{secrets.token_hex(8)}"
        self.config = QueueConfig(
            fleet=fleet,
            url=self.server.url,
            password_path=self.server.password_path,
            max_waiting=MOST_WAITING,
            lease_seconds=600,
        )
        self.loop = asyncio.new_event_loop()
        self.store = TaskStore(connect(self.config), self.config)
        assert self.ask(self.store.claim("w", 1)) == [], "a worker has come, so tasks wait in lines"
        self.plain = Redis(port=self.server.port, password=self.server.password)
        self.queues = {priority: Queue() for priority in Priority}
        self.held: dict[str, Claim] = {}
        self.expired: list[str] = []
        self.stale: list[Claim] = []
        self.attempts: dict[str, int] = {}
        self.tokens: set[tuple[str, int]] = set()
        self.taken = 0
        self.number = 0

    def teardown(self) -> None:
        self.ask(self.store.close())
        self.loop.close()
        self.plain.close()

    def ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(question)

    @property
    def waiting(self) -> int:
        return sum(map(len, self.queues.values()))

    @rule(person=st.sampled_from(PEOPLE), priority=st.sampled_from(Priority))
    def submit(self, person: tuple[str, str], priority: Priority) -> None:
        tenant, caller = person
        self.number += 1
        task = f"t{self.number:03}"
        new = NewTask(
            id=task, input="?", caller=caller, tenant=tenant, limits=TaskLimits(), priority=priority
        )
        if self.waiting >= MOST_WAITING:
            assert self.ask(self.store.submit(new)).outcome is SubmitOutcome.FULL
            return
        assert self.ask(self.store.submit(new)).outcome is SubmitOutcome.CREATED
        self.attempts[task] = 0
        self.queues[priority].join(task, tenant, caller)

    @rule(wanted=st.integers(1, 6), heard=st.booleans())
    def claim(self, wanted: int, heard: bool) -> None:
        expected = self.expired[:wanted]
        del self.expired[:wanted]
        while len(expected) < wanted and (task := self._next()):
            expected.append(task)
        request = secrets.token_hex(4)
        granted = self.ask(self.store.claim("w", wanted, request))
        if not heard:
            assert self.ask(self.store.claim("w", wanted, request)) == granted
        assert [claim.id for claim in granted] == expected
        for claim in granted:
            assert (claim.id, claim.token) not in self.tokens
            self.tokens.add((claim.id, claim.token))
            self.attempts[claim.id] += 1
            self.held[claim.id] = claim

    def _next(self) -> str | None:
        interactive, batch = self.queues[Priority.INTERACTIVE], self.queues[Priority.BATCH]
        first, second = interactive, batch
        if (self.taken + 1) % BATCH_FIRST_EVERY == 0:
            first, second = batch, interactive
        task = first.take() or second.take()
        self.taken += task is not None
        return task

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def lease_ends(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.held)))
        self.plain.zadd(self.store.keys.leases, {task: 1 + len(self.expired)})
        self.stale.append(self.held.pop(task))
        self.expired.append(task)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        claim = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        self.ask(self.store.finish(claim, END))
        self.stale.append(claim)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def a_stale_holder_comes_back(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.stale))
        if claim.id in self.expired:
            return  # nobody has taken it over yet, so it still holds the task
        with pytest.raises(LeaseLostError):
            self.ask(self.store.release(claim, "w"))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        tasks = [task for queue in self.queues.values() for own in queue.tasks.values() for task in own]
        task = data.draw(st.sampled_from(sorted(tasks)))
        assert self.ask(self.store.cancel(task)) is CancelOutcome.CANCELLED
        for queue in self.queues.values():
            queue.leave(task)

    @invariant()
    def both_count_the_same(self) -> None:
        assert self.ask(self.store.queue_lengths()) == (self.waiting, len(self.held) + len(self.expired))
        for claim in self.held.values():
            assert self.ask(self.store.load(claim.id)).record.attempts == self.attempts[claim.id]


def test_the_scripts_do_as_the_model(redis_server: Any, tmp_path: Path) -> None:
    machine = type("OnThisServer", (Scripts,), {"server": redis_server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
