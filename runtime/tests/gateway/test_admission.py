"""How many tasks may be at work: both limits of each model, what is unknown, and what always holds."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.contract import Admission, AdmissionLimit, FleetCapacity, ModelCapacity
from flotilla_runtime.gateway.admission import Measured, admitted, measured_of
from flotilla_runtime.gateway.admitting import CapacityFile, say_admission

CONTEXT = 30_000
HALF_GROWN = CONTEXT // 2


def model(name: str = "m", *, warm: float | None = None, slots: int | None = None) -> ModelCapacity:
    """A model with room for so many whole histories."""
    return ModelCapacity(
        name=name,
        context_tokens=CONTEXT,
        kv_tokens=None if warm is None else warm * CONTEXT,
        slots=slots,
    )


def hour(*, call_ms: int = 1000, between_ms: int = 2000, calls: int = 100, name: str = "m") -> dict[str, int]:
    """A minute in which calls ended one after the other, with tools between them."""
    return {
        "work": calls * (call_ms + between_ms),
        "tokens": calls * HALF_GROWN,
        f"calls:Model/{name}": calls,
        f"busy:Model/{name}": calls * call_ms,
        "busy:Tool/t": calls * between_ms,
        "busy:Queue": 10**9,
    }


@pytest.mark.holds(
    "tasks.md",
    "As many tasks run as the smallest limit of all models: room for warm KV, and slots times 1 + "
    "time between calls / time of a call; what is unknown limits nothing",
)
@pytest.mark.parametrize(
    ("models", "minutes", "expected"),
    [
        pytest.param([], [hour()], Admission(), id="only endpoints: no model is known"),
        pytest.param([model()], [hour()], Admission(model=None), id="nothing is known of the model"),
        pytest.param(
            [model(warm=16)],
            [],
            Admission(most=16, limit=AdmissionLimit.WARM_KV, model="m", warm=16),
            id="before a task has ended only the room for warm KV counts",
        ),
        pytest.param(
            [model(warm=16, slots=4)],
            [hour()],
            Admission(most=15, limit=AdmissionLimit.SLOTS, model="m", warm=16, busy=15, tasks_per_slot=3),
            id="tools of 2 s and calls of 1 s: three tasks a slot, and a quarter more",
        ),
        pytest.param(
            [model(warm=16, slots=48)],
            [hour()],
            Admission(most=16, limit=AdmissionLimit.WARM_KV, model="m", warm=16, busy=180, tasks_per_slot=3),
            id="slots stay idle rather than that histories are computed again",
        ),
        pytest.param(
            [model(warm=0.4, slots=0)],
            [hour()],
            Admission(most=1, limit=AdmissionLimit.WARM_KV, model="m", warm=1, busy=1, tasks_per_slot=3),
            id="one task may always be at work",
        ),
        pytest.param(
            [model(slots=5)],
            [{**hour(), "tokens": 0, "work": 0}],
            Admission(),
            id="minutes of an older release say nothing of the time at work",
        ),
        pytest.param(
            [model(slots=5)],
            [{**hour(), "slot-wait:Model/m": 100_000}],
            Admission(),
            id="calls that did nothing but wait say nothing",
        ),
        pytest.param(
            [model(warm=4)],
            [{**hour(), "tokens": 100 * CONTEXT // 8}],
            Admission(most=16, limit=AdmissionLimit.WARM_KV, model="m", warm=16, tasks_per_slot=3),
            id="short histories: more of them fit",
        ),
        pytest.param(
            [model("rare", warm=1), model(warm=16)],
            [hour()],
            Admission(most=16, limit=AdmissionLimit.WARM_KV, model="m", warm=16, tasks_per_slot=3),
            id="a model that nobody calls limits nothing",
        ),
        pytest.param(
            [model("a", warm=9), model("b", warm=7)],
            [],
            Admission(most=7, limit=AdmissionLimit.WARM_KV, model="b", warm=7),
            id="of two models the smaller limit",
        ),
        pytest.param(
            [model(slots=4)],
            [hour(), {**hour(call_ms=4000), "slot-wait:Model/m": 100 * 3000}],
            Admission(most=15, limit=AdmissionLimit.SLOTS, model="m", busy=15, tasks_per_slot=3),
            id="time that calls waited for a slot is not the model's",
        ),
    ],
)
def test_what_decides(
    models: list[ModelCapacity], minutes: list[dict[str, int]], expected: Admission
) -> None:
    assert admitted(models, measured_of(minutes)) == expected


@pytest.mark.holds(
    "tasks.md",
    "As many tasks run as the smallest limit of all models: room for warm KV, and slots times 1 + "
    "time between calls / time of a call; what is unknown limits nothing",
)
def test_calls_that_overlap_fill_a_slot_with_fewer_tasks() -> None:
    """A task asks two models at once, and nothing else: half a task fills a slot."""
    minute = {"work": 100_000, "calls:Model/m": 200, "busy:Model/m": 200_000}
    assert admitted([model(slots=8)], measured_of([minute])).most == 5


COUNTS = st.integers(1, 10_000)


@pytest.mark.holds(
    "tasks.md",
    "As many tasks run as the smallest limit of all models: room for warm KV, and slots times 1 + "
    "time between calls / time of a call; what is unknown limits nothing",
)
@given(
    warm=st.none() | st.floats(0, 100),
    slots=st.none() | st.integers(1, 100),
    minutes=st.lists(st.builds(hour, call_ms=COUNTS, between_ms=COUNTS, calls=COUNTS), max_size=5),
)
def test_it_never_stops_a_fleet_and_never_exceeds_a_limit(
    warm: float | None, slots: int | None, minutes: list[dict[str, int]]
) -> None:
    found = admitted([model(warm=warm, slots=slots)], measured_of(minutes))
    assert found.most is None or found.most >= 1
    limits = [limit for limit in (found.warm, found.busy) if limit is not None]
    assert found.most == (min(limits) if limits else None)
    assert (found.warm is None) == (warm is None)
    if slots is not None and minutes:
        assert found.busy is not None
        assert found.busy >= slots, "a slot has a task at least, where calls do not overlap"


@given(slots=st.integers(1, 50), more=st.integers(0, 50), between_ms=COUNTS, longer_ms=COUNTS)
def test_more_slots_and_longer_tools_admit_no_fewer(
    slots: int, more: int, between_ms: int, longer_ms: int
) -> None:
    def most(slots: int, between_ms: int) -> int:
        found = admitted([model(slots=slots)], measured_of([hour(between_ms=between_ms)])).most
        assert found is not None
        return found

    assert most(slots, between_ms) <= most(slots + more, between_ms + longer_ms)


def test_nothing_is_measured_before_a_task_ends() -> None:
    assert measured_of([]) == Measured()
    assert measured_of([{"reason:Cancelled": 1}]).tokens_per_call is None


@pytest.mark.holds(
    "tasks.md", "What gateways say ends by itself, and a file that cannot be read changes nothing"
)
def test_the_file_is_read_anew_and_what_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    path, now = tmp_path / "capacity.json", 0.0
    file = CapacityFile(str(path), lambda: now)
    assert file.now() == FleetCapacity(), "there is none yet"
    told = FleetCapacity(models=(model(warm=2),))
    for text, expected in (
        (told.model_dump_json(), told),
        ("{", told),
        (json.dumps({"models": [{"name": "m"}]}), told),
        (json.dumps({"models": [], "later": 1}), FleetCapacity()),
    ):
        path.write_text(text)
        now += 10
        assert file.now() == expected
    path.unlink()
    now += 10
    assert file.now() == FleetCapacity()


@pytest.mark.holds(
    "tasks.md", "What gateways say ends by itself, and a file that cannot be read changes nothing"
)
async def test_it_is_said_again_and_again_and_taken_back_once() -> None:
    answers: list[Any] = [Admission(), Admission(most=3), OSError("away"), Admission(most=3), Admission()]
    said: list[int | None] = []
    done = asyncio.Event()

    async def decided() -> Admission:
        if not answers:
            done.set()
            return Admission()
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Admission.model_validate(answer)

    async def say(most: int | None, hold_seconds: float) -> None:
        assert hold_seconds > 0
        said.append(most)

    saying = asyncio.create_task(say_admission(decided, say, every_seconds=0))
    await asyncio.wait_for(done.wait(), 5)
    saying.cancel()
    assert said == [3, 3, None]
