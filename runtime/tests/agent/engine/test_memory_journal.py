"""The store in memory, which the engine's tests use, answers each write as the real store does."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_support.memory import MemoryStore
from flotilla_runtime.agent.actors import Address, Delivery
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import (
    ENDING,
    CallKind,
    CallOutcome,
    Done,
    EndReason,
    Entry,
    Intended,
    TaskStatus,
    WaitKind,
)
from flotilla_runtime.agent.protocols import (
    CheckpointChange,
    Finish,
    Post,
    StateOperation,
    StateRequest,
    Waits,
)
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim, Decision, LoadedTask, NewTask, child_id
from flotilla_runtime.contract import Effect, QueueConfig, TaskLimits

pytestmark = pytest.mark.services

PARENT = "01jd0000000000000000000001"
LIMITS = TaskLimits(max_steps=4, max_tokens=1000, max_cost_usd=1, max_depth=1, max_fan_out=2)
FAR = 4_000_000_000_000  # in the year 2096
DONE = Finish(status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, result={"a": 1}, busy_ms={}, calls={})


class Both:
    """One of the two stores, with the same questions."""

    def __init__(self, store: Any) -> None:
        self.store = store

    async def submit(self) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.submit(PARENT, "go", LIMITS)
        else:
            await self.store.submit(NewTask(id=PARENT, input="go", caller="ann", limits=LIMITS))

    async def claim(self, task_id: str) -> tuple[Claim, LoadedTask]:
        if isinstance(self.store, MemoryStore):
            return self.store.claim(task_id)
        claims = await self.store.claim("w", 1)
        assert [claim.id for claim in claims] == [task_id]
        task = await self.store.load(task_id)
        assert task is not None
        return claims[0], task

    async def signal(self, name: str, value: Any) -> None:
        if isinstance(self.store, MemoryStore):
            self.store.signal(PARENT, name, value)
        else:
            await self.store.signal(PARENT, name, value, "s0")

    async def decide(self, call: str, approved: bool) -> bool:
        """Whether this decision stands."""
        if isinstance(self.store, MemoryStore):
            return self.store.decide(PARENT, call, approved=approved)
        decision = Decision(approved=approved, by="boss")
        verdict = await self.store.approve(PARENT, call, decision)
        return bool(verdict.decision and verdict.decision.is_same(decision))

    async def entries(self, task_id: str) -> list[Entry]:
        if isinstance(self.store, MemoryStore):
            return self.store.tasks[task_id].entries
        task = await self.store.load(task_id)
        assert task is not None
        return list(task.entries)


@pytest.fixture
async def real(redis_server: Any) -> AsyncIterator[Both]:
    config = QueueConfig(
        fleet="default/support", url=redis_server.url, password_path=redis_server.password_path
    )
    store = TaskStore(connect(config), config)
    yield Both(store)
    await store.close()


def intent(call: str, tokens: int = 0, steps: int = 0, **fields: Any) -> Intended:
    kind = CallKind.MODEL if tokens else CallKind.TOOL
    return Intended(
        **{
            "at": 1,
            "call": call,
            "kind": kind,
            "target": "m",
            "reserved_tokens": tokens,
            "reserved_steps": steps,
            "effect": Effect.PURE,
            **fields,
        }
    )


def done(call: str, tokens: int = 0, **fields: Any) -> Done:
    return Done(at=2, call=call, outcome=CallOutcome.SUCCEEDED, took_ms=1, output_tokens=tokens, **fields)


def spawn(call: str, parent: str = PARENT) -> Intended:
    return Intended(at=1, call=call, kind=CallKind.SPAWN, target="", child=child_id(parent, call))


def told(written: Any) -> dict[str, Any]:
    """The answer of a write, but for the figures of a refusal's text."""
    budget = written.budget
    return {
        "length": written.length,
        "cancel": written.cancel_requested,
        "refused": [
            (one.call, str(one.limit), one.most, one.committed, one.wanted, one.may_change)
            for one in written.refused
        ],
        "used": budget and (budget.used.steps, budget.used.tokens, budget.used.nano_usd),
        "reserved": budget and (budget.reserved.steps, budget.reserved.tokens, budget.reserved.nano_usd),
    }


