"""The checker of the recovery benchmark sees each fault, on evidence that is made up. Nothing is started."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from fleet import arrivals, calls, facts, generations
from fleet.arrivals import Arrival, arrivals_of, model_arrivals_of
from fleet.calls import Kind
from fleet.facts import TaskFacts, entries_of
from fleet.kills import kills_of
from fleet.log import Log, lines_of
from fleet.site import Part
from recovery import judge, plans, resumes
from recovery.__main__ import SHARES, SIZES, WANTED, counts
from recovery.judge import Evidence
from recovery.plans import GROUP, STEPS, Step, steps_of, turns_of
from recovery.resumes import Killed, percentile, resumes_of
from wanted import misses

BEGAN = 1_800_000_000_000
TASK_ID = "01k0"


def step(name: str, kind: Kind) -> Step:
    return Step(name=name, kind=kind, before_ms=1, after_ms=1)


PLAN = (step("a", Kind.BOOK), step("b", Kind.SHIP), step("c", Kind.MODEL))


def entry(kind: str, seconds: float, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "at": BEGAN + round(seconds * 1000), **fields}


def done(call: str, seconds: float, outcome: str = "Succeeded") -> dict[str, Any]:
    return entry("Done", seconds, call=call, outcome=outcome)


def arrival(name: str, kind: Kind, seconds: float, *, key: str = "", applied: bool = True) -> Arrival:
    at = BEGAN + round(seconds * 1000)
    return Arrival(at=at, kind=kind, task=0, step=name, key=key or f"key-{name}", applied=applied)


def task(*entries: dict[str, Any], status: str = "Succeeded", reason: str = "Completed") -> TaskFacts:
    return TaskFacts(
        id=TASK_ID, fields={"status": status, "reason": reason}, entries=entries_of(map(json.dumps, entries))
    )


DONE = (done("a/tool/book", 1), done("b/tool/ship", 2), done("c/llm/Default", 3))
ARRIVED = (arrival("a", Kind.BOOK, 0.9), arrival("b", Kind.SHIP, 1.9), arrival("c", Kind.MODEL, 2.9))


def judged(facts_of_task: TaskFacts | None, *arrivals: Arrival) -> dict[str, int]:
    tasks = {} if facts_of_task is None else {TASK_ID: facts_of_task}
    evidence = Evidence(submitted={0: TASK_ID}, plans={0: PLAN}, tasks=tasks, arrivals=arrivals)
    return {name: count for name, count in counts(judge.judge(evidence)).items() if count}


def test_a_task_that_ran_through_has_no_fault() -> None:
    assert judged(task(*DONE), *ARRIVED) == {}


@pytest.mark.holds("recovery.md", "The checker sees each fault")
@pytest.mark.holds("performance.md", "The figures of the task benchmarks are what they count")
@pytest.mark.parametrize(
    ("facts_of_task", "arrivals", "fault"),
    [
        pytest.param(None, ARRIVED, "lost", id="a task that is not in Redis"),
        pytest.param(task(*DONE, status="Running"), ARRIVED, "lost", id="a task that never ended"),
        pytest.param(task(*DONE), ARRIVED[:2], "lost", id="a step that never arrived"),
        pytest.param(
            task(*DONE, status="Failed", reason="Infrastructure"), ARRIVED, "given_up", id="a task given up"
        ),
        pytest.param(
            task(*DONE),
            (arrival("a", Kind.BOOK, 0.5, key="another"), *ARRIVED),
            "keyed_effects_doubled",
            id="an effect under two keys",
        ),
        pytest.param(
            task(*DONE),
            (arrival("b", Kind.SHIP, 1.5), *ARRIVED),
            "unsafe_effects_repeated",
            id="an unsafe effect that came again before its result",
        ),
        pytest.param(
            task(*DONE),
            (*ARRIVED, arrival("c", Kind.MODEL, 9)),
            "finished_calls_repeated",
            id="a model that was asked again after its result",
        ),
        pytest.param(
            task(*DONE, done("c/llm/Default", 8)),
            ARRIVED,
            "finished_calls_repeated",
            id="a call with two results",
        ),
    ],
)
def test_each_fault_is_seen(
    facts_of_task: TaskFacts | None, arrivals: tuple[Arrival, ...], fault: str
) -> None:
    found = judged(facts_of_task, *arrivals)
    assert found == {fault: 1}
    whole = dict.fromkeys(("lost", "given_up", "keyed_effects_doubled", "unsafe_effects_repeated"), 0)
    told = {**whole, "finished_calls_repeated": 0, "resume_p99_seconds": 5, **found}
    figures = {**told, "sentinel": whole, "cluster": whole}
    assert [miss.wanted.path for miss in misses(figures, WANTED)] == [(fault,)]


def test_what_the_runtime_may_do_is_no_fault() -> None:
    again = arrival("a", Kind.BOOK, 0.5), arrival("c", Kind.MODEL, 2.0)
    known = arrival("a", Kind.BOOK, 0.9, applied=False)
    assert judged(task(*DONE), *again, known, *ARRIVED[1:]) == {}, "a call without a result comes again"
    withdrawn = done("b/tool/ship", 1.5, "NotHappened")
    assert judged(task(DONE[0], withdrawn, *DONE[1:]), *ARRIVED) == {}, "nor one that did not happen"


@pytest.mark.holds("recovery.md", "The checkers share no code with the runtime")
@pytest.mark.parametrize("module", [judge, facts, arrivals, generations, calls, plans, resumes])
def test_the_checker_shares_no_code_with_the_runtime(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    ours = {name for name in imported if name.split(".")[0] in ("flotilla_runtime", "recovery", "fleet")}
    assert ours <= {f"fleet.{name}" for name in ("arrivals", "calls", "facts", "generations", "log")} | {
        "recovery.plans"
    }


def claimed(worker: str, seconds: float) -> dict[str, Any]:
    return entry("Claimed", seconds, worker=worker, attempt=1)


def intended(call: str, seconds: float) -> dict[str, Any]:
    return entry("Intended", seconds, call=call)


KILLED = Killed(worker="worker-1", at=BEGAN + 10_000)
HELD = (claimed("worker-1", 1), intended("a", 9))


@pytest.mark.parametrize(
    ("entries", "seconds"),
    [
        pytest.param((*HELD, claimed("worker-2", 14), intended("a", 14.5)), [4.5], id="the next call counts"),
        pytest.param(
            (*HELD, claimed("worker-2", 14), claimed("worker-1", 20), intended("a", 21)),
            [11.0],
            id="also where the next worker was killed too",
        ),
        pytest.param(
            (*HELD, claimed("worker-2", 14), entry("Suspended", 15, call="a", waits_for="Effect")),
            [5.0],
            id="a task that must not make its call has come so far",
        ),
        pytest.param(
            (*HELD, done("a", 9.5), entry("Ended", 9.9)), [], id="one that had ended was not held up"
        ),
        pytest.param((*HELD, entry("Ended", 10.1)), [], id="nor one whose end was sent"),
        pytest.param(
            (*HELD, entry("Suspended", 9.5, call="a"), claimed("worker-2", 30), intended("b", 30)),
            [],
            id="nor one that was suspended",
        ),
        pytest.param(
            (claimed("worker-2", 1), intended("a", 9), intended("b", 11)), [], id="nor one of another worker"
        ),
        pytest.param(HELD, [], id="one that never went on is lost, and has no time"),
    ],
)
def test_resumes_are_counted_from_the_kill(entries: tuple[dict[str, Any], ...], seconds: list[float]) -> None:
    resumes = resumes_of([KILLED], [task(*entries)])
    assert [each.seconds for each in resumes] == seconds


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 201)]
    assert (percentile(values, 50), percentile(values, 99), percentile([], 99)) == (100.0, 198.0, None)
    assert percentile([7.0], 99) == 7.0


def test_a_third_of_the_tasks_makes_calls_at_the_same_time() -> None:
    for number in range(30):
        turns = turns_of(1, number, 500)
        assert len({one.name for one in steps_of(turns)}) == STEPS
        assert (max(map(len, turns)) == GROUP) == (number % 3 == 0)
        assert turns == turns_of(1, number, 500)
    kinds = {one.kind for number in range(30) for one in steps_of(turns_of(1, number, 500))}
    assert kinds == set(Kind)


def test_kills_are_drawn_from_the_seed_and_hit_every_part() -> None:
    planned = kills_of(3, 100, 60.0, SIZES, SHARES)
    assert planned == kills_of(3, 100, 60.0, SIZES, SHARES) != kills_of(4, 100, 60.0, SIZES, SHARES)
    assert {one.part for one in planned} == set(SHARES) == set(Part)
    assert {one.number for one in planned if one.part is Part.WORKER} == set(range(SIZES[Part.WORKER]))
    times = [one.after_seconds for one in planned]
    assert times == sorted(times)
    assert max(times) <= 60.0


def test_a_line_that_its_writer_did_not_finish_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert list(lines_of(path)) == []
    log = Log(path)
    log.write(ARRIVED[0])
    log.write(ARRIVED[1])
    log.close()
    with path.open("a") as file:
        file.write('{"at": 1')
    assert arrivals_of(path) == list(ARRIVED[:2])


def test_a_generation_arrives_when_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    begun = {"id": "1", "at": 5, "task": 3, "step": "c", "prompt_tokens": 9, "generated_tokens": 0}
    path.write_text("".join(f"{json.dumps({**begun, 'is_whole': whole})}\n" for whole in (None, True)))
    assert model_arrivals_of(path) == [Arrival(at=5, kind="model", task=3, step="c")]
