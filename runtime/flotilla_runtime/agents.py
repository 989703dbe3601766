"""What the code of an agent imports. docs/agents.md explains it."""

from flotilla_runtime.agent.answers import Answer, Found
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.failures import (
    AgentError,
    CallFailedError,
    ChildFailedError,
    IncompleteError,
    LimitReachedError,
    ModelFailedError,
    NoWinnerError,
    PromptTooLongError,
    SearchFailedError,
    TaskFailedError,
    ToolFailedError,
)
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.models import NamedTool, ToolCall, ToolChoice, ToolDeclaration
from flotilla_runtime.agent.patterns.race import Raced
from flotilla_runtime.agent.patterns.values import Gathered, Missing, MissingReason

__all__ = [
    "AgentError",
    "Answer",
    "CallFailedError",
    "ChildFailedError",
    "Context",
    "EndReason",
    "Found",
    "Gathered",
    "IncompleteError",
    "LimitReachedError",
    "Missing",
    "MissingReason",
    "ModelFailedError",
    "NamedTool",
    "NoWinnerError",
    "PromptTooLongError",
    "Raced",
    "SearchFailedError",
    "Task",
    "TaskFailedError",
    "ToolCall",
    "ToolChoice",
    "ToolDeclaration",
    "ToolFailedError",
]