async def reserving(both: Both) -> list[Any]:
    """Reservations, refusals that may change and such that may not, lost and spent tries, and results."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    write = both.store.append
    at = 2
    answers = []
    for entries in (
        [intent("a", 300, 1), intent("b", 300, 1)],
        [intent("c", 500, 1)],
        [done("a", 100, nano_usd=50)],
        [intent("c", 500, 1)],
        [done("nobody", 5)],
        [intent("b", 350, 1)],
        [done("b", 10), done("c", 20), intent("d", 0, 0)],
        [intent("e", 1, 1)],
        [intent("f", 1, 1)],
        [intent("e", 400, 1, spent_tokens=1, spent_nano_usd=7)],
        [intent("e", 300, 1, spent_tokens=200, spent_nano_usd=7)],
        [done("e", 1)],
    ):
        written = await write(claim, at, entries)
        at = written.length
        answers.append(told(written))
    await both.store.finish(claim, DONE)
    return answers


async def spawning(both: Both) -> list[Any]:
    """Children that are spawned, end, and are too many or too deep."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    answers: list[Any] = []
    at = 2
    for call in ("x", "y", "z"):
        written = await both.store.spawn(claim, at, spawn(call), f"do {call}")
        at = written.length
        answers.append(told(written))
    names = [child_id(PARENT, call) for call in ("x", "y")]
    answers.append(await both.store.children(names))
    waits = Waits(kind=WaitKind.CHILDREN, call="x", until=FAR, children=tuple(names))
    answers.append(await both.store.suspend(claim, at, waits))
    child, task = await both.claim(names[0])
    answers.append((task.record.input, task.record.limits.max_tokens))
    deeper = spawn("w", names[0])
    answers.append(told(await both.store.spawn(child, 2, deeper, "deeper")))
    await both.store.append(child, 2, [intent("a", 100, 1)])
    await both.store.append(child, 3, [done("a", 40)])
    await both.store.finish(child, DONE)
    answers.append(await both.store.children(names))
    return answers


async def refusing(both: Both) -> list[Any]:
    """Writes of those who no longer hold the task, or think wrongly how far the journal is."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    await both.store.append(claim, 2, [intent("a")])
    past = Waits(kind=WaitKind.TIMER, call="s", until=1)
    answers: list[Any] = [await both.store.suspend(claim, 3, past)]
    stale = Claim(id=PARENT, token=claim.token - 1)
    asking = (
        lambda: both.store.append(stale, 3, [done("a")]),
        lambda: both.store.append(claim, 7, [done("a")]),
        lambda: both.store.suspend(stale, 3, past),
        lambda: both.store.spawn(stale, 3, spawn("x"), "x"),
        lambda: both.store.finish(stale, DONE),
        lambda: both.store.release(stale, "w"),
    )
    answers += [await _raised(ask) for ask in asking]
    await both.store.release(claim, "w")
    answers.append(await _raised(lambda: both.store.append(claim, 4, [done("a")])))
    again, task = await both.claim(PARENT)
    answers.append(task.record.attempts)
    await both.store.finish(again, DONE)
    answers.append(await _raised(lambda: both.store.append(again, 6, [done("a")])))
    return answers


async def waiting_outside(both: Both) -> list[Any]:
    """Decisions and signals that come before, while and after a call waits for them, and a state."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    asked = intent("p", kind=CallKind.APPROVE, until=FAR)
    heard = intent("n", kind=CallKind.SIGNAL, target="news", until=FAR)
    late = intent("l", kind=CallKind.SIGNAL, target="late", until=1)
    await both.signal("news", 7)
    await both.store.append(claim, 2, [asked, heard, late])
    waits = Waits(kind=WaitKind.APPROVAL, call="p", until=FAR)
    answers: list[Any] = [await both.store.suspend(claim, 5, waits)]
    came = {call: await both.store.came(claim, call, ()) for call in ("p", "n", "l")}
    answers += [came["p"], came["n"].value, came["l"].is_late]
    answers.append(await both.store.came(claim, "n", (came["n"].signal,)))
    await both.store.append(claim, 5, [done("n", signal=came["n"].signal), done("l")])
    answers.append(await both.store.suspend(claim, 7, waits))
    answers.append([await both.decide("p", approved) for approved in (True, False)])
    again, _ = await both.claim(PARENT)
    answers.append((await both.store.came(again, "p", ())).value["approved"])
    answers.append(await _raised(lambda: both.store.came(claim, "p", ())))
    at = 10
    for operation, expected, value in (("Get", "", ""), ("Put", "", "1"), ("CompareAndSwap", "1", "2")):
        request = StateRequest(
            agent="", operation=StateOperation(operation), key="k", expected=expected, value=value
        )
        written = await both.store.state(again, at, intent("k", kind=CallKind.STATE), request)
        answers.append((told(written), written.done.value))
        at = written.length
    return answers


