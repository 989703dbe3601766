"""A graph that cannot be used, or not with this LangGraph: the words with which its worker ends."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from agent_support.running import tool_of
from flotilla_runtime import contract
from flotilla_runtime.agent.graphs.compiling import agent_of
from flotilla_runtime.agent.graphs.loading import version_problem
from flotilla_runtime.agent.graphs.saver import FlotillaSaver
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.worker.loading import load_main
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


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(None, "m:g is no graph but nothing", id="nothing of this name"),
        pytest.param("graph", "m:g is no graph but str", id="something else"),
        pytest.param(lambda: 7, "m:g is no graph but int", id="a function that returns something else"),
        pytest.param(later, "m:g is a coroutine", id="a coroutine"),
        pytest.param(broken, "calling m:g failed: KeyError: 'no key'", id="a function that raises"),
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


def test_a_graph_finds_the_fleets_tools_when_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_tools.py").write_text(
        "from test_loading_shared import graph\n"
        "from flotilla_runtime.graphs import NoTaskError, flotilla_tools\n"
        "FOUND = [(tool.name, tool.args_schema) for tool in flotilla_tools()]\n"
        "NAMED = [tool.name for tool in flotilla_tools('tickets_search')]\n"
    )
    (tmp_path / "test_loading_shared.py").write_text(
        "from langgraph.graph import START, MessagesState, StateGraph\n"
        "graph = StateGraph(MessagesState).add_node('a', lambda state: {}).add_edge(START, 'a')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = contract.WorkerConfig(queue=QUEUE, graph="with_tools:graph", models=())
    load_main(config, {"weather": tool_of("weather", schema={"type": "object", "title": "W"})})
    loaded = sys.modules["with_tools"]
    assert loaded.FOUND == [("weather", {"type": "object", "title": "W"})]
    assert loaded.NAMED == ["tickets_search"]
    with pytest.raises(NoTaskError):
        flotilla_tools()


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
        load_main(contract.WorkerConfig(queue=QUEUE, graph=graph, models=()), {})
    assert str(refused.value).startswith(f"spec.agent.graph: {said}")


def test_a_worker_without_its_graph_ends_with_words_that_name_the_field(tmp_path: Path) -> None:
    config = contract.WorkerConfig(queue=QUEUE, graph="no_such_module:graph", models=())
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "flotilla_runtime.agent", "--config", str(tmp_path / "config.json")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == contract.EXIT_PERMANENT
    last = (ended.stdout + ended.stderr).strip().splitlines()[-1]
    assert last.startswith("spec.agent.graph: the image has no module no_such_module")


def test_nothing_imports_langgraph_but_the_graph() -> None:
    """Images of other fleets have none."""
    code = (
        "import sys, flotilla_runtime.agent.__main__, flotilla_runtime.agent.graphs.loading\n"
        "assert not [name for name in sys.modules if name.startswith(('langgraph', 'langchain'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
