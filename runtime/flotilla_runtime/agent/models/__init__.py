"""Calls of models: requests, replies, and the client that makes one from the other."""

from flotilla_runtime.agent.models.client import ModelClient, PromptTokens
from flotilla_runtime.agent.models.prices import Pricing, cost_nano_usd
from flotilla_runtime.agent.models.requests import assistant_message, continuation, tool_message
from flotilla_runtime.agent.models.structured import StructuredValue, structured_value
from flotilla_runtime.agent.models.tokens import bound_of, messages_bound, prompt_bound, text_bound
from flotilla_runtime.agent.models.values import (
    Endpoint,
    Finished,
    FinishReason,
    ModelEvent,
    ModelOutcome,
    ModelProblem,
    ModelProblemReason,
    ModelReply,
    ModelRequest,
    NamedTool,
    OnEvent,
    TextDelta,
    Timeouts,
    ToolCall,
    ToolCallComplete,
    ToolChoice,
    ToolDeclaration,
    Usage,
    Withdrawn,
)

__all__ = [
    "Endpoint",
    "FinishReason",
    "Finished",
    "ModelClient",
    "ModelEvent",
    "ModelOutcome",
    "ModelProblem",
    "ModelProblemReason",
    "ModelReply",
    "ModelRequest",
    "NamedTool",
    "OnEvent",
    "Pricing",
    "PromptTokens",
    "StructuredValue",
    "TextDelta",
    "Timeouts",
    "ToolCall",
    "ToolCallComplete",
    "ToolChoice",
    "ToolDeclaration",
    "Usage",
    "Withdrawn",
    "assistant_message",
    "bound_of",
    "continuation",
    "cost_nano_usd",
    "messages_bound",
    "prompt_bound",
    "structured_value",
    "text_bound",
    "tool_message",
]