async def delivering(both: Both) -> list[Any]:
    """Messages to actors that are taken, and such that are not, and a task that makes compensations."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    answers: list[Any] = []
    at = 2
    for call, post in (
        ("a", letter("one", mailbox=1)),
        ("b", letter("one", mailbox=1)),
        ("c", letter("two", is_asked=True)),
    ):
        sent = intent(call, steps=1, kind=CallKind.TELL, child=child_id(PARENT, call))
        written = await both.store.deliver(claim, at, sent, post)
        at = written.length
        answers.append(told(written))
    written = await both.store.append(claim, at, [done("a"), intent(ENDING, kind=CallKind.COMPENSATE)])
    answers.append(told(written))
    return answers


async def asking_in_a_circle(both: Both) -> list[Any]:
    """Questions between actors that handle a message each; one that would close a circle is not taken."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    answers: list[Any] = []
    lengths: dict[str, int] = {}
    claims: dict[str, Claim] = {}

    async def sent(sender: Claim, name: str, *, is_asked: bool) -> None:
        call = f"{name}-{lengths.get(sender.id, 2)}"
        kind = CallKind.SPAWN if is_asked else CallKind.TELL
        message = intent(call, kind=kind, child=child_id(sender.id, call))
        post = letter(name, is_asked=is_asked)
        written = await both.store.deliver(sender, lengths.get(sender.id, 2), message, post)
        lengths[sender.id] = written.length
        answers.append((name, told(written)))

    for place, name in enumerate("abcd", 2):
        await sent(claim, name, is_asked=False)
        claims[name], _ = await both.claim(child_id(PARENT, f"{name}-{place}"))
    for asker, asked in ("ab", "db", "bc", "ca", "cb", "cd", "ce", "da"):
        await sent(claims[asker], asked, is_asked=True)
    await sent(claims["c"], "a", is_asked=False)
    return answers


async def ending_an_actor(both: Both) -> list[Any]:
    """The state of an actor and below it goes with its end, and nothing of it is kept again."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    answers: list[Any] = []
    at = 2

    async def asked(operation: StateOperation, key: str, value: str = "") -> None:
        nonlocal at
        request = StateRequest(agent="#actors", operation=operation, key=key, value=value)
        written = await both.store.state(claim, at, intent("s", kind=CallKind.STATE), request)
        answers.append((told(written), written.done.value))
        at = written.length

    below = ("actor/a", "actor/a/b", "actor/a/b/c", "ended/a/d")
    others = ("actor/a.b", "actor/a0", "actor/ab", "ended/ab/c", "actor/z/a")
    for key in (*below, *others, "ended/a"):
        await asked(StateOperation.PUT, key, f'"{key}"')
    for key in (*below, *others, "ended/a"):
        await asked(StateOperation.GET, key)
    for key in (*below, "ended/a"):
        await asked(StateOperation.COMPARE_AND_SWAP, key, "1")
        await asked(StateOperation.PUT, key, "1")
        await asked(StateOperation.GET, key)
    return answers


async def giving_up(both: Both) -> list[Any]:
    """Spawned tasks that are given up: one that waits for a timer, one that runs, and one that has ended."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    answers: list[Any] = []
    x, y, z = (child_id(PARENT, call) for call in "xyz")
    await both.store.spawn(claim, 2, spawn("x"), "do x")
    suspended, _ = await both.claim(x)
    await both.store.append(suspended, 2, [intent("a", 100, 1)])
    timer = Waits(kind=WaitKind.TIMER, call="s", until=FAR)
    answers.append(await both.store.suspend(suspended, 3, timer))
    await both.store.spawn(claim, 3, spawn("y"), "do y")
    running, _ = await both.claim(y)
    answers.append(told(await both.store.append(claim, 4, [given_up("x"), given_up("y")])))
    answers.append(await both.store.children([x, y]))
    answers.append(told(await both.store.append(running, 2, [intent("b")])))
    await both.store.finish(running, DONE)
    answers.append(told(await both.store.spawn(claim, 6, spawn("z"), "do z")))
    ended, _ = await both.claim(z)
    await both.store.finish(ended, DONE)
    answers.append(told(await both.store.append(claim, 7, [given_up("z")])))
    answers.append(await both.store.children([z]))
    return answers


