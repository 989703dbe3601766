"""The task that a graph runs for, as its nodes find it.

LangGraph runs each node in an asyncio task of its own, or in a thread, and hands the context variables on. So
our models and tools know whose calls they make. A call's id has the node and its run in it, which are the
same after a kill. The results of calls that had ended are then in the journal.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from langchain_core.runnables import ensure_config

from flotilla_runtime.agent.engine.context import Context
from flotilla_runtime.agent.engine.pace import never
from flotilla_runtime.agent.engine.scopes import LONGEST_NAME, Scope
from flotilla_runtime.agent.journal import OF_GRAPH

Answer = TypeVar("Answer")

NAMESPACE: Final = "langgraph_checkpoint_ns"  # in a node's metadata: `node:run`, or `outer:run|node:run`
RUN_LETTERS: Final = 12
OWN: Final = "calls"  # those that a node makes by itself, not through our classes
NO_NAME: Final = re.compile(r"[#\s/\x00-\x1f]+")


class NoTaskError(RuntimeError):
    """A model or a tool of the fleet was called where no task runs."""

    def __init__(self) -> None:
        super().__init__(
            "models and tools of the fleet can be called in a task alone, by a node of its graph"
        )


class GraphRun:
    """The run of a graph for one task. Make it in the asyncio task that runs the agent."""

    def __init__(self, context: Context) -> None:
        self.context: Final = context
        self._loop: Final = asyncio.get_running_loop()
        self._root: Final = context.scopes.allotted(OF_GRAPH)
        self._scopes: dict[str, Scope] = {}
        self._bridged: set[asyncio.Future[Any]] = set()
        self._is_over = False

    async def call(self, make: Callable[[Context], Awaitable[Answer]]) -> Answer:
        """A call that the node makes now: `make` gives it its name in the node's scope."""
        with self.context.scopes.entered(self._scope(node_name())):
            making = make(self.context)
        try:
            return await making
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The run has stopped, and cancels its nodes next. LangChain would take this for an answer.
            return await never()

    @contextmanager
    def own_calls(self) -> Iterator[Context]:
        """The context for calls that the node makes by itself, one after another."""
        with self.context.scopes.entered(self._scope(f"{node_name()}/{OWN}")):
            yield self.context

    def from_thread(self, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Make a call for a node that runs in a thread, and wait there for its result."""
        return asyncio.run_coroutine_threadsafe(self._bridge(make), self._loop).result()

    def close(self) -> None:
        """Let go of the threads that wait for calls: nobody makes them any more."""
        self._is_over = True
        for one in self._bridged:
            one.cancel()

    def _scope(self, name: str) -> Scope:
        if name not in self._scopes:
            self._scopes[name] = self.context.scopes.allotted(name, self._root)
        return self._scopes[name]

    async def _bridge(self, make: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        task = asyncio.current_task()
        if self._is_over or task is None:
            raise asyncio.CancelledError
        self._bridged.add(task)
        try:
            return await make()
        finally:
            self._bridged.discard(task)


_CURRENT: ContextVar[GraphRun] = ContextVar("flotilla_graph_run")


@contextmanager
def running(run: GraphRun) -> Iterator[None]:
    """Let nodes find this run."""
    token = _CURRENT.set(run)
    try:
        yield
    finally:
        run.close()
        _CURRENT.reset(token)


def current_run() -> GraphRun:
    """The run that the caller is a part of; raises NoTaskError."""
    run = _CURRENT.get(None)
    if run is None:
        raise NoTaskError
    return run


@contextmanager
def task_context() -> Iterator[Context]:
    """The `ctx` of the task, for calls that an async node makes by itself, one after another."""
    with current_run().own_calls() as context:
        yield context


def node_name() -> str:
    """The name of the node that runs now."""
    return node_scope(ensure_config().get("metadata", {}).get(NAMESPACE, ""))


def node_scope(namespace: str) -> str:
    """The name of a node's scope: the nodes on its path, each with the first letters of its run's id."""
    parts = []
    for part in filter(None, namespace.split("|")):
        node, _, run = part.partition(":")
        parts.append(f"{NO_NAME.sub('-', node)}:{run.replace('-', '')[:RUN_LETTERS]}".rstrip(":"))
    name = "|".join(parts) or "outside"
    longest = LONGEST_NAME - len(OWN) - 1
    if len(name) <= longest:
        return name
    return f"{name[: longest - 33]}~{hashlib.sha256(namespace.encode()).hexdigest()[:32]}"
