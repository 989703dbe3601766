"""What a worker runs for each task: an agent, the tools it may use, and its fleet's configuration."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import DEFAULT_ROLE, ModelConnection, WorkerConfig

ContextOf = Callable[[ModelConnection], Awaitable[int]]
AgentMain = Callable[[Any, Any], Awaitable[Any]]  # a Context and a Task


async def stated_context(model: ModelConnection) -> int:
    """The context of a model as the configuration states it."""
    return model.context_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An agent, loaded once for each worker. `context_of` says how long prompt and answer may be together.

    `tools` may change while the worker runs; `pinned` has those of now.
    """

    main: AgentMain
    config: WorkerConfig
    tools: Mapping[str, Tool] = field(default_factory=dict)
    context_of: ContextOf = stated_context

    @property
    def pinned(self) -> "Program":
        """The program for a run that begins now: its tools do not change."""
        return replace(self, tools=dict(self.tools))

    def model(self, role: str) -> ModelConnection:
        """The model with this role, or else the one with the role Default."""
        by_role = {model.role: model for model in self.config.models}
        return by_role.get(role) or by_role[DEFAULT_ROLE]
