"""The fleet's tools as a graph finds them while its module is imported: by their configuration alone.

A tool in Python may be in the same module, so no tool is loaded yet. Nothing of LangGraph is imported here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from flotilla_runtime.contract import ToolConfig

_KNOWN: ContextVar[tuple[ToolConfig, ...] | None] = ContextVar("flotilla_graph_tools", default=None)


@contextmanager
def known_tools(configs: Sequence[ToolConfig]) -> Iterator[None]:
    """Let code that is imported meanwhile find these tools."""
    token = _KNOWN.set(tuple(configs))
    try:
        yield
    finally:
        _KNOWN.reset(token)


def tools_being_loaded() -> tuple[ToolConfig, ...] | None:
    """The tools of the fleet whose code is imported now; None if no code is."""
    return _KNOWN.get()
