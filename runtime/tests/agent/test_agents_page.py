"""The example of docs/agent-code.md runs, through a crash too, and the pages name all that there is."""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import ScriptedCalls, run
from flotilla_runtime import agents
from flotilla_runtime.agent.engine.context import Context
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.patterns.calls import Patterns
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.loading import load_program
from flotilla_runtime.contract import Effect, ModelConnection, QueueConfig, ToolConfig, WorkerConfig

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "agent-code.md").read_text(encoding="utf-8")
PATTERNS = (ROOT / "docs" / "patterns.md").read_text(encoding="utf-8")
CONFIG = WorkerConfig(
    queue=QueueConfig(fleet="default/travel"),
    entrypoint="travel:agent",
    models=(ModelConnection(role="Default", name="m", url="http://m/v1", model="m"),),
    tools=(
        ToolConfig(name="weather", python="travel:weather", effect=Effect.PURE),
        ToolConfig(name="book", python="travel:book", effect=Effect.IDEMPOTENT),
    ),
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedCalls]:
    """The example's own tools; the model echoes the end of its prompt."""
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "agents"))
    runner = ToolRunner(load_program(CONFIG).tools)

    async def script(call: Call) -> Reply:
        if call.kind is CallKind.TOOL:
            return await runner.make(call)
        said = call.request.messages[0]["content"].split("\n\n")[1]
        return Reply(outcome=CallOutcome.SUCCEEDED, value=said)

    yield ScriptedCalls(script=script)
    sys.modules.pop("travel", None)


@pytest.mark.holds("agent-code.md", "The example runs, survives a crash and books once")
async def test_the_example_runs_and_books_once_through_a_crash(calls: ScriptedCalls) -> None:
    store = MemoryStore(CrashPoints(crash_at=12))
    store.submit("t1", "Where shall I go?")
    calls.points = store.points
    program = load_program(CONFIG)
    try:
        await run(store, program, calls)
    except* CrashError:
        pass
    assert store.points.has_crashed
    store.points = calls.points = CrashPoints()
    assert await run(store, program, calls) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.result["answer"] == "Say in a sentence why Lisbon (24.0 °C) is best."
    assert (finish.result["asked"], finish.result["booking"]["city"]) == (3, "Lisbon")
    assert len({call.key for call in calls.asked if call.target == "book"}) == 1


@pytest.mark.holds("agent-code.md", "The pages have every call, pattern and error")
def test_the_page_has_every_call_of_ctx_and_every_error() -> None:
    calls = {name for name, _ in inspect.getmembers(Context, inspect.isfunction) if not name.startswith("_")}
    assert {name for name in calls if f"`ctx.{name}" not in PAGE} == set()
    explained = {name for name, _ in inspect.getmembers(Patterns, inspect.isfunction)} | {"actor"}
    assert {name for name in explained if f"`ctx.{name}(" not in PATTERNS} == set()
    errors = {name for name in agents.__all__ if name.endswith("Error")}
    assert {name for name in errors if f"`{name}`" not in PAGE} == set()
    assert agents.__all__ == sorted(agents.__all__)
    public: dict[str, Any] = {name: getattr(agents, name) for name in agents.__all__}
    assert all(public.values())