async def unwinding(both: Both) -> list[Any]:
    """A task that begins to make compensations, while one that it spawned waits and one runs."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    answers: list[Any] = []
    x, y = (child_id(PARENT, call) for call in "xy")
    await both.store.spawn(claim, 2, spawn("x"), "do x")
    running, _ = await both.claim(x)
    await both.store.append(running, 2, [intent("a", 100, 1)])
    await both.store.spawn(claim, 3, spawn("y"), "do y")
    ending = (intent(ENDING, kind=CallKind.COMPENSATE), done(ENDING))
    answers.append(told(await both.store.append(claim, 4, ending)))
    answers.append(await both.store.children([x, y]))
    waits = Waits(kind=WaitKind.CHILDREN, call="x", children=(x,))
    answers.append(await both.store.suspend(claim, 6, waits))
    answers.append(told(await both.store.append(running, 3, [done("a", 40)])))
    await both.store.finish(running, DONE)
    again, _ = await both.claim(PARENT)
    answers.append(told(await both.store.append(again, 9, [intent("b")])))
    return answers


def given_up(call: str) -> Done:
    return Done(at=3, call=call, outcome=CallOutcome.CANCELLED, took_ms=1)


def letter(name: str, **fields: Any) -> Post:
    delivery = Delivery(to=Address(name=name, handler="m:h"))
    return Post(**{"agent": "", "delivery": delivery, "text": "1", "mailbox": 9, **fields})


async def checkpointing(both: Both) -> list[Any]:
    """A graph's checkpoints are put, added, dropped, refused to a stale worker, and gone with the task."""
    await both.submit()
    claim, _ = await both.claim(PARENT)
    one, two = '["c",1]', '["c",2]'
    answers: list[Any] = []

    async def kept() -> list[Any]:
        return [
            sorted(await both.store.checkpoint_fields(PARENT)),
            await both.store.checkpoint_texts(PARENT, [one, two]),
        ]

    for change in (
        CheckpointChange(put={one: "1"}, add={two: "2"}),
        CheckpointChange(put={one: "3"}, add={two: "4"}, drop=("none",)),
        CheckpointChange(drop=(two,)),
    ):
        written = await both.store.checkpoint(claim, change)
        answers += [written.problem, await kept()]
    stale = Claim(id=PARENT, token=claim.token - 1)
    answers.append(await _raised(lambda: both.store.checkpoint(stale, CheckpointChange(drop=(one,)))))
    await both.store.finish(claim, DONE)
    answers.append(await kept())
    return answers


async def _raised(ask: Callable[[], Awaitable[Any]]) -> str:
    try:
        await ask()
    except LeaseLostError:
        return "LeaseLostError"
    return "nothing"


@pytest.mark.holds(
    "agent-code.md",
    "A spawned task, a question or an approval that is given up or loses a race is cancelled, "
    "wherever a worker is lost; a run that stops gives nothing up",
)
@pytest.mark.holds("agent-code.md", "Nothing is undone while a task that was spawned lives")
@pytest.mark.holds(
    "patterns.md",
    "When an actor ends, what is kept below it goes with its bytes, also what is written at that time",
)
@pytest.mark.holds(
    "patterns.md",
    "Of actors that ask in a circle, one is refused; who asks without a circle is not; a question "
    "may have a time-out",
)
@pytest.mark.parametrize(
    "conversation",
    [
        reserving,
        spawning,
        refusing,
        waiting_outside,
        delivering,
        giving_up,
        unwinding,
        asking_in_a_circle,
        ending_an_actor,
        checkpointing,
    ],
)
async def test_both_stores_answer_alike(
    conversation: Callable[[Both], Awaitable[list[Any]]], real: Both
) -> None:
    memory = Both(MemoryStore())
    memory.store.now_ms = time.time_ns() // 1_000_000
    expected = await conversation(real)
    answers = await conversation(memory)
    assert answers == expected
    shown = [
        [(type(entry).__name__, getattr(entry, "call", "")) for entry in await both.entries(PARENT)]
        for both in (memory, real)
    ]
    assert shown[0] == shown[1]
