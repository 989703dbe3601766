"""The scripts against a simple model: drawn sequences of what callers and workers do, on a real Redis.

After each step both must have granted the same tasks in the same order, refused the same writes and calls,
and count the same: tasks by status, attempts, budgets, places, bytes. Half of all writes are sent twice, as
after a lost answer, and must be answered alike.
"""

import asyncio
import secrets
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from agent_support import model
from agent_support.model import State
from agent_support.stores import END, done, intent
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import CallKind, WaitKind
from flotilla_runtime.agent.protocols import Waits
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim, Decision, NewTask, ResolveOutcome, caller_key
from flotilla_runtime.contract import Priority, QueueConfig, TaskLimits
from redis_servers import ADMIN

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

PEOPLE = [("red", "ann"), ("red", "bob"), ("blue", "cleo"), ("green", "dan")]
WORKERS = ["w1", "w2", "w3"]
CALLS = ["a", "b"]
LARGE_VALUES = ["x" * 70_000, "y" * 80_000]
VALUES = ["so", *LARGE_VALUES]
LIMITS = TaskLimits(
    max_steps=model.MOST_STEPS,
    max_tokens=model.MOST_TOKENS,
    max_depth=model.MOST_DEPTH,
    max_fan_out=model.MOST_WIDTH,
)
NEVER = 2**42
NEWS = ["news", "mail"]


