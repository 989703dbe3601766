"""The checker of the budgets benchmark sees what does not add up, on trees that are made up."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from budgets import judge, plans
from budgets.__main__ import WANTED
from budgets.judge import Evidence, journal_tokens
from budgets.plans import CALLS, FAILS, LIMITS, SCRIPTS, Limit, calls_of, children_of, paths
from fleet.facts import TaskFacts, entries_of
from fleet.generations import Generation
from wanted import misses

ROOT, CHILD = "01root", "01child"
CALL, OTHER = "r/call-0", "r.0/call-0"


def intended(call: str, tokens: int) -> dict[str, Any]:
    return {"type": "Intended", "at": 1, "call": f"{call}/llm/Default", "reserved_tokens": tokens}


def done(call: str, tokens: int, outcome: str = "Succeeded") -> dict[str, Any]:
    used = {"input_tokens": tokens - 1, "output_tokens": 1}
    return {"type": "Done", "at": 2, "call": f"{call}/llm/Default", "outcome": outcome, **used}


def task(task_id: str, *entries: dict[str, Any], **fields: str) -> TaskFacts:
    told = {"id": task_id, "status": "Succeeded", "root": ROOT, **fields}
    return TaskFacts(id=task_id, fields=told, entries=entries_of(map(json.dumps, entries)))


def generated(step: str, tokens: int, *, whole: bool = True) -> list[Generation]:
    begun = Generation(id=f"{step}-{tokens}", at=1, task=7, step=step, prompt_tokens=tokens - 1)
    ended = Generation(
        id=begun.id, at=2, task=7, step=step, prompt_tokens=tokens - 1, generated_tokens=1, is_whole=whole
    )
    return [begun, ended]


def budget(**amounts: str) -> dict[str, str]:
    return {
        "usedSteps": "2",
        "usedTokens": "70",
        "usedNano": "0",
        "mostSteps": "9",
        "mostTokens": "99",
        **amounts,
    }


CHILDS = task(CHILD, intended(OTHER, 50), done(OTHER, 30))
MODEL = (*generated(CALL, 40), *generated(OTHER, 30))


def judged(
    root: TaskFacts | None = None,
    generations: tuple[Generation, ...] = MODEL,
    seen: tuple[dict[str, str], ...] = (),
    child: TaskFacts = CHILDS,
) -> dict[str, int]:
    whole = root or task(ROOT, intended(CALL, 50), done(CALL, 40), **budget())
    tasks = {ROOT: whole, CHILD: child}
    verdict = judge.judge(Evidence(roots={7: ROOT}, tasks=tasks, seen=seen, generations=generations))
    names = ("overshoot", "leaked", "unbalanced_tokens", "unended")
    found = {name: getattr(verdict, name) for name in names if getattr(verdict, name)}
    assert {miss.wanted.path[0] for miss in misses({**dict.fromkeys(names, 0), **found}, WANTED)} >= set(
        found
    )
    return found


def root_with(**amounts: str) -> TaskFacts:
    return task(ROOT, intended(CALL, 50), done(CALL, 40), **budget(**amounts))


def test_a_tree_that_adds_up_has_no_fault() -> None:
    assert judged() == {}


@pytest.mark.holds("recovery.md", "The checker sees each fault")
@pytest.mark.holds("performance.md", "The figures of the task benchmarks are what they count")
@pytest.mark.parametrize(
    ("root", "fault"),
    [
        pytest.param(root_with(mostTokens="60"), {"overshoot": 20}, id="more tokens than allowed"),
        pytest.param(root_with(mostSteps="1"), {"overshoot": 2}, id="more steps than allowed"),
        pytest.param(root_with(usedNano="8", mostNano="500000000", heldNano="0"), {}, id="within its money"),
        pytest.param(root_with(mostNano="150000"), {"overshoot": 40_000}, id="more money by the model"),
        pytest.param(root_with(heldTokens="5"), {"leaked": 5}, id="a reserve that was never given back"),
        pytest.param(root_with(heldSteps="-1"), {"leaked": 1}, id="one that was given back twice"),
        pytest.param(root_with(usedTokens="75"), {"unbalanced_tokens": 5}, id="used, and in no journal"),
        pytest.param(
            root_with(usedTokens="60"), {"unbalanced_tokens": 20}, id="in a journal, not used: the model too"
        ),
        pytest.param(root_with(status="Running"), {"unended": 1}, id="a root that did not end"),
    ],
)
def test_each_fault_is_seen(root: TaskFacts, fault: dict[str, int]) -> None:
    assert judged(root) == fault


def test_a_limit_that_was_exceeded_for_a_moment_is_seen() -> None:
    assert judged(seen=(budget(heldTokens="30"),)) == {"overshoot": 1}
    assert judged(seen=(budget(heldTokens="29"),)) == {}


def test_a_call_that_says_other_tokens_than_the_model_is_seen() -> None:
    assert judged(generations=(*generated(CALL, 38), *generated(OTHER, 30))) == {"unbalanced_tokens": 2}


def test_what_the_model_counted_of_tries_that_the_budget_left_out_is_seen() -> None:
    broken = generated(CALL, 9, whole=False)
    assert judged(generations=(*MODEL, *broken)) == {"unbalanced_tokens": 9}


def test_a_spawned_task_that_did_not_end_is_seen() -> None:
    child = task(CHILD, intended(OTHER, 50), done(OTHER, 30), status="Suspended")
    assert judged(child=child) == {"unended": 1}


@pytest.mark.parametrize(
    ("entries", "tokens"),
    [
        pytest.param([intended(CALL, 50)], 50, id="a call without a result used what it reserved"),
        pytest.param([intended(CALL, 50), done(CALL, 7)], 7, id="a result says what was used"),
        pytest.param(
            [intended(CALL, 50), intended(CALL, 40), done(CALL, 7)], 57, id="a lost try used its reserve"
        ),
        pytest.param(
            [intended(CALL, 50), {**intended(CALL, 40), "spent_tokens": 31}, done(CALL, 7)],
            38,
            id="tries that were followed by more used what they say",
        ),
        pytest.param([done(CALL, 7)], 0, id="a result without an intent is none"),
    ],
)
def test_a_journal_says_what_was_used(entries: list[dict[str, Any]], tokens: int) -> None:
    assert journal_tokens(entries_of(map(json.dumps, entries))) == tokens


def test_a_tree_makes_200_calls_on_four_levels() -> None:
    calls = [call for path in paths() for call in calls_of(5, path)]
    assert len({call.name for call in calls}) == len(calls) == CALLS
    assert sorted(("r", *(child for path in paths() for child in children_of(path)))) == sorted(paths())
    assert max(path.count(".") for path in paths()) == 3
    assert calls_of(5, "r") == calls_of(5, "r") != calls_of(6, "r")
    assert {call.role for call in calls} == {"Default", "Routine"}
    assert all(any(script in call.prompt for call in calls) for script in SCRIPTS)
    assert any(FAILS in call.prompt for call in calls)
    assert LIMITS.keys() == set(Limit)


@pytest.mark.holds("recovery.md", "The checkers share no code with the runtime")
@pytest.mark.parametrize("module", [judge, plans])
def test_the_checker_shares_no_code_with_the_runtime(module: Any) -> None:
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in imported if name.split(".")[0] in ("flotilla_runtime", "fleet", "budgets")} <= {
        "budgets.plans",
        "fleet.facts",
        "fleet.generations",
    }
