"""Reports of pods → when an object is woken, and which decision its next reconcile reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.controllers.steering import FiguresOnly, ScaleDecision, Steered, SteeringLoop
from flotilla_operator.objects.resources import Key
from flotilla_operator.telemetry.measurements import (
    Answered,
    Measurement,
    Measurements,
    Target,
    first_known,
)
from tests.builders.pods import NOW
from tests.cluster.test_queue import HandClock, longest

KEY = Key("ModelReplicaSet", "default", "llama")
POD = Target(key="pod", url="http://10.0.0.1/status")
TEN_SECONDS = 10.0


class Report(BaseModel):
    waiting: int
    tokens: int = 0


@dataclass(frozen=True)
class Wanted:
    wanted: int
    reason: str
    shares: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ByTen:
    """One replica for each ten that wait; the memory counts the calls."""

    uid: str = "uid"
    targets: Sequence[Target] = (POD,)
    report: type[Report] = Report
    taken: ScaleDecision | None = Wanted(0, "NoFigures")
    remembered: list[int | None] = field(default_factory=list)

    def step(self, answers: Sequence[Answered[Report] | None], memory: int | None, now: datetime) -> Steered:
        self.remembered.append(memory)
        calls = (memory or 0) + 1
        report = first_known(answers)
        if report is None:
            return Steered(decision=Wanted(0, "NoFigures"), memory=calls)
        decision = Wanted(-(-report.waiting // 10), "Queue")
        return Steered(decision=decision, memory=calls, figures=(report.waiting, report.tokens))


@dataclass
class Bench:
    measurements: Measurements = field(default_factory=Measurements)
    clock: HandClock = field(default_factory=HandClock)

    def __post_init__(self) -> None:
        self.queue = KeyedQueue(timer=self.clock, draw=longest)
        self.loop = SteeringLoop(
            self.measurements,
            self.queue,
            figures_interval_seconds=TEN_SECONDS,
            now=lambda: NOW + timedelta(seconds=self.clock.now),
            monotonic=lambda: self.clock.now,
        )

    def says(self, **document: Any) -> None:
        self.measurements.record("pod", Measurement(at=NOW, document=document))
        self.loop.answered(KEY)

    def is_silent(self) -> None:
        self.measurements.forget("pod")
        self.loop.answered(KEY)

    def reconciles(self, uid: str = "uid") -> None:
        """A reconcile that goes by the last decision, as it does in the operator."""
        taken = self.loop.last(uid) or Wanted(0, "NoFigures")
        self.loop.follow(KEY, ByTen(uid=uid, taken=taken))

    async def take(self) -> None:
        """Begin to run each object that was woken, and end at once."""
        self.queue.done(await self.queue.take())

    @property
    def is_woken(self) -> bool:
        return len(self.queue) == 1


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.reconciles()
    return made


@pytest.mark.holds(
    "architecture.md",
    "The steering loop makes one pure call after each answer; the next reconcile reads the decision",
)
async def test_another_number_wakes_the_object_and_its_reconcile_reads_it(bench: Bench) -> None:
    assert not bench.is_woken
    bench.says(waiting=15)
    assert bench.is_woken
    await bench.take()
    assert bench.loop.last("uid") == Wanted(2, "Queue")
    bench.reconciles()
    assert not bench.is_woken


@pytest.mark.holds(
    "architecture.md", "Another number or reason wakes an object at once, other figures once in 10 s at most"
)
async def test_another_reason_for_the_same_number_wakes_it_too(bench: Bench) -> None:
    bench.says(waiting=0)
    assert bench.loop.last("uid") == Wanted(0, "Queue")
    assert bench.is_woken


async def test_a_number_that_changes_again_wakes_it_again(bench: Bench) -> None:
    bench.says(waiting=15)
    await bench.take()
    bench.reconciles()
    bench.says(waiting=35)
    assert bench.is_woken
    assert bench.loop.last("uid") == Wanted(4, "Queue")


async def test_a_decision_other_than_the_one_that_the_reconcile_went_by_wakes_it(bench: Bench) -> None:
    """The answer came while the reconcile ran; its spec may have changed the policy, too."""
    bench.measurements.record("pod", Measurement(at=NOW, document={"waiting": 15}))
    bench.reconciles()
    assert bench.is_woken


@pytest.mark.holds(
    "architecture.md", "Another number or reason wakes an object at once, other figures once in 10 s at most"
)
async def test_other_figures_wake_it_once_in_an_interval(bench: Bench) -> None:
    bench.says(waiting=1)
    await bench.take()
    bench.reconciles()
    for tokens in range(1, 9):
        bench.clock.advance(1)
        bench.says(waiting=1, tokens=tokens)
        assert not bench.is_woken
    bench.clock.advance(2)
    assert bench.is_woken, "ten seconds after they were told"
    await bench.take()
    bench.reconciles()
    bench.clock.advance(25)
    assert not bench.is_woken, "the same figures as before"
    bench.says(waiting=1, tokens=99)
    bench.clock.advance(0)
    assert bench.is_woken, "they were told long ago"


@pytest.mark.holds(
    "decisions/0015-steering-loop.md", "Figures that become known or unknown wake the object at once"
)
async def test_figures_that_become_known_or_unknown_wake_it_at_once() -> None:
    bench = Bench()
    follow = FiguresOnly(uid="uid", targets=(POD,), report=Report, told=first_known)
    bench.loop.follow(KEY, follow)
    assert not bench.is_woken
    bench.says(waiting=1)
    assert bench.is_woken
    await bench.take()
    bench.loop.follow(KEY, follow)
    bench.is_silent()
    assert bench.is_woken


@pytest.mark.holds("architecture.md", "No object is reconciled because time passes")
async def test_the_same_answers_wake_nobody(bench: Bench) -> None:
    bench.says(waiting=5)
    await bench.take()
    bench.reconciles()
    for _ in range(100):
        bench.clock.advance(1)
        bench.says(waiting=5)
        assert not bench.is_woken


@pytest.mark.holds(
    "architecture.md",
    "The steering loop makes one pure call after each answer; the next reconcile reads the decision",
)
async def test_what_is_remembered_is_handed_from_call_to_call_and_lost_with_the_object() -> None:
    bench, first, second, anew = Bench(), ByTen(), ByTen(), ByTen(uid="made anew")
    bench.loop.follow(KEY, first)
    bench.says(waiting=5)
    bench.loop.follow(KEY, second)
    bench.loop.follow(KEY, anew)
    assert (first.remembered, second.remembered, anew.remembered) == ([None, 1], [2], [None])
    assert bench.loop.last("uid") is None
    bench.loop.forget(KEY)
    assert bench.loop.last("made anew") is None
    bench.says(waiting=50)
    assert anew.remembered == [None]
