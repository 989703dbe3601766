"""The double's answers, with the same JSON keys as vLLM's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine_double.replies import Delta, FinishedBy

JSON = dict[str, Any]
FINGERPRINT = "engine-double"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The fields that all chunks of one answer share."""

    id: str
    model: str
    created: int
    chat: bool
    prompt_tokens: int
    has_details: bool = False
    """Whether the counts say how many tokens of the prompt were in the cache."""

    @property
    def object_name(self) -> str:
        """OpenAI's name for the type of the whole answer."""
        return "chat.completion" if self.chat else "text_completion"


def usage(prompt_tokens: int, completion_tokens: int) -> JSON:
    """The token counts, as in a stream."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def full_usage(prompt_tokens: int, completion_tokens: int, details: JSON | None = None) -> JSON:
    """The token counts, as in a whole answer."""
    all_details = {"prompt_tokens_details": details, "completion_tokens_details": None}
    return usage(prompt_tokens, completion_tokens) | all_details


def whole(answer: Answer, deltas: Sequence[Delta], finished_by: FinishedBy, cached_tokens: int = 0) -> JSON:
    """An answer that is not streamed."""
    ending = {"logprobs": None, "finish_reason": finished_by, "stop_reason": None, "token_ids": None}
    if answer.chat:
        said: JSON = {"message": message(answer, deltas)}
        extra: JSON = {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    else:
        said = {"text": _content(deltas), "prompt_logprobs": None, "prompt_token_ids": None}
        extra = {}
    return {
        "id": answer.id,
        "object": answer.object_name,
        "created": answer.created,
        "model": answer.model,
        "choices": [{"index": 0, **said, **ending, "routed_experts": None}],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": full_usage(answer.prompt_tokens, len(deltas), _details(answer, cached_tokens)),
        **extra,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _details(answer: Answer, cached_tokens: int) -> JSON | None:
    """Where the prompt's tokens came from; of completions vLLM says less than of chats."""
    if not answer.has_details:
        return None
    created = 0 if answer.chat else None
    return {"cached_tokens": cached_tokens, "created_cache_tokens": created, "multimodal_tokens": None}


def message(answer: Answer, deltas: Sequence[Delta]) -> JSON:
    """The assistant's message of a whole answer."""
    said: JSON = {
        "role": "assistant",
        "content": _content(deltas) or None,
        **dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning")),
    }
    calls = sorted({delta.call for delta in deltas if delta.call is not None})
    if calls:
        said["tool_calls"] = [_whole_call(answer, deltas, call) for call in calls]
    elif said["content"] is None:
        said["content"] = ""
    return said


def _content(deltas: Sequence[Delta]) -> str:
    return "".join(delta.content or "" for delta in deltas)


def _call_id(answer: Answer, call: int) -> str:
    return f"chatcmpl-tool-{answer.id.rpartition('-')[2]}{call}"


def _whole_call(answer: Answer, deltas: Sequence[Delta], call: int) -> JSON:
    mine = [delta for delta in deltas if delta.call == call]
    return {
        "id": _call_id(answer, call),
        "type": "function",
        "function": {
            "name": "".join(delta.name or "" for delta in mine),
            "arguments": "".join(delta.arguments or "" for delta in mine),
        },
    }


def opening(answer: Answer) -> JSON:
    """The first chunk of a chat stream, which names the role."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}}
    chunk = _chunk(answer, [choice | {"logprobs": None, "finish_reason": None}])
    return chunk | {"prompt_token_ids": None, "prompt_text": None}


def token(answer: Answer, delta: Delta, finished_by: FinishedBy | None, *, last: bool) -> JSON:
    """The chunk of one token; the last has the finish reason, and the engine's name when no usage follows."""
    choice: JSON = {"index": 0}
    if answer.chat:
        choice |= {"delta": _chat_delta(answer, delta), "logprobs": None, "finish_reason": finished_by}
        if finished_by is not None:
            choice["stop_reason"] = None
    else:
        choice |= {"text": delta.content or "", "logprobs": None, "finish_reason": finished_by}
        choice |= {"stop_reason": None, "prompt_token_ids": None}
    chunk = _chunk(answer, [choice | {"token_ids": None}])
    return chunk | {"system_fingerprint": FINGERPRINT} if last else chunk


def closing(answer: Answer, completion_tokens: int, cached_tokens: int = 0) -> JSON:
    """The chunk of token counts."""
    counts = usage(answer.prompt_tokens, completion_tokens)
    details = _details(answer, cached_tokens)
    if details is not None:
        counts["prompt_tokens_details"] = {key: value for key, value in details.items() if value is not None}
    return _chunk(answer, []) | {"usage": counts, "system_fingerprint": FINGERPRINT}


def counted(chunk: JSON, answer: Answer, completion_tokens: int) -> JSON:
    """A chunk with the token counts so far."""
    counts = usage(answer.prompt_tokens, completion_tokens)
    return chunk | {"usage": counts | {"completion_tokens_details": None}}


def tokenized(tokens: int, max_model_len: int) -> JSON:
    """The answer to POST /tokenize; the tokens have numbers, and nothing else is known of them."""
    return {
        "count": tokens,
        "max_model_len": max_model_len,
        "tokens": list(range(tokens)),
        "token_strs": None,
    }


def _chunk(answer: Answer, choices: list[JSON]) -> JSON:
    name = "chat.completion.chunk" if answer.chat else "text_completion"
    head = {"id": answer.id, "object": name, "created": answer.created, "model": answer.model}
    return head | {"choices": choices}


def _chat_delta(answer: Answer, delta: Delta) -> JSON:
    if delta.call is None:
        return {"content": delta.content}
    if delta.name is not None:
        call: JSON = {"id": _call_id(answer, delta.call), "type": "function", "index": delta.call}
        call["function"] = {"name": delta.name}
    else:
        call = {"index": delta.call, "function": {"arguments": delta.arguments}}
    return {"content": None, "tool_calls": [call]}


def event(body: JSON) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def embeddings(answer_id: str, model: str, created: int, vectors: list[list[float]], tokens: int) -> JSON:
    """The answer to an embedding request."""
    return {
        "id": answer_id,
        "object": "list",
        "created": created,
        "model": model,
        "data": [
            {"index": number, "object": "embedding", "embedding": vector}
            for number, vector in enumerate(vectors)
        ],
        "usage": full_usage(tokens, 0),
    }


def model_list(model: str, created: int, max_model_len: int) -> JSON:
    """The answer to GET /v1/models."""
    permission = {
        "id": f"modelperm-{model}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": model,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }
    return {"object": "list", "data": [card]}


def error(status: int, kind: str, message_text: str, parameter: str | None = None) -> JSON:
    """An error in OpenAI's form."""
    return {"error": {"message": message_text, "type": kind, "param": parameter, "code": status}}
