"""What the code of an agent imports. docs/agents.md explains it."""

from flotilla_runtime.agent.engine.context import Answer, Context, Found, Task
from flotilla_runtime.agent.failures import (
    AgentError,
    CallFailedError,
    ChildFailedError,
    LimitReachedError,
    ModelFailedError,
    NoSignalError,
    PromptTooLongError,
    SearchFailedError,
    StateFullError,
    TaskFailedError,
    ToolFailedError,
)
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.models import NamedTool, ToolCall, ToolChoice, ToolDeclaration
from flotilla_runtime.agent.tasks import Decision

__all__ = [
    "AgentError",
    "Answer",
    "CallFailedError",
    "ChildFailedError",
    "Context",
    "Decision",
    "EndReason",
    "Found",
    "LimitReachedError",
    "ModelFailedError",
    "NamedTool",
    "NoSignalError",
    "PromptTooLongError",
    "SearchFailedError",
    "StateFullError",
    "Task",
    "TaskFailedError",
    "ToolCall",
    "ToolChoice",
    "ToolDeclaration",
    "ToolFailedError",
]
