"""The names that the code of a LangGraph graph imports. docs/graphs.md explains them. It needs LangGraph."""

from flotilla_runtime.agent.graphs.current import NoTaskError, task_context
from flotilla_runtime.agent.graphs.models import FlotillaChatModel
from flotilla_runtime.agent.graphs.tools import FlotillaTool, flotilla_tools

__all__ = ["FlotillaChatModel", "FlotillaTool", "NoTaskError", "flotilla_tools", "task_context"]
