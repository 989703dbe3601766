"""A graph that cannot be used, or not with this LangGraph: the words with which its worker ends."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from flotilla_runtime import contract
from flotilla_runtime.agent.graphs.compiling import agent_of
from flotilla_runtime.agent.graphs.loading import version_problem
from flotilla_runtime.agent.graphs.models import declared
from flotilla_runtime.agent.graphs.saver import FlotillaSaver
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.worker.loading import load_main, load_program
from flotilla_runtime.graphs import NoTaskError, flotilla_tools

QUEUE = contract.QueueConfig(fleet="default/support", url="redis://127.0.0.1:1/0")


def greeting() -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("greet", lambda state: {"messages": [("ai", "Hello")]})
    graph.add_edge(START, "greet")
    return graph


async def later() -> Any:
    return greeting()


def broken() -> Any:
    raise KeyError("no key")


@pytest.mark.holds(
    "graphs.md",
    "A graph that cannot be imported, is none, or has the wrong LangGraph ends its worker with "
    "words that name the field",
)
@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(None, "m:g is no graph but nothing", id="nothing of this name"),
        pytest.param("graph", "m:g is no graph but str", id="something else"),
        pytest.param(lambda: 7, "m:g is no graph but int", id="a function that returns something else"),
        pytest.param(later, "m:g is a coroutine", id="a coroutine"),
        pytest.param(broken, "calling m:g failed: KeyError in test_loading.py", id="a function that raises"),
        pytest.param(lambda config: config, "calling m:g failed: TypeError", id="one that takes arguments"),
        pytest.param(StateGraph(MessagesState), "m:g cannot be compiled", id="a graph without an entry"),
        pytest.param(
            greeting().compile(interrupt_before=["greet"]),
            "m:g is compiled with interrupt_before",
            id="one with breakpoints, which a restart would pass",
        ),
    ],
)
def test_what_is_no_graph_is_refused_with_words(found: Any, said: str) -> None:
    with pytest.raises(ProgramError) as refused:
        agent_of("m:g", found)
    assert str(refused.value).startswith(f"spec.agent.graph: {said}")


@pytest.mark.holds(
    "graphs.md",
    "A graph that cannot be imported, is none, or has the wrong LangGraph ends its worker with "
    "words that name the field",
)
@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.2.24", None),
        ("1.3", None),
        ("1.10.0rc1", None),
        (None, "the image has no LangGraph; write `RUN pip install"),
        ("1.2.23", "the image has LangGraph 1.2.23, and 1.2.24 or a newer 1.x is needed"),
        ("0.6.11", "the image has LangGraph 0.6.11"),
        ("2.0.0", "the image has LangGraph 2.0.0"),
    ],
)
def test_which_langgraph_is_taken(version: str | None, said: str | None) -> None:
    problem = version_problem(version)
    assert problem is None if said is None else str(problem).startswith(said)


def test_a_graphs_own_checkpointer_gives_way_to_ours() -> None:
    graph = greeting().compile(checkpointer=InMemorySaver())
    own = graph.checkpointer
    assert isinstance(agent_of("m:g", graph).graph.checkpointer, FlotillaSaver)
    assert graph.checkpointer is own, "the image's own object stays as it is"


MODULE = """
from langgraph.graph import START, MessagesState, StateGraph
from flotilla_runtime.graphs import flotilla_tools

def above(city: str) -> str:
    "The weather."

FOUND = {tool.name: tool for tool in flotilla_tools()}
NAMED = [tool.name for tool in flotilla_tools("tickets_search", "page")]
graph = StateGraph(MessagesState).add_node("a", lambda state: {}).add_edge(START, "a")

def below(city: str) -> str: ...
"""


@pytest.mark.holds(
    "graphs.md",
    "`FlotillaChatModel` and `flotilla_tools` work in nodes that are coroutines or plain "
    "functions, with tools, structured output and approvals",
)
def test_a_graph_finds_the_fleets_tools_when_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tools in its own module, tools that it names, and tools that a server will declare."""
    (tmp_path / "with_tools.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    tools = (
        contract.ToolConfig(name="above", python="with_tools:above"),
        contract.ToolConfig(name="below", python="with_tools:below"),
        contract.ToolConfig(
            name="page", http=contract.HttpEndpoint(url="http://p"), parameters={"title": "P"}
        ),
        contract.ToolConfig(name="tickets", mcp=contract.McpServer(url="http://t/mcp")),
    )
    program = load_program(
        contract.WorkerConfig(queue=QUEUE, graph="with_tools:graph", models=(), tools=tools)
    )
    module = sys.modules.pop("with_tools")
    assert sorted(module.FOUND) == ["above", "below", "page"]
    assert module.NAMED == ["tickets_search", "page"]
    above, below, page = (module.FOUND[name] for name in ("above", "below", "page"))
    assert (above.description, list(above.args_schema["properties"])) == ("The weather.", ["city"])
    assert page.args_schema == {"title": "P"}
    assert below.args_schema["properties"] == {}
    assert list(declared(below, program.tools).parameters["properties"]) == ["city"], "the model is told"
    with pytest.raises(NoTaskError):
        flotilla_tools()


@pytest.mark.holds(
    "graphs.md",
    "A graph that cannot be imported, is none, or has the wrong LangGraph ends its worker with "
    "words that name the field",
)
@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ("no_such_module:graph", "the image has no module no_such_module"),
        ("json:graph", "json:graph is no graph but nothing"),
        ("json", "'json' is not of the form module:attribute"),
    ],
)
def test_a_graph_that_is_not_there_is_refused_with_words(graph: str, said: str) -> None:
    with pytest.raises(ProgramError) as refused:
        load_main(contract.WorkerConfig(queue=QUEUE, graph=graph, models=()))
    assert str(refused.value).startswith(f"spec.agent.graph: {said}")


@pytest.mark.holds("graphs.md", "Images of other fleets need no LangGraph")
def test_nothing_imports_langgraph_but_the_graph() -> None:
    """Images of other fleets have none."""
    code = (
        "import sys, flotilla_runtime.agent.__main__, flotilla_runtime.agent.graphs.loading\n"
        "assert not [name for name in sys.modules if name.startswith(('langgraph', 'langchain'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
