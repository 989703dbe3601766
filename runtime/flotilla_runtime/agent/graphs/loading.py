"""Finds the graph that a fleet names, and makes an agent of it.

Nothing of LangGraph is imported before it is known that the image has it.
"""

import importlib.metadata
import os
from typing import Final

from flotilla_runtime.agent.programs import AgentMain
from flotilla_runtime.agent.tools.references import ProgramError, imported

GRAPH: Final = "spec.agent.graph"
LEAST: Final = (1, 2, 24)  # from here on, each interrupt of a node has an id of its own
STRICT: Final = "LANGGRAPH_STRICT_MSGPACK"  # read once, when LangGraph is imported


def prepare(graph: str | None) -> None:
    """Do what must be done before any code of the image is imported."""
    if graph is not None:
        os.environ[STRICT] = "true"


def graph_agent(reference: str) -> AgentMain:
    """The agent that runs this graph of the fleet's image; raises ProgramError."""
    problem = version_problem(_version())
    if problem is not None:
        raise ProgramError(GRAPH, problem)
    from flotilla_runtime.agent.graphs.compiling import agent_of

    return agent_of(reference, imported(GRAPH, reference, "attribute"))


def version_problem(version: str | None) -> str | None:
    """The problem with a version of LangGraph, None for none. The version None is an image without it."""
    least = ".".join(map(str, LEAST))
    fix = f'write `RUN pip install "langgraph>={least},<2"` into the Dockerfile of spec.image'
    if version is None:
        return f"the image has no LangGraph; {fix}"
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
    if not LEAST <= numbers < (2,):
        return f"the image has LangGraph {version}, and {least} or a newer 1.x is needed; {fix}"
    return None


def _version() -> str | None:
    try:
        return importlib.metadata.version("langgraph")
    except importlib.metadata.PackageNotFoundError:
        return None
