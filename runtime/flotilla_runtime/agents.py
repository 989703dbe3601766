"""The names that the code of an agent imports. docs/agent-code.md explains them."""

from flotilla_runtime.agent.actors import ActorEnded, Turn
from flotilla_runtime.agent.answers import Answer, Found
from flotilla_runtime.agent.budgets import MessageRefusal
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.mail import ActorRef
from flotilla_runtime.agent.failures import (
    AgentError,
    CallFailedError,
    ChildFailedError,
    IncompleteError,
    LimitReachedError,
    MessageRefusedError,
    ModelFailedError,
    NoSignalError,
    NoWinnerError,
    PromptTooLongError,
    RejectedError,
    SearchFailedError,
    StateFullError,
    TaskFailedError,
    ToolFailedError,
)
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.models import NamedTool, ToolCall, ToolChoice, ToolDeclaration
from flotilla_runtime.agent.patterns.documents import DocumentChunk, Documented
from flotilla_runtime.agent.patterns.ensemble import ChosenBy, Ensemble
from flotilla_runtime.agent.patterns.fusion import Hit
from flotilla_runtime.agent.patterns.map_reduce import Reduced
from flotilla_runtime.agent.patterns.pipeline import Piped, Used
from flotilla_runtime.agent.patterns.plans import Rate
from flotilla_runtime.agent.patterns.race import Raced
from flotilla_runtime.agent.patterns.search import Searched, Source
from flotilla_runtime.agent.patterns.values import Gathered, Missing, MissingReason
from flotilla_runtime.agent.tasks import Decision
from flotilla_runtime.agent.verdicts import Refused

__all__ = [
    "ActorEnded",
    "ActorRef",
    "AgentError",
    "Answer",
    "CallFailedError",
    "ChildFailedError",
    "ChosenBy",
    "Context",
    "Decision",
    "DocumentChunk",
    "Documented",
    "EndReason",
    "Ensemble",
    "Found",
    "Gathered",
    "Hit",
    "IncompleteError",
    "LimitReachedError",
    "MessageRefusal",
    "MessageRefusedError",
    "Missing",
    "MissingReason",
    "ModelFailedError",
    "NamedTool",
    "NoSignalError",
    "NoWinnerError",
    "Piped",
    "PromptTooLongError",
    "Raced",
    "Rate",
    "Reduced",
    "Refused",
    "RejectedError",
    "SearchFailedError",
    "Searched",
    "Source",
    "StateFullError",
    "Task",
    "TaskFailedError",
    "ToolCall",
    "ToolChoice",
    "ToolDeclaration",
    "ToolFailedError",
    "Turn",
    "Used",
]
