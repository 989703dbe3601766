"""The built-in agent begins what changes nothing while its model still writes, and is replayed alike."""

import asyncio
import json
from typing import Any

import pytest

from agent_support.lives import Story, crashed_everywhere
from agent_support.running import PASSAGE, config_of, found, program_of, said, tool_of
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.models import ToolCall
from flotilla_runtime.agent.models.values import (
    ModelProblem,
    ModelProblemReason,
    ToolCallComplete,
    Withdrawn,
)
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.contract import Effect, Retrieval

DIED = ModelProblem(reason=ModelProblemReason.BROKEN_STREAM, message="the replica died")
WANTED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("look", {"city": "Lisbon"}),
    ("book", {"city": "Lisbon"}),
    ("search_docs", {"query": "trains"}),
    ("no#tool", {}),
)
PROGRAM = program_of(
    built_in,
    tool_of("look", Effect.PURE),
    tool_of("book", Effect.IDEMPOTENT),
    config=config_of(indexes=("docs",), retrieval=Retrieval.TOOL),
)


class Model:
    """Writes four calls, the first of them also in a try that dies; answers in its second turn."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.seen: list[str] = []
        self.told: list[str] = []

    async def __call__(self, call: Call) -> Reply:
        if call.kind is not CallKind.MODEL:
            self.made.append(call.target)
            is_search = call.kind is CallKind.RETRIEVE
            return found(PASSAGE) if is_search else Reply(outcome=CallOutcome.SUCCEEDED, value=call.target)
        results = [one["content"] for one in call.request.messages if one["role"] == "tool"]
        if results:
            self.told = results
            return said({"text": "Done."})
        assert call.on_event is not None
        for name, arguments in (WANTED[0], ("look", {"city": "Rome"})):
            call.on_event(ToolCallComplete(call=_call(name, arguments)))
        call.on_event(Withdrawn(problem=DIED))
        for name, arguments in WANTED:
            call.on_event(ToolCallComplete(call=_call(name, arguments)))
            for _ in range(20):
                await asyncio.sleep(0)
        self.seen = list(self.made)
        calls = [
            {"id": f"c{place}", "name": name, "arguments": json.dumps(arguments)}
            for place, (name, arguments) in enumerate(WANTED)
        ]
        return said({"text": "", "toolCalls": calls})


def _call(name: str, arguments: dict[str, Any]) -> ToolCall:
    return ToolCall(id="c", name=name, arguments_text=json.dumps(arguments), arguments=arguments)


@pytest.mark.holds(
    "agents.md",
    "The built-in agent begins searches and Pure tools while its model writes, and is replayed alike",
)
async def test_pure_tools_and_searches_begin_while_the_model_writes_and_others_when_it_has_written() -> None:
    model = Model()
    story = await Story(PROGRAM, model).to_the_end()
    assert story.result["answer"] == "Done."
    assert sorted(model.seen) == ["docs", "look", "look"], "Rome was wanted by the try that died"
    assert sorted(model.made) == ["book", "docs", "look", "look"]
    assert [text.split("\n")[0] for text in model.told] == [
        "look",
        "book",
        "[1] A",
        "not called: there is no tool 'no#tool'; there are look, book, search_docs",
    ]


@pytest.mark.holds(
    "agents.md",
    "The built-in agent begins searches and Pure tools while its model writes, and is replayed alike",
)
async def test_a_crash_anywhere_repeats_no_finished_call() -> None:
    for story in await crashed_everywhere(lambda: Story(PROGRAM, Model())):
        assert story.result["answer"] == "Done."
        booked = {call.key for call in story.calls.asked if call.target == "book"}
        assert len(booked) == 1
