"""Graphs as agents: what goes in and out, and what a kill repeats, crashed before and after every write."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import interrupt

from agent_support.lives import Story, crashed_everywhere
from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import ScriptedCalls, program_of, run, said
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.graphs.compiling import agent_of
from flotilla_runtime.agent.journal import CallKind, EndReason, WaitKind
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Finish


def program(graph: Any, *tools: Any) -> Program:
    return program_of(agent_of("m:graph", graph), *tools)


def submitted(task_input: str = "Where to?", points: CrashPoints | None = None) -> MemoryStore:
    store = MemoryStore(points)
    store.submit("t1", task_input)
    return store


def finish(store: MemoryStore, task_id: str = "t1") -> Finish:
    ended = store.tasks[task_id].finish
    assert ended is not None
    return ended


def chain(schema: Any, *nodes: Any) -> "StateGraph[Any, Any, Any, Any]":
    graph = StateGraph(schema)
    before = START
    for node in nodes:
        graph.add_node(node.__name__, node)
        graph.add_edge(before, node.__name__)
        before = node.__name__
    graph.add_edge(before, END)
    return graph


class Counted(TypedDict):
    x: int
    steps: Annotated[list[str], add]


def replying(state: MessagesState) -> Mapping[str, Any]:
    return {"messages": [("ai", f"You said: {state['messages'][-1].text}")]}


async def doubled(state: Counted) -> Mapping[str, Any]:
    return {"x": state["x"] * 2, "steps": ["doubled"]}


@entrypoint()
async def workflow(value: Any) -> Any:
    return {"got": value}


@pytest.mark.holds(
    "graphs.md",
    "A LangGraph graph, compiled or not, a workflow, or a function that makes one, runs as it is, "
    "with the mappings of input and result",
)
@pytest.mark.parametrize(
    ("graph", "task_input", "result"),
    [
        pytest.param(
            chain(MessagesState, replying),
            "Hello",
            "You said: Hello",
            id="with messages, the question is one, and the last one's text the result",
        ),
        pytest.param(
            chain(MessagesState, replying).compile(), "Hello", "You said: Hello", id="a compiled graph"
        ),
        pytest.param(
            lambda: chain(MessagesState, replying), "Hello", "You said: Hello", id="a function that makes one"
        ),
        pytest.param(
            chain(Counted, doubled),
            '{"x": 4}',
            {"x": 8, "steps": ["doubled"]},
            id="without messages, the input is the state as JSON, and the state the result",
        ),
        pytest.param(workflow, "Hello", {"got": "Hello"}, id="a workflow's input is any value"),
        pytest.param(workflow, '{"a": 1}', {"got": {"a": 1}}, id="which may be JSON"),
    ],
)
async def test_what_a_graph_is_given_and_what_it_gives(graph: Any, task_input: str, result: Any) -> None:
    store = submitted(task_input)
    assert await run(store, program(graph), ScriptedCalls()) is RunOutcome.ENDED
    assert finish(store).result == result
    assert store.checkpoints == {}


@pytest.mark.holds(
    "graphs.md",
    "A LangGraph graph, compiled or not, a workflow, or a function that makes one, runs as it is, "
    "with the mappings of input and result",
)
async def test_a_state_without_messages_needs_an_object() -> None:
    store = submitted("Hello")
    await run(store, program(chain(Counted, doubled)), ScriptedCalls())
    assert finish(store).reason is EndReason.INVALID
    assert "spec.agent.graph" in finish(store).message
    assert "x" in finish(store).message


@pytest.mark.holds(
    "graphs.md",
    "After the loss of a worker a graph goes on from its last step; no node that had ended is run again",
)
async def test_a_kill_anywhere_repeats_no_node_that_had_ended() -> None:
    """Each node counts its runs in the world outside; one is under way when its worker is killed."""
    ran: dict[str, int] = {}

    def counting(name: str) -> Any:
        async def node(_state: Counted) -> Mapping[str, Any]:
            ran[name] = ran.get(name, 0) + 1
            return {"steps": [name]}

        node.__name__ = name
        return node

    graph = chain(Counted, counting("first"), counting("second"), counting("third"))
    stories = await crashed_everywhere(lambda: Story(program(graph), lambda call: said(""), '{"x": 1}'))
    assert len(stories) > 20
    assert all(story.result == {"x": 1, "steps": ["first", "second", "third"]} for story in stories)
    assert sum(ran.values()) <= 3 * len(stories) + len(stories), "at most one node again for each kill"


async def asker(state: Counted) -> Mapping[str, Any]:
    first = interrupt({"question": "pay?", "x": state["x"]})
    second = interrupt({"question": "really?"}) if first["approved"] else None
    return {"steps": [f"{one['approved']} {one['by']} {one['comment']}" for one in (first, second) if one]}


def waiting_call(store: MemoryStore) -> str:
    waits = store.tasks["t1"].waits
    assert waits is not None
    assert waits.kind is WaitKind.APPROVAL
    return waits.call


@pytest.mark.holds(
    "graphs.md",
    "An `interrupt` is an approval; two of a node are two; it is asked once, wherever the worker is lost",
)
async def test_an_interrupt_is_an_approval_and_two_of_one_node_are_two() -> None:
    store, asking, calls = submitted('{"x": 5}'), program(chain(Counted, asker)), ScriptedCalls()
    assert await run(store, asking, calls) is RunOutcome.SUSPENDED
    first = waiting_call(store)
    assert store.tasks["t1"].open[first].arguments == {"question": "pay?", "x": 5}
    assert await run(store, asking, calls) is RunOutcome.SUSPENDED, "asked once"
    assert waiting_call(store) == first
    store.decide("t1", first, comment="if you must")
    assert await run(store, asking, calls) is RunOutcome.SUSPENDED
    second = waiting_call(store)
    assert second != first
    store.decide("t1", second, approved=False)
    assert await run(store, asking, calls) is RunOutcome.ENDED
    assert finish(store).result["steps"] == ["True boss if you must", "False boss None"]


@pytest.mark.holds(
    "graphs.md",
    "An `interrupt` is an approval; two of a node are two; it is asked once, wherever the worker is lost",
)
async def test_interrupts_of_a_subgraph_and_beside_each_other_are_asked_at_once() -> None:
    async def alone(_state: Counted) -> Mapping[str, Any]:
        return {"steps": [f"alone {interrupt('alone?')['by']}"]}

    inner = chain(Counted, asker).compile(checkpointer=InMemorySaver())
    graph = StateGraph(Counted)
    graph.add_node("inner", inner)
    add: Any = graph.add_node
    add("alone", alone)
    graph.add_edge(START, "inner").add_edge(START, "alone")
    store, asking = submitted('{"x": 5}'), program(graph)
    await run(store, asking, ScriptedCalls())
    first = sorted(store.tasks["t1"].open)
    assert len(first) == 2
    for call in first:
        store.decide("t1", call)
    assert await run(store, asking, ScriptedCalls()) is RunOutcome.SUSPENDED
    store.decide("t1", waiting_call(store))
    await run(store, asking, ScriptedCalls())
    assert sorted(set(finish(store).result["steps"])) == ["True boss None", "alone boss"]


@pytest.mark.holds(
    "graphs.md",
    "An `interrupt` is an approval; two of a node are two; it is asked once, wherever the worker is lost",
)
async def test_an_interrupt_survives_a_kill_anywhere_and_is_asked_once() -> None:
    async def lived(crash_at: int | None) -> tuple[MemoryStore, int]:
        store, asking = submitted('{"x": 5}', CrashPoints(crash_at=crash_at)), program(chain(Counted, asker))
        for _ in range(12):
            try:
                await run(store, asking, ScriptedCalls(points=store.points))
            except* CrashError:
                pass
            passed = len(store.points.passed)
            if store.points.has_crashed:
                store.points = CrashPoints()
            if store.tasks["t1"].finish is not None:
                return store, passed
            if store.tasks["t1"].waits is not None:
                store.decide("t1", waiting_call(store))
        raise AssertionError("the task does not end")

    whole, points = await lived(None)
    for store in [whole, *[(await lived(point))[0] for point in range(points)]]:
        assert finish(store).result["steps"] == ["True boss None", "True boss None"]
        asked = [one for one in store.tasks["t1"].entries if getattr(one, "kind", None) is CallKind.APPROVE]
        assert len({one.call for one in asked}) == len(asked) == 2  # type: ignore[union-attr]


@pytest.mark.holds(
    "graphs.md",
    "An `interrupt` is an approval; two of a node are two; it is asked once, wherever the worker is lost",
)
async def test_nobody_who_decides_is_a_refusal() -> None:
    store, asking = submitted('{"x": 5}'), program(chain(Counted, asker))
    await run(store, asking, ScriptedCalls())
    store.now_ms += 86_400_000
    await run(store, asking, ScriptedCalls())
    assert finish(store).result["steps"] == ["False None None"]


class Opaque:
    pass


@dataclass
class Undeclared:
    x: int


@dataclass
class Declared:
    x: int


class Holding(TypedDict, total=False):
    value: Any
    known: Declared


@pytest.mark.holds(
    "graphs.md",
    "A state that cannot be stored ends the task as Invalid; a class that the state declares comes "
    "back as itself",
)
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param(Opaque(), "Opaque", id="an object that nothing can write"),
        pytest.param(Undeclared(x=1), "Undeclared", id="a class that the state does not declare"),
    ],
)
async def test_a_state_that_cannot_be_stored_ends_the_task_as_invalid(value: Any, problem: str) -> None:
    async def node(_state: Holding) -> Mapping[str, Any]:
        return {"value": value}

    store = submitted("{}")
    assert await run(store, program(chain(Holding, node)), ScriptedCalls()) is RunOutcome.ENDED
    assert finish(store).reason is EndReason.INVALID
    assert finish(store).message.startswith("spec.agent.graph: the graph's state cannot be stored")
    assert problem in finish(store).message


@pytest.mark.holds(
    "graphs.md",
    "A state that cannot be stored ends the task as Invalid; a class that the state declares comes "
    "back as itself",
)
async def test_a_class_that_the_state_declares_comes_back_as_itself() -> None:
    async def first(_state: Holding) -> Mapping[str, Any]:
        return {"known": Declared(x=1)}

    async def second(state: Holding) -> Mapping[str, Any]:
        return {"value": type(state["known"]).__name__}

    async def pause(_state: Holding) -> Mapping[str, Any]:
        interrupt("look")
        return {}

    store, graph = submitted("{}"), program(chain(Holding, first, pause, second))
    await run(store, graph, ScriptedCalls())
    store.decide("t1", waiting_call(store))
    await run(store, graph, ScriptedCalls())
    assert finish(store).result == {"known": {"x": 1}, "value": "Declared"}


@pytest.mark.holds("graphs.md", "Tasks of a conversation go on in one state of their graph")
async def test_tasks_of_a_conversation_go_on_in_one_state() -> None:
    class Heard(TypedDict):
        messages: Annotated[
            list[AnyMessage], __import__("langgraph.graph.message").graph.message.add_messages
        ]

    def count(state: Heard) -> Mapping[str, Any]:
        return {"messages": [("ai", f"{len(state['messages'])} messages")]}

    store, graph = MemoryStore(), program(chain(Heard, count))
    for name, result in (("t1", "1 messages"), ("t2", "3 messages")):
        store.submit(name, "Hello")
        store.tasks[name].conversation = "c"
        await run(store, graph, ScriptedCalls(), name)
        assert finish(store, name).result == result


@pytest.mark.holds("graphs.md", "`recursion_limit` ends a task as MaxSteps")
async def test_too_many_steps_end_the_task_as_such() -> None:
    graph = StateGraph(Counted).add_node("doubled", doubled)
    graph.add_edge(START, "doubled").add_edge("doubled", "doubled")
    store = submitted('{"x": 1}')
    await run(store, program(graph.compile().with_config({"recursion_limit": 3})), ScriptedCalls())
    assert finish(store).reason is EndReason.MAX_STEPS


async def test_a_node_that_raises_ends_the_task_as_invalid() -> None:
    async def broken(_state: Counted) -> Mapping[str, Any]:
        raise KeyError("nobody")

    store = submitted('{"x": 1}')
    await run(store, program(chain(Counted, broken)), ScriptedCalls())
    assert (finish(store).reason, finish(store).message) == (
        EndReason.INVALID,
        "the agent raised KeyError: 'nobody'",
    )
