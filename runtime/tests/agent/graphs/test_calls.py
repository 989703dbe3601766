"""Our models and tools in nodes: each call is in the journal, and none that had ended is made again."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt
from pydantic import BaseModel

from agent_support.lives import Story, crashed_everywhere
from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, begin, failed, program_of, run, said, tool_of
from flotilla_runtime.agent.answers import Answer
from flotilla_runtime.agent.engine.run import Interrupt, RunOutcome
from flotilla_runtime.agent.graphs.compiling import agent_of
from flotilla_runtime.agent.graphs.current import node_scope
from flotilla_runtime.agent.graphs.known import known_tools
from flotilla_runtime.agent.graphs.models import choice_of, message_of
from flotilla_runtime.agent.journal import CallKind, CallOutcome, EndReason, WaitKind
from flotilla_runtime.agent.models import (
    ModelOutcome,
    ModelProblem,
    ModelProblemReason,
    ModelReply,
    NamedTool,
    ToolCall,
    ToolChoice,
)
from flotilla_runtime.agent.models.journal_form import value_of
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Certainty, Reply
from flotilla_runtime.contract import Approval, Effect
from flotilla_runtime.graphs import FlotillaChatModel, NoTaskError, flotilla_tools, task_context
from router_support.waiting import until

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = tool_of("weather", Effect.PURE, CITY)
BOOK = tool_of("book", Effect.UNSAFE, CITY)


def asks_for(*calls: tuple[str, str]) -> Reply:
    """A model's answer with these calls: tools and cities."""
    wanted = tuple(
        ToolCall(id=f"c-{tool}-{city}", name=tool, arguments_text=json.dumps({"city": city}))
        for tool, city in calls
    )
    return said(value_of(ModelReply(outcome=ModelOutcome.SUCCEEDED, tries=1, tool_calls=wanted)))


def travelling(call: Call) -> Reply:
    """A forecast and a booking at once, then an answer with what came."""
    if call.kind is CallKind.TOOL:
        return Reply(outcome=CallOutcome.SUCCEEDED, value=f"{call.target} in {call.request['city']}")
    heard = [one["content"] for one in call.request.messages if one["role"] == "tool"]
    return said("; ".join(sorted(heard))) if heard else asks_for(("weather", "Oslo"), ("book", "Faro"))