class Scripts(RuleBasedStateMachine):
    """One fleet's tasks in Redis and in the model."""

    server: Any

    def __init__(self) -> None:
        super().__init__()
        self.config = QueueConfig(
            fleet=f"default/{secrets.token_hex(8)}",
            url=self.server.url,
            password_path=self.server.password_path,
            max_waiting=model.PLACES,
            queue_percent=100 * model.PLACES_EACH / model.PLACES,
            max_attempts=model.MOST_ATTEMPTS,
            lease_seconds=600,
        )
        self.loop = asyncio.new_event_loop()
        self.store = TaskStore(connect(self.config), self.config)
        assert self.ask(self.store.claim("w0", 1)) == [], "a worker has come, so tasks wait in lines"
        self.ask(self.store.leave("w0"))
        self.plain: Any = Redis(
            port=self.server.port, username=ADMIN, password=self.server.password, decode_responses=True
        )
        self.model = model.Store()
        self.claims: dict[str, Claim] = {}
        self.stale: list[Claim] = []
        self.tokens: set[tuple[str, int]] = set()
        self.number = 0
        self.tick = 1

    def teardown(self) -> None:
        self.ask(self.store.close())
        self.loop.close()
        self.plain.close()

    def ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(question)

    def asked(self, heard: bool, write: Any) -> Any:
        """The answer to a write, which is sent again under its name if the first answer was not heard."""
        name = secrets.token_hex(4)
        answer = self.ask(write(name))
        assert heard or self.ask(write(name)) == answer
        return answer

    def next_tick(self) -> int:
        """A time long ago, later than the ones before."""
        self.tick += 1
        return self.tick

    def running(self, data: st.DataObject) -> Claim:
        name = data.draw(st.sampled_from(self.free_names()))
        return self.claims[name]

    def free_names(self) -> list[str]:
        """Tasks that run and whose worker is not lost."""
        return [task.id for task in self.model.of(State.RUNNING) if task.id not in self.model.expired]

    def length(self, name: str) -> int:
        return int(self.plain.llen(self.store.keys.journal(name)))

    @rule(person=st.sampled_from(PEOPLE), priority=st.sampled_from(Priority), count=st.integers(1, 6))
    def submit(self, person: tuple[str, str], priority: Priority, count: int) -> None:
        tenant, caller = person
        for _ in range(count):
            self.number += 1
            name = f"t{self.number:03}"
            expected = self.model.submit(name, tenant, caller, priority)
            new = NewTask(id=name, input="?", caller=caller, tenant=tenant, limits=LIMITS, priority=priority)
            assert self.ask(self.store.submit(new)).outcome == expected

    @rule(worker=st.sampled_from(WORKERS), wanted=st.integers(0, 16), heard=st.booleans())
    def claim(self, worker: str, wanted: int, heard: bool) -> None:
        request = secrets.token_hex(4)
        granted = self.ask(self.store.claim(worker, wanted, request))
        assert heard or not granted or self.ask(self.store.claim(worker, wanted, request)) == granted
        self.ask(self.store.leave(worker))
        assert [claim.id for claim in granted] == self.model.claim(worker, wanted)
        for claim in granted:
            assert (claim.id, claim.token) not in self.tokens
            self.tokens.add((claim.id, claim.token))
            if claim.id in self.claims:
                self.stale.append(self.claims[claim.id])
            self.claims[claim.id] = claim

    @rule(worker=st.sampled_from(WORKERS))
    def worker_is_lost(self, worker: str) -> None:
        for name in self.model.lose(worker):
            self.plain.zadd(self.store.keys.leases, {name: self.next_tick()})
        self.plain.zadd(self.store.keys.workers, {worker: 1})

    @rule(worker=st.sampled_from(WORKERS))
    def worker_comes_back(self, worker: str) -> None:
        """It was cut off: it renews all leases that it had, and has those again that nobody has taken."""
        names = [task.id for task in self.model.tasks.values() if task.worker == worker]
        claims = [self.claims[name] for name in names]
        kept = {name for name in names if self.model.owns(name, worker)}
        self.model.expired = [name for name in self.model.expired if name not in kept]
        if claims:
            assert self.ask(self.store.renew(claims)).lost == set(names) - kept

    @precondition(lambda self: self.free_names())
    @rule(data=st.data(), call=st.sampled_from(CALLS), tokens=st.integers(1, 60), heard=st.booleans())
    def call_begins(self, data: st.DataObject, call: str, tokens: int, heard: bool) -> None:
        claim = self.running(data)
        length, room = self.length(claim.id), 1000 * tokens
        asked = intent(call, reserved_tokens=tokens, reserved_steps=1, reserved_bytes=room)
        written = self.asked(heard, lambda write: self.store.append(claim, length, [asked], write))
        refused = self.model.begin(claim.id, call, tokens, room)
        assert [str(refusal.limit) for refusal in written.refused] == ([refused] if refused else [])
        assert written.length == length + (refused is None)
        assert written.cancel_requested == self.model.tasks[claim.id].cancel_requested

    @precondition(lambda self: self.free_names())
    @rule(
        data=st.data(),
        call=st.sampled_from(CALLS),
        share=st.floats(0, 1),
        tokens=st.integers(1, 60),
        heard=st.booleans(),
    )
    def call_goes_on(self, data: st.DataObject, call: str, share: float, tokens: int, heard: bool) -> None:
        """Its tries have spent what it held."""
        claim = self.running(data)
        spent = int(share * self.model.tasks[claim.id].open.get(call, 0))
        length = self.length(claim.id)
        room = 1000 * tokens
        anew = intent(call, reserved_tokens=tokens, reserved_steps=1, spent_tokens=spent, reserved_bytes=room)
        written = self.asked(heard, lambda write: self.store.append(claim, length, [anew], write))
        refused = self.model.go_on(claim.id, call, spent, tokens, room)
        assert [str(refusal.limit) for refusal in written.refused] == ([refused] if refused else [])
        assert written.length == length + (refused is None)

    @precondition(lambda self: self.free_names())
    @rule(
        data=st.data(),
        call=st.sampled_from(CALLS),
        share=st.floats(0, 1),
        value=st.sampled_from(VALUES),
        heard=st.booleans(),
    )
    def call_ends(self, data: st.DataObject, call: str, share: float, value: str, heard: bool) -> None:
        claim = self.running(data)
        used = int(share * self.model.tasks[claim.id].open.get(call, 0))
        length = self.length(claim.id)
        result = done(call, input_tokens=used, value=value)
        self.asked(heard, lambda write: self.store.append(claim, length, [result], write))
        self.model.done(claim.id, call, used)
        if value in LARGE_VALUES:
            self.model.tasks[claim.id].texts.add(value)

    @precondition(lambda self: self.free_names())
    @rule(data=st.data(), call=st.sampled_from([*CALLS, "c"]), heard=st.booleans())
    def spawn(self, data: st.DataObject, call: str, heard: bool) -> None:
        claim = self.running(data)
        length, spawned = self.length(claim.id), intent(f"s/{call}", kind=CallKind.SPAWN, reserved_tokens=0)
        written = self.asked(heard, lambda write: self.store.spawn(claim, length, spawned, "?", write))
        refused = self.model.spawn(claim.id, f"s/{call}")
        assert [str(refusal.limit) for refusal in written.refused] == ([refused] if refused else [])

    @precondition(lambda self: self.free_names())
    @rule(data=st.data(), kind=st.sampled_from(WaitKind), heard=st.booleans())
    def suspend(self, data: st.DataObject, kind: WaitKind, heard: bool) -> None:
        claim = self.running(data)
        spawned = tuple(task.id for task in self.model.tasks.values() if task.parent == claim.id)
        children = spawned if kind is WaitKind.CHILDREN else ()
        until = NEVER if kind is WaitKind.TIMER or not (children or kind is WaitKind.EFFECT) else None
        waits = Waits(kind=kind, call="x", children=children, until=until)
        length = self.length(claim.id)
        suspended = self.asked(heard, lambda write: self.store.suspend(claim, length, waits, write))
        assert suspended == self.model.suspend(claim.id, children, effect=kind is WaitKind.EFFECT)
        if suspended:
            self.stale.append(claim)

    @precondition(lambda self: any(task.waits_effect for task in self.model.of(State.SUSPENDED)))
    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        waiting = [task.id for task in self.model.of(State.SUSPENDED) if task.waits_effect]
        name = data.draw(st.sampled_from(waiting))
        for call, outcome in (
            ("y", ResolveOutcome.NOTHING_UNKNOWN),
            ("x", ResolveOutcome.RESOLVED),
            ("x", ResolveOutcome.RESOLVED),
        ):
            assert self.ask(self.store.resolve(name, call, happened=True, by="ann")) is outcome
        self.model.resolve(name)

    @precondition(lambda self: self.free_names())
    @rule(data=st.data(), call=st.sampled_from(["o/a", "o/b", "o/c"]), name=st.sampled_from(["", *NEWS]))
    def a_call_waits_for_somebody_outside(self, data: st.DataObject, call: str, name: str) -> None:
        claim = self.running(data)
        task = self.model.tasks[claim.id]
        if call in (*task.approvals, *task.listens):
            return
        kind = CallKind.SIGNAL if name else CallKind.APPROVE
        asked = intent(call, kind=kind, target=name, reserved_tokens=0, until=NEVER)
        self.ask(self.store.append(claim, self.length(claim.id), [asked]))
        if name:
            self.model.listen(claim.id, call, name)
        else:
            self.model.ask(claim.id, call)

    @precondition(lambda self: any(self.model.tasks[name].outside for name in self.free_names()))
    @rule(data=st.data(), heard=st.booleans())
    def what_came_is_written(self, data: st.DataObject, heard: bool) -> None:
        name = data.draw(st.sampled_from([one for one in self.free_names() if self.model.tasks[one].outside]))
        claim, call = self.claims[name], data.draw(st.sampled_from(sorted(self.model.tasks[name].outside)))
        came, expected = self.ask(self.store.came(claim, call, ())), self.model.came(name, call)
        if came is None or expected is None:
            assert came is expected
            return
        assert (came.signal or came.value["approved"]) == expected
        length, result = self.length(name), done(call, signal=came.signal)
        self.asked(heard, lambda write: self.store.append(claim, length, [result], write))
        self.model.answered(name, call)

    @precondition(lambda self: any(task.approvals for task in self.model.tasks.values()))
    @rule(data=st.data(), approved=st.booleans(), by=st.sampled_from(["boss", "other"]))
    def somebody_decides(self, data: st.DataObject, approved: bool, by: str) -> None:
        asked = [(task.id, call) for task in self.model.tasks.values() for call in task.approvals]
        name, call = data.draw(st.sampled_from(asked))
        verdict = self.ask(self.store.approve(name, call, Decision(approved=approved, by=by)))
        stands = verdict.decision.approved if verdict.decision else verdict.outcome
        assert stands == self.model.approve(name, call, approved)

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), signal=st.sampled_from(NEWS), heard=st.booleans())
    def somebody_signals(self, data: st.DataObject, signal: str, heard: bool) -> None:
        name, request = data.draw(st.sampled_from(sorted(self.model.tasks))), secrets.token_hex(4)
        outcome = self.ask(self.store.signal(name, signal, 1, request))
        assert heard or self.ask(self.store.signal(name, signal, 1, request)) == outcome
        assert outcome == self.model.signal(name, signal, request)

    @rule()
    def timers_ring(self) -> None:
        timers = f"{self.store.keys.prefix}timers"
        known = map(str, self.plain.zrange(timers, 0, -1))
        ringing = [name for name in known if name not in self.model.rung]
        for name in ringing:
            self.model.rung.append(name)
            self.plain.zadd(timers, {name: self.next_tick()})

    @precondition(lambda self: self.model.apart)
    @rule(data=st.data())
    def a_suspect_waits_long(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.model.apart))
        self.plain.zadd(self.store.keys.waiting(self.model.tasks[name].priority), {name: 1})
        self.model.waits_long.add(name)

    @precondition(lambda self: self.free_names())
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        claim = self.running(data)
        self.ask(self.store.finish(claim, END))
        self.ask(self.store.finish(claim, END))
        self.model.end(self.model.tasks[claim.id])
        self.stale.append(claim)

    @precondition(lambda self: self.free_names())
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        claim = self.running(data)
        self.ask(self.store.release(claim, "w"))
        self.ask(self.store.release(claim, "w"))
        self.model.release(claim.id)

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def a_stale_holder_comes_back(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.stale))
        with pytest.raises(LeaseLostError):
            self.ask(self.store.append(claim, self.length(claim.id), [intent()]))

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.tasks)))
        assert self.ask(self.store.cancel(name)) == self.model.cancel(name)

    @invariant()
    def both_count_the_same(self) -> None:
        states = {state: len(self.model.of(state)) for state in State}
        counts = self.plain.hgetall(f"{self.store.keys.prefix}counts")
        assert {name: int(count) for name, count in counts.items()} == {
            f"{state.name.capitalize()}:": count
            for state, count in states.items()
            if count and state is not State.ENDED
        }
        assert self.ask(self.store.queue_lengths()) == (states[State.WAITING], states[State.RUNNING])

    @invariant()
    def tasks_are_the_same(self) -> None:
        callers = {caller for _, caller in PEOPLE}
        places = {caller_key(name): str(count) for name in callers if (count := self.model.places_of(name))}
        assert self.plain.hgetall(f"{self.store.keys.prefix}places") == places
        stored = 0
        for task in self.model.tasks.values():
            held: Any = self.plain.hgetall(self.store.keys.task(task.id))
            stored += int(held["bytes"]) + int(held["journalBytes"]) + int(held.get("payloadBytes", 0))
            assert self.plain.hlen(self.store.keys.payloads(task.id)) == len(task.texts)
            if task.state is not State.ENDED:
                assert int(held["attempts"]) == task.attempts, task
                assert held.get("company") == (None if task.company is None else str(task.company)), task
            calls: Any = self.plain.hkeys(f"{self.store.keys.prefix}open:{task.id}")
            assert {call for call in calls if call[:2] not in ("s/", "o/")} == set(task.open)
        promised = {caller_key(name): str(room) for name in callers if (room := self.model.room_of(name))}
        assert self.plain.hgetall(f"{self.store.keys.prefix}promised") == promised
        total = self.plain.hget(f"{self.store.keys.prefix}stored", "*")
        assert int(total or 0) == stored

    @invariant()
    def signals_are_the_same(self) -> None:
        for task in self.model.tasks.values():
            assert set(self.plain.hkeys(f"{self.store.keys.prefix}signals:{task.id}")) == set(task.signals)

    @invariant()
    def budgets_are_the_same_and_kept(self) -> None:
        for name, budget in self.model.budgets.items():
            shown: Any = self.plain.hmget(
                self.store.keys.task(name), "usedSteps", "usedTokens", "heldSteps", "heldTokens"
            )
            assert [int(value or 0) for value in shown] == [
                budget.used_steps,
                budget.used_tokens,
                budget.held_steps,
                budget.held_tokens,
            ]
            assert budget.used_tokens + budget.held_tokens <= model.MOST_TOKENS
            assert budget.used_steps + budget.held_steps <= model.MOST_STEPS


@pytest.mark.holds(
    "agent-code.md", "No approval is asked for twice and no signal taken twice, wherever the worker is lost"
)
@pytest.mark.holds("tasks.md", "Tenants take turns, and in a tenant's turn its callers")
@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "A call whose tries have spent what it reserved settles that, reserves anew, and goes on as "
    "the same step",
)
def test_the_scripts_do_as_the_model(redis_server: Any, tmp_path: Path) -> None:
    machine = type("OnThisServer", (Scripts,), {"server": redis_server})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )
