"""The program that a worker runs for each task: an agent, its tools, and its fleet's configuration."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flotilla_runtime.agent.failures import TaskFailedError
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import DEFAULT_ROLE, ModelConnection, SubAgentConfig, WorkerConfig

ContextOf = Callable[[ModelConnection], Awaitable[int]]
AgentMain = Callable[[Any, Any], Awaitable[Any]]  # a Context and a Task


async def stated_context(model: ModelConnection) -> int:
    """The context of a model as the configuration states it."""
    return model.context_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An agent, loaded once for each worker. `context_of` says how long prompt and answer may be together.

    `tools` may change while the worker runs; `pinned` has those of now. `built_in` runs the agents that are
    not the fleet's own. The model with `role` stands for that with the role Default.
    """

    main: AgentMain
    config: WorkerConfig
    tools: Mapping[str, Tool] = field(default_factory=dict)
    context_of: ContextOf = stated_context
    built_in: AgentMain | None = None
    role: str = DEFAULT_ROLE

    @property
    def pinned(self) -> "Program":
        """The program for a run that begins now: its tools do not change."""
        return replace(self, tools=dict(self.tools))

    @property
    def agents(self) -> Mapping[str, SubAgentConfig]:
        """The agents to which this one can give tasks, by their names."""
        return {agent.name: agent for agent in self.config.agents}

    def model(self, role: str) -> ModelConnection:
        """The model with this role, or else the one with the role Default."""
        by_role = {model.role: model for model in self.config.models}
        asked = self.role if role == DEFAULT_ROLE else role
        return by_role.get(asked) or by_role[DEFAULT_ROLE]

    def for_task(self, agent: str, *, is_spawned: bool) -> "Program":
        """The program for a task of this agent; empty for the fleet's own.

        Validators check what leaves the fleet: the result of a spawned task goes to its parent alone.
        """
        own = self if not agent else self._of(agent)
        if not (is_spawned and own.config.validators):
            return own
        return replace(own, config=own.config.model_copy(update={"validators": ()}))

    def _of(self, name: str) -> "Program":
        agent = self.agents.get(name)
        if agent is None or self.built_in is None:
            return replace(self, main=_unknown(name))
        config = self.config.model_copy(
            update={
                "prompt": agent.prompt,
                "entrypoint": None,
                "agents": (),
                "indexes": tuple(index for index in self.config.indexes if index.name in agent.indexes),
            }
        )
        tools = {name: tool for name, tool in self.tools.items() if tool.entry_name in agent.tools}
        return replace(self, main=self.built_in, config=config, tools=tools, role=agent.role)


def _unknown(name: str) -> AgentMain:
    async def agent(_ctx: Any, _task: Any) -> Any:
        raise TaskFailedError(EndReason.INVALID, f"the fleet has no agent {name} any more")

    return agent
