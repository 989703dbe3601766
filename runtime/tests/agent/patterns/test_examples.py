"""Each example of a pattern runs as it is, and one page of the docs shows it as it is."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_support.lives import Story
from agent_support.memory import MemoryStore
from agent_support.postal import Village
from agent_support.running import PASSAGE, ScriptedCalls, found, run, said
from flotilla_runtime.agent.journal import CallKind, EndReason, TaskStatus
from flotilla_runtime.agent.models import ModelOutcome, ModelReply, ToolCall
from flotilla_runtime.agent.models.journal_form import value_of
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_program, load_validators
from flotilla_runtime.contract import (
    Effect,
    IndexConnection,
    ModelConnection,
    QueueConfig,
    SubAgentConfig,
    ToolConfig,
    ValidatorConfig,
    WorkerConfig,
)

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "examples" / "agents"
PAGES = [ROOT / "docs" / f"{name}.md" for name in ("agents", "agent-code", "graphs", "patterns")]
TEXT = "".join(page.read_text(encoding="utf-8") for page in PAGES)


def config_of(
    module: str, *tools: str, roles: tuple[str, ...] = (), indexes: tuple[str, ...] = ()
) -> WorkerConfig:
    return WorkerConfig(
        queue=QueueConfig(fleet="default/examples"),
        entrypoint=f"{module}:agent",
        models=(
            ModelConnection(role="Default", name="m", url="http://m/v1", model="m"),
            *(ModelConnection(role=role, name=role, url="http://m/v1", model="m") for role in roles),
        ),
        indexes=tuple(IndexConnection(name=name, url="http://i/v1/retrieve") for name in indexes),
        tools=tuple(ToolConfig(name=name, python=f"{module}:{name}", effect=Effect.PURE) for name in tools),
    )


async def example(monkeypatch: pytest.MonkeyPatch, config: WorkerConfig, task_input: str) -> Story:
    """The example with its own tools; the model says how long its prompt is."""
    assert config.entrypoint is not None
    monkeypatch.syspath_prepend(str(EXAMPLES))
    program = load_program(config)
    runner = ToolRunner(program.tools)

    async def script(call: Call) -> Reply:
        if call.kind is CallKind.TOOL:
            return await runner.make(call)
        return found(PASSAGE) if call.kind is CallKind.RETRIEVE else said(answer_to(call))

    story = Story(program, script, task_input)
    try:
        return await story.to_the_end()
    finally:
        sys.modules.pop(config.entrypoint.partition(":")[0], None)


def answer_to(call: Call) -> Any:
    """The answer of a model: a ticket's kind, the calls of a pipeline, or how its prompt began."""
    if call.request.response_schema is not None:
        kind = "bug" if call.target == "m" else "question"
        value = {"best": 2} if call.id.endswith("judge") else {"kind": kind}
        return value_of(ModelReply(outcome=ModelOutcome.SUCCEEDED, tries=1, value=value))
    if call.request.tools:
        calls = tuple(rate_call(currency) for currency in ("USD", "XYZ"))
        return value_of(ModelReply(outcome=ModelOutcome.SUCCEEDED, tries=1, tool_calls=calls))
    return f"answer to {call.request.messages[-1]['content'][:20]}"


def rate_call(currency: str) -> ToolCall:
    arguments = {"currency": currency}
    return ToolCall(id="1", name="rate", arguments_text=json.dumps(arguments), arguments=arguments)


@pytest.mark.holds("patterns.md", "The examples of patterns run as they are")
async def test_trip_report_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("trip_report", "weather", "events", "trains")
    story = await example(monkeypatch, config, "Faro")
    assert story.result == {
        "report": "answer to Write a report from ",
        "results": {"weather": "24 °C in Faro", "events": ["Faro jazz week"], "trains": None},
        "expected": 3,
        "received": 2,
        "complete": False,
        "missing": {
            "trains": {
                "reason": "Failed",
                "problem": "trains: ConnectionError: the timetable of Faro is away",
            }
        },
    }


@pytest.mark.holds("patterns.md", "The examples of patterns run as they are")
async def test_fastest_quote_takes_the_other_supplier(monkeypatch: pytest.MonkeyPatch) -> None:
    story = await example(monkeypatch, config_of("fastest_quote", "usual", "other"), "a pump")
    assert story.result == {"from": "other", "quote": {"item": "a pump", "euro": 12}}
    assert story.given_up() == {"race/usual/tool/usual"}


