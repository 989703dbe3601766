"""Makes an agent of a LangGraph graph: it is compiled if it is not, and gets our checkpointer."""

import copy
import inspect
from collections.abc import Collection
from typing import Any

from langgraph.checkpoint.serde import _msgpack
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel

from flotilla_runtime.agent.graphs.current import current_run
from flotilla_runtime.agent.graphs.loading import GRAPH, STRICT
from flotilla_runtime.agent.graphs.running import GraphAgent
from flotilla_runtime.agent.graphs.saver import FlotillaSaver
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.contract.failure_texts import what_and_where


def agent_of(reference: str, found: Any) -> GraphAgent:
    """The agent that runs what the reference names; raises ProgramError."""
    if not _msgpack.STRICT_MSGPACK_ENABLED:
        raise ProgramError(
            GRAPH, f"something imported LangGraph before the worker; set {STRICT}=true in the image"
        )
    made = _called(reference, found) if inspect.isroutine(found) else found
    if isinstance(made, StateGraph):
        try:
            made = made.compile()
        except ValueError as problem:
            raise ProgramError(GRAPH, f"{reference} cannot be compiled: {problem}") from problem
    if not isinstance(made, Pregel):
        raise ProgramError(
            GRAPH,
            f"{reference} is no graph but {_kind(made)}: name a StateGraph, a compiled graph, or a function "
            "without arguments that returns one",
        )
    if made.interrupt_before_nodes or made.interrupt_after_nodes:
        raise ProgramError(
            GRAPH,
            f"{reference} is compiled with interrupt_before or interrupt_after, which is for debugging; "
            "call interrupt(...) in a node to ask somebody",
        )
    return GraphAgent(graph=checkpointed(made), keys=keys_of(made))


def checkpointed(graph: "Pregel[Any, Any, Any, Any]") -> "Pregel[Any, Any, Any, Any]":
    """The graph with our checkpointer in place of its own, which reads the types that its state declares."""
    ours = copy.copy(graph)
    allowed = graph._serde_allowlist
    if allowed is None and isinstance(graph, CompiledStateGraph):
        allowed = graph.builder.compile()._serde_allowlist
    ours.checkpointer = FlotillaSaver(lambda: current_run().context.checkpoints).with_allowlist(allowed or ())
    return ours


def keys_of(graph: "Pregel[Any, Any, Any, Any]") -> Collection[str] | None:
    """The keys of the graph's input; None for one that takes a single value, as an @entrypoint does."""
    if not isinstance(graph, CompiledStateGraph):
        return None
    keys = frozenset(graph.builder.schemas[graph.builder.input_schema])
    return None if keys == {"__root__"} else keys


def _called(reference: str, make: Any) -> Any:
    if inspect.iscoroutinefunction(make):
        raise ProgramError(
            GRAPH, f"{reference} is a coroutine; write a plain function that returns the graph"
        )
    try:
        return make()
    except Exception as problem:
        what = what_and_where(problem)
        raise ProgramError(GRAPH, f"calling {reference} failed: {what}") from problem


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
