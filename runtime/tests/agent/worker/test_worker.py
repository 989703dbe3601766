"""A worker in this process against a real Redis that goes away and comes back.

Single runs are in test_run.py; whole worker processes are in the gateway's tests.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog

from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Claimed, TaskStatus
from flotilla_runtime.agent.protocols import Call, Reconciled, Reply, Session
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim, LoadedTask, NewTask, Renewal
from flotilla_runtime.agent.worker.loading import load_program
from flotilla_runtime.agent.worker.metrics import WorkerMetrics
from flotilla_runtime.agent.worker.patience import Patience
from flotilla_runtime.agent.worker.worker import Worker
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import ModelConnection, QueueConfig, TaskLimits, WorkerConfig
from router_support.waiting import until

pytestmark = pytest.mark.services

LEASE_SECONDS = 2.0
CLOCK = Clock(monotonic_seconds=time.monotonic)


@dataclass(slots=True)
class HeldModel:
    """A model that answers the first so many calls; `asked` counts all of them."""

    asked: int = 0
    answers: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        return call, Amount(tokens=1000)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        return None

    async def make(self, call: Call, session: Session) -> Reply:
        assert call.kind is CallKind.MODEL
        self.asked += 1
        number = self.asked
        async with self.news:
            await self.news.wait_for(lambda: self.answers >= number)
        return Reply(outcome=CallOutcome.SUCCEEDED, value="So it is.", input_tokens=40, output_tokens=4)

    async def answer(self, calls: int) -> None:
        async with self.news:
            self.answers = calls
            self.news.notify_all()


class LateRenewals(TaskStore):
    """A store whose renewals come to nothing until the worker has claimed for the second time."""

    granted = 0

    async def claim(self, *asked: Any) -> list[Claim]:
        claims = await super().claim(*asked)
        self.granted += len(claims)
        return claims

    async def renew(self, claims: Iterable[Claim]) -> Renewal:
        if self.granted < 2:
            return Renewal(lost=frozenset(), cancelled=frozenset())
        return await super().renew(claims)


async def ended(store: TaskStore, task_id: str, seconds: float = 30) -> LoadedTask:
    """The task when it has ended; a Redis that is away meanwhile is asked again."""
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(StoreUnavailableError):
                task = await store.load(task_id)
                if task is not None and task.record.status.is_final:
                    return task
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def working(
    store: TaskStore, queue: QueueConfig, calls: Any, name: str = "w1"
) -> AsyncIterator[Worker]:
    config = WorkerConfig(
        queue=queue,
        prompt="Answer.",
        models=(ModelConnection(role="Default", name="m", url="http://model/v1", model="m"),),
        handover_seconds=0.1,
    )
    worker = Worker(
        name=name, store=store, calls=calls, config=config, clock=CLOCK, program=load_program(config)
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(worker.run(stopping))
    try:
        yield worker
    finally:
        stopping.set()
        await running


def queue_of(redis_server: Any, lease_seconds: float = LEASE_SECONDS) -> QueueConfig:
    return QueueConfig(
        fleet="default/support",
        url=redis_server.url,
        password_path=redis_server.password_path,
        lease_seconds=lease_seconds,
    )


def task_of(task_id: str, **limits: Any) -> NewTask:
    return NewTask(id=task_id, input="Is it so?", caller="ann", limits=TaskLimits(**limits))


@pytest.mark.parametrize("cancelled", [False, True], ids=["and ends it", "and can still be cancelled"])
async def test_a_worker_that_takes_over_its_own_task_after_an_outage_goes_on_holding_it(
    redis_server: Any, cancelled: bool
) -> None:
    queue, model = queue_of(redis_server), HeldModel()
    store = LateRenewals(connect(queue), queue)
    await store.submit(task_of("t1"))
    async with working(store, queue, model):
        await until(lambda: model.asked == 1)
        redis_server.stop()
        await asyncio.sleep(1.2 * LEASE_SECONDS)
        redis_server.start()
        await until(lambda: model.asked == 2)
        await model.answer(1)
        await asyncio.sleep(2 * LEASE_SECONDS)
        if cancelled:
            await store.cancel("t1")
        else:
            await model.answer(2)
        task = await ended(store, "t1")
    expected = TaskStatus.CANCELLED if cancelled else TaskStatus.SUCCEEDED
    assert (task.record.status, task.record.attempts, model.asked) == (expected, 2, 2)
    await store.close()


class DeafStore(TaskStore):
    """A store whose first answers that grant tasks do not reach the worker."""

    def __init__(self, client: Any, config: QueueConfig, *, unheard: int) -> None:
        super().__init__(client, config)
        self.unheard = unheard

    async def claim(self, *asked: Any) -> list[Claim]:
        claims = await super().claim(*asked)
        if claims and self.unheard:
            self.unheard -= 1
            raise StoreUnavailableError("the connection was lost before the answer")
        return claims


@pytest.mark.holds(
    "tasks.md", "A worker that does not hear which tasks it was granted asks again, and is granted the same"
)
async def test_tasks_whose_grant_was_not_heard_run_in_their_first_attempt(redis_server: Any) -> None:
    queue, model = queue_of(redis_server), HeldModel()
    store = DeafStore(connect(queue), queue, unheard=2)
    for name in ("t1", "t2"):
        await store.submit(task_of(name))
    async with working(store, queue, model):
        await model.answer(2)
        tasks = [await ended(store, name) for name in ("t1", "t2")]
    assert store.unheard == 0
    assert [(task.record.status, task.record.attempts) for task in tasks] == [(TaskStatus.SUCCEEDED, 1)] * 2
    await store.close()


class CutOffStore(TaskStore):
    """A store that does not answer the worker from its first grant on, until it is `back`."""

    def __init__(self, client: Any, config: QueueConfig) -> None:
        super().__init__(client, config)
        self.granted: list[Claim] = []
        self.back = asyncio.Event()
        self.answered = 0

    async def claim(self, *asked: Any) -> list[Claim]:
        if self.granted:
            await self.back.wait()
        claims = await super().claim(*asked)
        if claims and not self.granted:
            self.granted = claims
            raise StoreUnavailableError("the connection was lost before the answer")
        self.answered += 1
        return claims


@pytest.mark.holds(
    "tasks.md", "A worker that does not hear which tasks it was granted asks again, and is granted the same"
)
async def test_a_grant_that_was_not_heard_goes_to_another_worker_and_the_first_asks_anew(
    redis_server: Any,
) -> None:
    queue, model = queue_of(redis_server, lease_seconds=1), HeldModel()
    cut_off, store = CutOffStore(connect(queue), queue), TaskStore(connect(queue), queue)
    await store.submit(task_of("t1"))
    async with working(cut_off, queue, model, "cut-off"):
        await until(lambda: bool(cut_off.granted))
        async with working(store, queue, model, "idle"):
            await until(lambda: model.asked == 1)
            answered = cut_off.answered
            cut_off.back.set()
            await until(lambda: cut_off.answered > answered)
            await store.submit(task_of("t2"))
            await until(lambda: model.asked == 2)
            await model.answer(2)
            tasks = [await ended(store, name) for name in ("t1", "t2")]
    claims = [
        [(entry.worker, entry.attempt) for entry in task.entries if isinstance(entry, Claimed)]
        for task in tasks
    ]
    assert claims == [[("cut-off", 1), ("idle", 2)], [("cut-off", 1)]]
    assert [task.record.status for task in tasks] == [TaskStatus.SUCCEEDED] * 2
    for one in (cut_off, store):
        await one.close()


class StumblingStore(TaskStore):
    """A store whose first renewal goes wrong in a way nobody thought of."""

    renewals = 0

    async def renew(self, claims: Iterable[Claim]) -> Renewal:
        self.renewals += 1
        if self.renewals == 1:
            raise RuntimeError("unthought of")
        return await super().renew(claims)


async def test_a_renewal_that_goes_wrong_is_logged_and_is_not_the_last(redis_server: Any) -> None:
    queue, model = queue_of(redis_server), HeldModel()
    store = StumblingStore(connect(queue), queue)
    await store.submit(task_of("t1"))
    with structlog.testing.capture_logs() as logged:
        async with working(store, queue, model):
            await until(lambda: store.renewals >= 3)
            await model.answer(9)
            assert (await ended(store, "t1")).record.status is TaskStatus.SUCCEEDED
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["leases_not_renewed"]
    await store.close()


@pytest.mark.holds(
    "tasks.md", "Redis lost in the middle: workers go on and send each result until it is written"
)
async def test_an_answer_that_came_in_an_outage_longer_than_the_lease_is_written_after_it(
    redis_server: Any,
) -> None:
    queue, model = queue_of(redis_server), HeldModel()
    store = TaskStore(connect(queue), queue)
    await store.submit(task_of("t1"))
    async with working(store, queue, model):
        await until(lambda: model.asked == 1)
        redis_server.stop()
        await model.answer(9)
        await asyncio.sleep(1.5 * LEASE_SECONDS)
        redis_server.start()
        task = await ended(store, "t1")
    assert (task.record.status, task.record.attempts, model.asked) == (TaskStatus.SUCCEEDED, 1, 1)
    await store.close()


@dataclass(slots=True)
class Outage:
    """A Redis that is away for so many seconds, and a clock that a question moves by ten."""

    seconds: float
    now: float = 0.0
    asked: int = 0

    async def ask(self) -> str:
        self.asked += 1
        self.now += 10
        if self.now <= self.seconds:
            raise StoreUnavailableError("away")
        return "written"

    def patience(self, task_ends_at: float) -> Patience:
        return Patience(
            metrics=WorkerMetrics(),
            clock=Clock(monotonic_seconds=lambda: self.now),
            task_ends_at=task_ends_at,
            backoff=Backoff(base_seconds=0, limit_seconds=0),
        )


@pytest.mark.holds(
    "tasks.md", "Redis lost in the middle: workers go on and send each result until it is written"
)
@pytest.mark.parametrize(
    ("away_seconds", "task_ends_at", "is_written"),
    [
        pytest.param(590, 600, True, id="an outage of ten minutes in a task of ten"),
        pytest.param(12_000, 604_800, True, id="an outage of hours in a task of a week"),
        pytest.param(600, 300, False, id="a task that is over before Redis is back"),
        pytest.param(50, 0, True, id="a minute for a task whose time is over"),
        pytest.param(90, 0, False, id="and no more than that"),
    ],
)
async def test_a_result_is_sent_for_as_long_as_its_task_may_run(
    away_seconds: float, task_ends_at: float, is_written: bool
) -> None:
    outage = Outage(seconds=away_seconds)
    sending = outage.patience(task_ends_at).answered(outage.ask)
    if is_written:
        assert await sending == "written"
    else:
        with pytest.raises(StoreUnavailableError):
            await sending
        assert outage.now <= max(task_ends_at, 60) + 10
