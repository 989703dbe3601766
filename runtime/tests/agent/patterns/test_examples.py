"""Each example of a pattern runs as it is, and docs/agents.md shows it as it is."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_support.lives import Story
from agent_support.running import said
from flotilla_runtime.agent.journal import CallKind
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_program
from flotilla_runtime.contract import Effect, ModelConnection, QueueConfig, ToolConfig, WorkerConfig

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "examples" / "agents"
PAGE = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")


def config_of(module: str, *tools: str, **fields: Any) -> WorkerConfig:
    return WorkerConfig(
        queue=QueueConfig(fleet="default/examples"),
        entrypoint=f"{module}:agent",
        models=(ModelConnection(role="Default", name="m", url="http://m/v1", model="m"),),
        tools=tuple(ToolConfig(name=name, python=f"{module}:{name}", effect=Effect.PURE) for name in tools),
        **fields,
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
        return said(answer_to(call))

    story = Story(program, script, task_input)
    try:
        return await story.to_the_end()
    finally:
        sys.modules.pop(config.entrypoint.partition(":")[0], None)


def answer_to(call: Call) -> str:
    return f"answer to {call.request.messages[-1]['content'][:20]}"


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


async def test_fastest_quote_takes_the_other_supplier(monkeypatch: pytest.MonkeyPatch) -> None:
    story = await example(monkeypatch, config_of("fastest_quote", "usual", "other"), "a pump")
    assert story.result == {"from": "other", "quote": {"item": "a pump", "euro": 12}}
    assert story.given_up() == {"race/usual/tool/usual"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_page_shows_the_example_as_it_is(path: Path) -> None:
    shown = re.findall(rf"```python\n# examples/agents/{path.name}\n(.*?)```", PAGE, re.DOTALL)
    assert len(shown) == 1, f"docs/agents.md shows {path.name} once"
    assert shown[0].strip() in path.read_text(encoding="utf-8")
