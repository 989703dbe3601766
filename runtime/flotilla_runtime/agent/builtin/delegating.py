"""Sub-agents as tools of the built-in agent: each call of one is a task of its own, on the same limits.

While all calls of a task only wait for such tasks, it gives its place in the worker up. So a single worker
with a single place comes to the end of any tree. A task that failed is an observation, as is one that the
limits of depth and width leave no room for.
"""

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final

from flotilla_runtime.agent.budgets import LimitName
from flotilla_runtime.agent.builtin.citations import MARKER
from flotilla_runtime.agent.builtin.conversation import observed
from flotilla_runtime.agent.engine.context import Context
from flotilla_runtime.agent.failures import ChildFailedError, LimitReachedError
from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.contract import SubAgentConfig

TASK: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "task": {
            "type": "string",
            "minLength": 1,
            "description": "What the agent is to do. It knows nothing else of your work.",
        }
    },
    "required": ["task"],
    "additionalProperties": False,
}
NO_TASK: Final = "not called: task must be a text"
OF_THE_TREE: Final = frozenset({LimitName.DEPTH, LimitName.FAN_OUT})


def agent_tools(program: Program, taken: Iterable[str]) -> dict[str, SubAgentConfig]:
    """The agents by the names that the model knows; no name is that of another tool."""
    others = {*program.tools, *taken}
    names: dict[str, SubAgentConfig] = {}
    for agent in program.agents.values():
        name = agent.name
        while name in others:
            name += "_agent"
        names[name] = agent
    return names


def declaration_of(name: str, agent: SubAgentConfig) -> ToolDeclaration:
    """The declaration of an agent as a tool, for the model."""
    return ToolDeclaration(name=name, description=agent.description, parameters=TASK)


def asked_agent(ctx: Context, agent: str, arguments: Mapping[str, Any]) -> Awaitable[Any] | str:
    """The task of an agent, or why there is none."""
    task = arguments.get("task")
    if not (isinstance(task, str) and task.strip()):
        return NO_TASK
    try:
        return _done(ctx.spawn(task, agent=agent))
    except ValueError as problem:  # a task that is too long
        return f"not called: {problem}"


def found_by_agent(result: Any) -> str:
    """The result of an agent's task as the model reads it.

    The numbers of passages are those of that task, and others here, so the passages are named instead.
    """
    if not (isinstance(result, Mapping) and isinstance(result.get("answer"), str)):
        return observed(result)
    names = {str(one["number"]): _name_of(one) for one in result.get("citations") or ()}
    text = MARKER.sub(lambda marker: _named(marker.group(1), names), result["answer"])
    missing = result.get("missing") or {}
    unsearched = f"\n\nNot searched: {', '.join(missing)}." if missing else ""
    return f"{text}{unsearched}"


async def _done(spawned: Awaitable[Any]) -> Any:
    try:
        return await spawned
    except LimitReachedError as reached:
        if reached.limit not in OF_THE_TREE:
            raise
        return f"not called: {reached}"
    except ChildFailedError as failed:
        if failed.end.partial is None:
            raise
        return f"{failed.outcome}: {failed.problem}\nUntil then it had: {observed(failed.end.partial)}"


def _named(numbers: str, names: Mapping[str, str]) -> str:
    each = (number.strip() for number in numbers.replace(";", ",").split(","))
    return f"({'; '.join(names.get(number, number) for number in each)})"


def _name_of(citation: Mapping[str, Any]) -> str:
    named = [citation.get("title") or citation.get("document"), citation.get("heading")]
    return ", ".join(str(part) for part in named if part)
