"""Runs a graph as the agent of a task.

After a kill the graph goes on from its last step: nodes that had ended are not run again, and the one that
was under way is repeated, as LangGraph promises. An `interrupt` is an approval of the task.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphRecursionError
from langgraph.pregel import Pregel
from langgraph.types import Command, Interrupt, StateSnapshot

from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.failures import TaskFailedError
from flotilla_runtime.agent.graphs.current import GraphRun, running
from flotilla_runtime.agent.graphs.mapping import input_of, result_of
from flotilla_runtime.agent.journal import OF_GRAPH, EndReason

OF_TASK: Final = "flotilla_task"  # in the metadata of a checkpoint: the task that made it


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphAgent:
    """A graph as an agent. `keys` are those of its input, None for a graph that takes one value."""

    graph: "Pregel[Any, Any, Any, Any]"
    keys: Collection[str] | None

    async def __call__(self, ctx: Context, task: Task) -> Any:
        """Run the graph until it ends; its last message or its output is the result."""
        config: RunnableConfig = {
            "configurable": {"thread_id": ctx.checkpoints.thread},
            "metadata": {OF_TASK: task.id},
        }
        with running(GraphRun(ctx)):
            state = await self.graph.aget_state(config)
            if (state.metadata or {}).get(OF_TASK) != task.id:
                history = () if state.created_at else task.history
                state = await self._steps(ctx, config, input_of(task.input, history, self.keys))
            while state.tasks:  # also where all have ended, and their step is not a checkpoint yet
                before, state = state, await self._steps(ctx, config, await _resumed(ctx, state.interrupts))
                if before.config == state.config and not state.interrupts:
                    raise TaskFailedError(EndReason.INVALID, "spec.agent.graph: the graph makes no step")
            return result_of(self._output(state))

    async def _steps(self, ctx: Context, config: RunnableConfig, given: Any) -> StateSnapshot:
        """Run steps until the graph ends or is interrupted. Each is stored before the next begins."""
        try:
            async for _ in self.graph.astream(given, config, stream_mode="updates", durability="sync"):
                await ctx.checkpoints.may_go_on()
        except GraphRecursionError as problem:
            raise TaskFailedError(EndReason.MAX_STEPS, f"spec.agent.graph: {problem}") from problem
        return await self.graph.aget_state(config)

    def _output(self, state: StateSnapshot) -> Any:
        channels = self.graph.output_channels
        if isinstance(channels, str) or not isinstance(state.values, Mapping):
            return state.values
        return {name: state.values[name] for name in channels if name in state.values}


async def _resumed(ctx: Context, interrupts: Sequence[Interrupt[Any]]) -> "Command[Any] | None":
    """Return the command that resumes the graph with a decision for each interrupt; None for none."""
    if not interrupts:
        return None
    asked = [ctx.approve(f"{OF_GRAPH}/{one.id}", one.value) for one in interrupts]
    decisions = await asyncio.gather(*asked)
    return Command(
        resume={
            one.id: {"approved": decision.approved, "by": decision.by, "comment": decision.comment}
            for one, decision in zip(interrupts, decisions, strict=True)
        }
    )
