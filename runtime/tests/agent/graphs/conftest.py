"""LangGraph reads once, when it is imported, whether it is strict about types. Workers set it before."""

import os
from collections.abc import Iterator

import pytest
import structlog

os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """The trace of an error through LangGraph takes seconds to draw."""
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()
