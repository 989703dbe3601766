"""Attributes of spans of tasks and calls, under the names that collectors know. Pure.

They are those of OpenTelemetry's GenAI conventions, and beside them the few that Langfuse reads: who asked,
the conversation, what kind of observation a span is, and what a call cost. Ours begin with `flotilla`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.attributes import session_attributes as session
from opentelemetry.semconv._incubating.attributes import user_attributes as user

from flotilla_runtime.agent.budgets import NANO_PER_UNIT
from flotilla_runtime.agent.journal import CallKind, Done, Intended, TaskStatus
from flotilla_runtime.agent.models import ModelRequest
from flotilla_runtime.agent.tasks import TaskRecord
from flotilla_runtime.agent.traces.messages import answer_document, message_documents
from flotilla_runtime.contract import ModelConnection

Value = str | bool | int | float | Sequence[str]

# Langfuse's own names.
OBSERVATION: Final = "langfuse.observation.type"
COST_DETAILS: Final = "langfuse.observation.cost_details"
INPUT: Final = "langfuse.observation.input"
OUTPUT: Final = "langfuse.observation.output"
TRACE_NAME: Final = "langfuse.trace.name"
COST: Final = "gen_ai.usage.cost"
# Ours.
TASK: Final = "flotilla.task.id"
FLEET: Final = "flotilla.fleet"
CALL: Final = "flotilla.call.id"
MODEL: Final = "flotilla.model"
REPLICA: Final = "flotilla.replica"
TRIES: Final = "flotilla.tries"
GENERATION: Final = "flotilla.index.generation"
CHILD: Final = "flotilla.child.id"
STATUS: Final = "flotilla.task.status"
REASON: Final = "flotilla.task.reason"
ATTEMPTS: Final = "flotilla.task.attempts"

OF_NOBODY: Final[Mapping[str, Value]] = {OBSERVATION: "span"}
TO_OTHERS: Final = frozenset({CallKind.MODEL, CallKind.TOOL, CallKind.RETRIEVE})
OPERATIONS: Final[Mapping[CallKind, gen_ai.GenAiOperationNameValues]] = {
    CallKind.MODEL: gen_ai.GenAiOperationNameValues.CHAT,
    CallKind.TOOL: gen_ai.GenAiOperationNameValues.EXECUTE_TOOL,
    CallKind.RETRIEVE: gen_ai.GenAiOperationNameValues.RETRIEVAL,
}
OBSERVATIONS: Final[Mapping[CallKind, str]] = {
    CallKind.MODEL: "generation",
    CallKind.TOOL: "tool",
    CallKind.RETRIEVE: "retriever",
}
PROVIDERS: Final[Mapping[bool, str]] = {True: "vllm", False: gen_ai.GenAiProviderNameValues.OPENAI.value}


def name_of(intent: Intended, model: ModelConnection | None) -> str:
    """The name of a call's span: the operation and what it is made on."""
    operation = OPERATIONS.get(intent.kind)
    target = model.model if model is not None and intent.kind is CallKind.MODEL else intent.target
    name = intent.kind.lower() if operation is None else operation.value
    return f"{name} {target}".strip()


def of_task(task: str, fleet: str, tenant: str, conversation: str | None) -> dict[str, Value]:
    """The attributes of every span of a task, because a filter may see one span alone."""
    told: dict[str, Value] = {TASK: task, FLEET: fleet, TRACE_NAME: fleet}
    if tenant:
        told[user.USER_ID] = tenant
    if conversation is not None:
        told[session.SESSION_ID] = conversation
        told[gen_ai.GEN_AI_CONVERSATION_ID] = conversation
    return told


def of_agent(record: TaskRecord, fleet: str, status: TaskStatus, reason: str) -> dict[str, Value]:
    """The attributes of the span of the task itself."""
    return {
        OBSERVATION: "agent",
        gen_ai.GEN_AI_OPERATION_NAME: gen_ai.GenAiOperationNameValues.INVOKE_AGENT.value,
        gen_ai.GEN_AI_AGENT_NAME: record.agent or fleet,
        STATUS: status.value,
        REASON: reason,
        ATTEMPTS: record.attempts,
    }


def of_call(intent: Intended, done: Done, model: ModelConnection | None) -> dict[str, Value]:
    """The attributes of the span of a call, without its request and its answer."""
    told: dict[str, Value] = {
        OBSERVATION: OBSERVATIONS.get(intent.kind, "span"),
        CALL: intent.call,
        TRIES: done.tries,
    }
    if intent.kind in OPERATIONS:
        told[gen_ai.GEN_AI_OPERATION_NAME] = OPERATIONS[intent.kind].value
    match intent.kind:
        case CallKind.MODEL:
            told |= _of_model(intent, done, model)
        case CallKind.TOOL:
            told |= {gen_ai.GEN_AI_TOOL_NAME: intent.target, gen_ai.GEN_AI_TOOL_CALL_ID: intent.call}
            told[gen_ai.GEN_AI_TOOL_TYPE] = "function"
        case CallKind.RETRIEVE:
            told[gen_ai.GEN_AI_DATA_SOURCE_ID] = intent.target
            if done.generation is not None:
                told[GENERATION] = done.generation
        case CallKind.SPAWN | CallKind.TELL if intent.child is not None:
            told[CHILD] = intent.child
    return told


def _of_model(intent: Intended, done: Done, model: ModelConnection | None) -> dict[str, Value]:
    """Of a model that the fleet no longer has, only its name in the fleet is known."""
    told: dict[str, Value] = {
        MODEL: intent.target,
        gen_ai.GEN_AI_REQUEST_MODEL: model.model if model is not None else intent.target,
        gen_ai.GEN_AI_PROVIDER_NAME: PROVIDERS[model is not None and model.tokenizes],
        gen_ai.GEN_AI_USAGE_INPUT_TOKENS: done.input_tokens,
        gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: done.output_tokens,
        gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: done.cached_input_tokens,
    }
    if done.nano_usd is not None:
        told[COST] = done.nano_usd / NANO_PER_UNIT
        told[COST_DETAILS] = json.dumps({"total": done.nano_usd / NANO_PER_UNIT})
    if done.replica is not None:
        told[REPLICA] = done.replica
    return told


def content_of_task(asked: str, result: Any) -> dict[str, Value]:
    """The input of a task, and its result."""
    return {INPUT: asked, OUTPUT: _text(result)} if result is not None else {INPUT: asked}


def content_of_call(intent: Intended, done: Done, request: Any) -> dict[str, Value]:
    """The request of a call, and its answer."""
    match intent.kind:
        case CallKind.MODEL:
            asked = message_documents(request.messages) if isinstance(request, ModelRequest) else None
            told: dict[str, Value] = {gen_ai.GEN_AI_OUTPUT_MESSAGES: _text([answer_document(done.value)])}
            return told if asked is None else {gen_ai.GEN_AI_INPUT_MESSAGES: _text(asked), **told}
        case CallKind.TOOL:
            names = (gen_ai.GEN_AI_TOOL_CALL_ARGUMENTS, gen_ai.GEN_AI_TOOL_CALL_RESULT)
        case _:
            names = (INPUT, OUTPUT)
    values = zip(names, (intent.arguments, done.value), strict=True)
    return {name: _text(value) for name, value in values if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
