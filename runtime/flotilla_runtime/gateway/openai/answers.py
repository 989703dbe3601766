"""Tasks in the form of OpenAI's answers; pure."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from flotilla_runtime.agent.conversations import answer_text
from flotilla_runtime.agent.journal import EndReason, TaskStatus
from flotilla_runtime.agent.tasks import TaskRecord
from flotilla_runtime.contract import Priority
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.service import Outcome

CHAT_PREFIX: Final = "chatcmpl-"
RESPONSE_PREFIX: Final = "resp_"
PREVIOUS: Final = "previous"
BACKGROUND: Final = "background"
OWNER: Final = "flotilla"
STATUSES: Final[Mapping[TaskStatus, str]] = {
    TaskStatus.WAITING: "queued",
    TaskStatus.RUNNING: "in_progress",
    TaskStatus.SUSPENDED: "in_progress",
    TaskStatus.SUCCEEDED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "cancelled",
}


def model_document(model: str) -> dict[str, Any]:
    """The fleet, or an agent of it, as a model."""
    return {"id": model, "object": "model", "created": 0, "owned_by": OWNER}


def model_of(record: TaskRecord, fleet: str) -> str:
    """The name of the model that the task was asked of."""
    return f"{fleet}/{record.agent}" if record.agent else fleet


def cut_answer(record: TaskRecord) -> str | None:
    """The answer of a task that ended for want of tokens, as far as it came."""
    if record.reason != EndReason.MAX_TOKENS or not isinstance(record.partial, dict):
        return None
    said = record.partial.get("answer")
    return said if isinstance(said, str) and said else None


def failure(record: TaskRecord) -> ProblemError:
    """The problem of a task that ended without an answer."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    if record.reason == EndReason.INVALID:
        status = HTTPStatus.BAD_REQUEST
    elif record.status is TaskStatus.CANCELLED:
        status = HTTPStatus.CONFLICT
    told = f": {record.message}" if record.message else ""
    said = f"the task {record.id} ended as {record.reason}{told}"
    return ProblemError(status, record.reason or "failed", said)


def usage(outcome: Outcome) -> dict[str, Any]:
    """The usage of a chat completion."""
    told: dict[str, Any] = {
        "prompt_tokens": outcome.input_tokens,
        "completion_tokens": outcome.output_tokens,
        "total_tokens": outcome.record.used.tokens,
    }
    if outcome.cached_tokens is not None:
        told["prompt_tokens_details"] = {"cached_tokens": outcome.cached_tokens}
    return told


def finish_reason(record: TaskRecord) -> str:
    """How the answer of a chat completion ended. Raises the problem of a task without one."""
    if record.status is TaskStatus.SUCCEEDED:
        return "stop"
    if cut_answer(record) is None:
        raise failure(record)
    return "length"


def final_answer(record: TaskRecord) -> str:
    """The answer of a task that has one, whole or cut."""
    return answer_text(record.result) if record.status is TaskStatus.SUCCEEDED else cut_answer(record) or ""


def chat_completion(outcome: Outcome, fleet: str) -> dict[str, Any]:
    """A chat completion. Raises the problem of a task that ended without an answer."""
    reason = finish_reason(outcome.record)
    message = {"role": "assistant", "content": final_answer(outcome.record), "refusal": None}
    return {
        **_chat_head(outcome.record, fleet, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
        "usage": usage(outcome),
    }


def chat_chunk(record: TaskRecord, fleet: str, **fields: Any) -> dict[str, Any]:
    """A chunk of a chat completion."""
    return {**_chat_head(record, fleet, "chat.completion.chunk"), **fields}


def _chat_head(record: TaskRecord, fleet: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{CHAT_PREFIX}{record.id}",
        "object": kind,
        "created": record.submitted_at // 1000,
        "model": model_of(record, fleet),
    }


def response(outcome: Outcome, fleet: str) -> dict[str, Any]:
    """A response, as the task stands."""
    record = outcome.record
    status, cut = STATUSES[record.status], cut_answer(record)
    if cut is not None:
        status = "incomplete"
    has_answer = record.status is TaskStatus.SUCCEEDED or cut is not None
    is_failed = status == "failed"
    return {
        "id": f"{RESPONSE_PREFIX}{record.id}",
        "object": "response",
        "created_at": record.submitted_at // 1000,
        "completed_at": record.ended_at // 1000 if record.ended_at and has_answer else None,
        "status": status,
        "background": record.front.get(BACKGROUND) == "true",
        "error": {"code": "server_error", "message": failure(record).detail} if is_failed else None,
        "incomplete_details": None if cut is None else {"reason": "max_output_tokens"},
        "instructions": None,
        "metadata": dict(record.metadata),
        "model": model_of(record, fleet),
        "output": [message_item(record, final_answer(record), status)] if has_answer else [],
        "parallel_tool_calls": True,
        "previous_response_id": record.front.get(PREVIOUS),
        "conversation": None,
        "service_tier": "flex" if record.priority is Priority.BATCH else "default",
        "store": record.conversation_id is not None,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": _response_usage(outcome) if record.status.is_final else None,
    }


def message_item(record: TaskRecord, text: str | None, status: str) -> dict[str, Any]:
    """The message of a response; without a text it has just begun."""
    content = [] if text is None else [text_part(text)]
    return {
        "id": f"msg_{record.id}",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": content,
    }


def text_part(text: str) -> dict[str, Any]:
    """The content of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response_usage(outcome: Outcome) -> dict[str, Any]:
    return {
        "input_tokens": outcome.input_tokens,
        # The form requires the details; what is not told is none.
        "input_tokens_details": {"cached_tokens": outcome.cached_tokens or 0, "cache_write_tokens": 0},
        "output_tokens": outcome.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": outcome.record.used.tokens,
    }