async def test_bank_adds_each_amount_once_and_prints_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("bank", "receipt")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    program = load_program(config)
    runner = ToolRunner(program.tools)
    try:
        village = await Village(program, runner.make, "5 x 7").to_the_end()
        assert village.result == {"balance": 12}
        assert sys.modules["bank"].RECEIPTS == ["account/main: 5", "account/main: 12"]
    finally:
        sys.modules.pop("bank", None)
    failed = [one.finish for one in village.messages("account/main") if one.finish]
    assert [one.status is TaskStatus.SUCCEEDED for one in failed] == [True, False, True, True]
    assert '"state":2' in (village.kept("actor/account/main/printer") or "")


@pytest.mark.parametrize(("city", "rooms"), [("Lisbon", ["Lisbon"]), ("Faro", [])])
async def test_trip_saga_books_both_or_neither(
    monkeypatch: pytest.MonkeyPatch, city: str, rooms: list[str]
) -> None:
    config = config_of("trip_saga", "hotel", "cancel_hotel", "flight", "cancel_flight")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    load_program(config)
    booked = sys.modules["trip_saga"].BOOKED
    story = await example(monkeypatch, config, city)
    assert list(booked.values()) == rooms
    undone = [call.target for call in story.calls.asked if call.target.startswith("cancel")]
    assert undone == ([] if rooms else ["cancel_flight", "cancel_hotel"])


@pytest.mark.holds("patterns.md", "The examples of patterns run as they are")
@pytest.mark.parametrize(
    ("config", "task_input", "result"),
    [
        pytest.param(
            config_of("contract_review"),
            "What does it cost?",
            {"expected": 2, "received": 2, "complete": True},
            id="documents",
        ),
        pytest.param(
            config_of("second_opinion", roles=("Routine", "Judge")),
            "It crashes.",
            {"kind": {"kind": "question"}, "by": "Judge", "role": "Routine"},
            id="ensemble",
        ),
        pytest.param(
            config_of("deep_search", "web", "incidents", indexes=("docs",)),
            "Why vacuum?",
            {"complete": True, "hits": 3},
            id="search",
        ),
        pytest.param(
            config_of("digest"),
            "Good.\nBad.",
            {"digest": "answer to Make one summary of ", "in it": 2},
            id="map-reduce",
        ),
        pytest.param(
            config_of("currency_desk", "rate"),
            "What is a euro?",
            {"rates": {"{'currency': 'USD'}": 1.08, "{'currency': 'XYZ'}": "rate: KeyError: 'XYZ'"}},
            id="pipeline",
        ),
    ],
)
async def test_the_other_examples_run(
    monkeypatch: pytest.MonkeyPatch, config: WorkerConfig, task_input: str, result: dict[str, Any]
) -> None:
    story = await example(monkeypatch, config, task_input)
    assert {name: story.result[name] for name in result} == result


@pytest.mark.holds(
    "agents.md", "The examples with other agents and validators are as they are shown, and run"
)
async def test_news_desk_has_an_agent_find_out_and_repairs_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    agents = (SubAgentConfig(name="researcher", description="Finds out.", prompt="You research."),)
    validators = (ValidatorConfig(name="short", python="news_desk:is_short"),)
    config = config_of("news_desk").model_copy(update={"agents": agents, "validators": validators})
    program, store = load_program(config), MemoryStore()
    runner = ToolRunner({}, validators=load_validators(validators))
    drafts = iter(["word " * 70, "It was late."])

    async def script(call: Call) -> Reply:
        if call.kind is CallKind.TOOL:
            return await runner.make(call)
        is_researcher = "You research." in str(call.request.messages[0]["content"])
        return said("The train was late." if is_researcher else next(drafts))

    calls = ScriptedCalls(script=script)
    store.submit("t1", "Why late?")
    await run(store, program, calls)
    (child,) = (task.id for task in store.tasks.values() if task.agent == "researcher")
    await run(store, program, calls, child)
    await run(store, program, calls)
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert (finish.reason, finish.result) == (EndReason.COMPLETED, "It was late.")
    last = calls.asked[-2].request.messages[0]["content"]
    assert last.startswith("Write this anew, because it has 70 words, and may have 60:")
    sys.modules.pop("news_desk", None)


@pytest.mark.holds("agent-code.md", "The example runs, survives a crash and books once")
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_page_shows_the_example_as_it_is(path: Path) -> None:
    shown = re.findall(rf"```python\n# examples/agents/{path.name}\n(.*?)```", TEXT, re.DOTALL)
    assert len(shown) == 1, f"the pages show {path.name} once"
    assert shown[0].strip() in path.read_text(encoding="utf-8")
