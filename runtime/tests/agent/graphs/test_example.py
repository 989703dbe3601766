"""The example of a graph runs as it is, asks once, and docs/graphs.md shows a part of it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, run, said
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.journal import CallKind
from flotilla_runtime.agent.models import ModelOutcome, ModelReply, ToolCall
from flotilla_runtime.agent.models.journal_form import value_of
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_program
from flotilla_runtime.contract import Effect, ModelConnection, QueueConfig, ToolConfig, WorkerConfig

ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "examples" / "agents" / "graph.py"
PAGE = (ROOT / "docs" / "graphs.md").read_text(encoding="utf-8")
CONFIG = WorkerConfig(
    queue=QueueConfig(fleet="default/examples"),
    graph="graph:graph",
    models=(ModelConnection(role="Default", name="m", url="http://m/v1", model="m"),),
    tools=(ToolConfig(name="price", python="graph:price", effect=Effect.PURE),),
)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    yield load_program(CONFIG)
    sys.modules.pop("graph", None)


def calls_of(program: Program, article: str) -> ScriptedCalls:
    runner = ToolRunner(program.tools)

    async def script(call: Call) -> Reply:
        if call.kind is CallKind.TOOL:
            return await runner.make(call)
        assert [tool.name for tool in call.request.tools] == ["price"]
        if len(call.request.messages) > 1:
            return said(f"heard: {call.request.messages[-1]['content']}")
        wanted = ToolCall(id="c1", name="price", arguments_text=json.dumps({"article": article}))
        return said(value_of(ModelReply(outcome=ModelOutcome.SUCCEEDED, tries=1, tool_calls=(wanted,))))

    return ScriptedCalls(script=script)


@pytest.mark.holds("graphs.md", "The example of a graph runs as it is")
@pytest.mark.parametrize(
    ("article", "comment", "result"),
    [
        pytest.param("room", None, "heard: 80", id="what is cheap is not asked about"),
        pytest.param("suite", None, "heard: It may.", id="somebody agrees"),
        pytest.param("suite", "too dear", "heard: It may not: too dear.", id="somebody refuses"),
    ],
)
async def test_the_example_asks_about_what_is_dear(
    program: Program, article: str, comment: str | None, result: str
) -> None:
    store, calls = MemoryStore(), calls_of(program, article)
    store.submit("t1", f"Book a {article}.")
    outcome = await run(store, program, calls)
    if outcome is RunOutcome.SUSPENDED:
        waits = store.tasks["t1"].waits
        assert waits is not None
        assert store.tasks["t1"].open[waits.call].arguments == {
            "question": "May it cost so much?",
            "euro": 300,
        }
        store.decide("t1", waits.call, approved=comment is None, comment=comment)
        assert await run(store, program, calls) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert (finish.result, len(calls.made)) == (result, 3)


@pytest.mark.holds("graphs.md", "The example of a graph runs as it is")
def test_the_page_shows_the_example() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    shown = text[text.index("tools = flotilla_tools()") : text.index("graph = StateGraph")].strip()
    assert shown in PAGE