def reacting(*named: str, is_sync: bool = False, **options: Any) -> Program:
    """A loop of a model and tools, as LangGraph's pages write it; without names with all of the fleet."""
    with known_tools((WEATHER.config, BOOK.config)):
        tools = flotilla_tools(*named)
    model = FlotillaChatModel(**options).bind_tools(tools)

    async def think(state: MessagesState) -> Mapping[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def think_in_a_thread(state: MessagesState) -> Mapping[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think_in_a_thread if is_sync else think)
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", tools_condition)
    graph.add_edge("tools", "think")
    return program_of(agent_of("m:graph", graph), WEATHER, BOOK)


def alone(node: Any) -> Any:
    """A graph of one node."""
    return StateGraph(MessagesState).add_node("alone", node).add_edge(START, "alone").add_edge("alone", END)


@pytest.mark.holds(
    "graphs.md",
    "No call of our model and tools in a node is made again once it has ended; an Unsafe tool is "
    "never made twice",
)
async def test_no_call_that_had_ended_is_made_again_after_a_kill_anywhere() -> None:
    stories = await crashed_everywhere(lambda: Story(reacting(), travelling))
    assert len(stories) > 40
    for story in stories:
        assert story.task.finish is not None
        if story.task.finish.reason is not EndReason.UNKNOWN_EFFECT:
            assert story.result == "book in Faro; weather in Oslo"
        bookings = [name for name in story.calls.made if "tool/book" in name]
        assert len(bookings) <= 1, "an Unsafe call is never made again"
    names = [name.partition("/")[2].partition("/")[2] for name in stories[0].calls.made]
    assert sorted(name.partition("@")[0] for name in names) == [
        "llm/Default",
        "llm/Default",
        "tool/book",
        "tool/weather",
    ]
    assert len(set(stories[0].calls.made)) == 4


@pytest.mark.holds(
    "graphs.md",
    "`FlotillaChatModel` and `flotilla_tools` work in nodes that are coroutines or plain "
    "functions, with tools, structured output and approvals",
)
async def test_a_node_in_a_thread_makes_the_same_calls() -> None:
    story = await Story(reacting(is_sync=True), travelling).to_the_end()
    assert story.result == "book in Faro; weather in Oslo"


@pytest.mark.holds(
    "graphs.md",
    "`FlotillaChatModel` and `flotilla_tools` work in nodes that are coroutines or plain "
    "functions, with tools, structured output and approvals",
)
async def test_the_model_is_told_the_tools_as_the_fleet_declares_them() -> None:
    story = await Story(reacting(temperature=0.5, answers=True), travelling).to_the_end()
    first = story.calls.asked[0].request
    assert [(tool.name, tool.parameters) for tool in first.tools] == [("weather", CITY), ("book", CITY)]
    assert (first.temperature, first.answers, first.messages) == (
        0.5,
        True,
        ({"role": "user", "content": "Where to?"},),
    )


async def test_what_a_tool_fails_with_is_an_observation() -> None:
    def script(call: Call) -> Reply:
        return failed("no such city") if call.target == "weather" else travelling(call)

    story = await Story(reacting(), script).to_the_end()
    assert story.result == "book in Faro; no such city"


@pytest.mark.holds(
    "patterns.md",
    "A pipeline, and a graph's node with `flotilla_tools`, call only tools that the model was offered",
)
@pytest.mark.attack("A model wants a tool of its fleet that it was not offered")
async def test_a_tool_that_the_graph_does_not_name_is_not_called() -> None:
    story = await Story(reacting("weather"), travelling).to_the_end()
    assert "book is not a valid tool" in story.result
    assert "weather in Oslo" in story.result
    assert [call.target for call in story.calls.asked if call.kind is CallKind.TOOL] == ["weather"]


@pytest.mark.holds(
    "graphs.md",
    "`FlotillaChatModel` and `flotilla_tools` work in nodes that are coroutines or plain "
    "functions, with tools, structured output and approvals",
)
async def test_a_tool_that_asks_waits_for_approval_within_its_node() -> None:
    paying = tool_of("book", Effect.UNSAFE, CITY, approval=Approval.ALWAYS)
    program = reacting()
    program = program_of(program.main, WEATHER, paying)
    store, calls = MemoryStore(), ScriptedCalls(script=travelling)
    store.submit("t1", "Where to?")
    assert await run(store, program, calls) is RunOutcome.SUSPENDED
    waits = store.tasks["t1"].waits
    assert waits is not None
    assert waits.kind is WaitKind.APPROVAL
    assert waits.call.endswith("tool/book@c-book-Faro#approval")
    store.decide("t1", waits.call, approved=False, comment="too dear")
    assert await run(store, program, calls) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert "boss refused it: too dear" in finish.result
    assert not any("tool/book" in name for name in calls.made)


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
async def test_a_yes_to_an_interrupt_is_used_up_by_the_call_after_it() -> None:
    async def paying(_state: MessagesState) -> Mapping[str, Any]:
        if not interrupt("book a room in Faro?")["approved"]:
            return {"messages": [("ai", "nothing")]}
        with task_context() as ctx:
            return {"messages": [("ai", str(await ctx.tool("book", {"city": "Faro"})))]}

    def unanswered(call: Call) -> Reply:
        return Reply(outcome=CallOutcome.TIMED_OUT, problem="no answer", certainty=Certainty.UNKNOWN)

    program = program_of(agent_of("m:g", alone(paying)), BOOK)
    store = MemoryStore()
    store.submit("t1", "Where to?")
    made = 0
    for approvals in (1, 2, 3):
        calls = ScriptedCalls(script=unanswered)
        assert await run(store, program, calls) is RunOutcome.SUSPENDED
        waits = store.tasks["t1"].waits
        assert (calls.made, waits.kind if waits else None) == ([], WaitKind.APPROVAL)
        assert store.decide("t1", waits.call if waits else "")
        assert await run(store, program, calls) is RunOutcome.SUSPENDED
        made += len(calls.made)
        waits = store.tasks["t1"].waits
        assert (made, waits.kind if waits else None) == (approvals, WaitKind.EFFECT)
        store.resolve("t1", waits.call if waits else "", happened=False)


@pytest.mark.holds(
    "graphs.md",
    "No call of our model and tools in a node is made again once it has ended; an Unsafe tool is "
    "never made twice",
)
async def test_calls_that_a_node_makes_at_once_keep_their_answers_in_any_order() -> None:
    """After a kill the second one asks first."""
    order = [0.0, 0.01]

    async def both(_state: MessagesState) -> Mapping[str, Any]:
        async def one(text: str, seconds: float) -> str:
            await asyncio.sleep(seconds)
            return str((await FlotillaChatModel().ainvoke(text)).text)

        texts = await asyncio.gather(one("first", order[0]), one("second", order[1]))
        order.reverse()
        return {"messages": [("ai", " ".join(texts))]}

    graph = alone(both)

    def echo(call: Call) -> Reply:
        return said(call.request.messages[0]["content"])

    for story in await crashed_everywhere(lambda: Story(program_of(agent_of("m:g", graph)), echo)):
        assert story.result == "first second"


@pytest.mark.holds(
    "graphs.md",
    "`FlotillaChatModel` and `flotilla_tools` work in nodes that are coroutines or plain "
    "functions, with tools, structured output and approvals",
)
async def test_a_structured_answer_and_calls_of_the_nodes_own() -> None:
    class Kind(BaseModel):
        kind: str

    async def sort(_state: MessagesState) -> Mapping[str, Any]:
        found = await FlotillaChatModel(role="Judge").with_structured_output(Kind).ainvoke("what?")
        with task_context() as ctx:
            drawn = [await ctx.random(), await ctx.random()]
        assert isinstance(found, Kind)
        return {"messages": [("ai", f"{found.kind} {drawn[0] != drawn[1]}")]}

    def script(call: Call) -> Reply:
        assert call.request.tool_choice in (ToolChoice.REQUIRED, NamedTool(name="Kind"))
        wanted = ToolCall(id="c1", name="Kind", arguments_text='{"kind": "bug"}')
        return said(value_of(ModelReply(outcome=ModelOutcome.SUCCEEDED, tries=1, tool_calls=(wanted,))))

    graph = alone(sort)
    story = await Story(program_of(agent_of("m:g", graph)), script).to_the_end()
    assert story.result == "bug True"


@pytest.mark.parametrize("is_sync", [False, True])
async def test_a_run_that_stops_leaves_no_thread_and_no_call_behind(is_sync: bool) -> None:
    store, calls = MemoryStore(), ScriptedCalls(hold=asyncio.Event())
    store.submit("t1", "Where to?")
    beginning = begin(store, reacting(is_sync=is_sync), calls)
    going = asyncio.create_task(beginning.run())
    await until(lambda: bool(calls.made))
    beginning.interrupt(Interrupt.LOST)
    async with asyncio.timeout(60):
        assert await going is RunOutcome.LOST
    assert calls.stopped == calls.made


async def test_outside_of_a_task_there_is_no_model() -> None:
    with pytest.raises(NoTaskError):
        await FlotillaChatModel().ainvoke("Hello")


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, None),
        (False, None),
        ("auto", ToolChoice.AUTO),
        ("none", ToolChoice.NONE),
        ("any", ToolChoice.REQUIRED),
        ("required", ToolChoice.REQUIRED),
        (True, ToolChoice.REQUIRED),
        ("weather", NamedTool(name="weather")),
        ({"type": "function", "function": {"name": "weather"}}, NamedTool(name="weather")),
    ],
)
def test_a_choice_of_tools_in_langchains_words(choice: Any, meant: Any) -> None:
    assert choice_of(choice) == meant


def test_an_answer_whose_call_is_no_json_is_an_invalid_call() -> None:
    problem = ModelProblem(reason=ModelProblemReason.NOT_JSON, message="no JSON")
    call = ToolCall(id="c", name="weather", arguments_text="{", problem=problem)
    message = message_of(Answer(text="", tool_calls=(call,), is_cut=True, input_tokens=2, output_tokens=3))
    assert isinstance(message, AIMessage)
    assert message.tool_calls == []
    assert [one["error"] for one in message.invalid_tool_calls] == ["no JSON"]
    assert message.usage_metadata is not None
    assert message.usage_metadata["total_tokens"] == 5
    assert message.response_metadata["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ("", "outside"),
        ("think:574da8be-c574-9d2d-7f85-1d53aecc4ad5", "think:574da8bec574"),
        ("sub:574da8be-c574|my node#2:dc8e98b9", "sub:574da8bec574|my-node-2:dc8e98b9"),
    ],
)
def test_the_scope_of_a_node(namespace: str, name: str) -> None:
    assert node_scope(namespace) == name


def test_long_names_of_nodes_stay_apart() -> None:
    names = {node_scope("x" * 300 + f"{number}:1") for number in range(3)}
    assert len(names) == 3
    assert max(map(len, names)) < 200
