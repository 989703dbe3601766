"""Puts a streamed answer together, chunk by chunk, and says what is new. Pure.

Tool calls arrive in pieces, and those of several calls may be interleaved. A call is complete with the last
bracket of its arguments, which may be long before the answer ends.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jiter

from flotilla_runtime.agent.models.json_text import ObjectEnd, read_json
from flotilla_runtime.agent.models.values import (
    FinishReason,
    ModelProblem,
    ModelProblemReason,
    TextDelta,
    ToolCall,
    ToolCallComplete,
    Usage,
    shown,
)

MOST_CALLS: Final = 256
OWN_ID: Final = "call-"  # of a call to which its server gave no id
LONGEST_ID: Final = 256
MOST_TOKENS: Final = 10**8  # a count beyond it is none
CALL_TOKENS: Final = 32  # what frames a tool call and is not streamed, such as its tags
FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
FAILURES: Final = frozenset({"abort", "error"})  # vLLM's: the engine gave the request up


class ChunkError(Exception):
    """A chunk from which no answer can be made: `problem` says why, `said` is an error that came as one."""

    def __init__(self, problem: ModelProblem, said: str | None = None) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.said = said


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    end: ObjectEnd = field(default_factory=ObjectEnd)
    was_given: bool = False

    def as_given(self, place: int) -> ToolCall:
        """The call as it is now."""
        text = "".join(self.pieces)
        arguments, problem = parsed_arguments(text)
        return ToolCall(
            id=self.id or f"{OWN_ID}{place}",
            name=self.name,
            arguments_text=text,
            arguments=arguments,
            problem=problem,
        )


class StreamedAnswer:
    """One try's answer so far."""

    def __init__(self) -> None:
        self.finish_reason: FinishReason | None = None
        self.refusal: list[str] = []
        self._text: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._usage: Usage | None = None
        self._bytes = 0

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """All calls, in the order of their first pieces."""
        return tuple(call.as_given(place) for place, call in enumerate(self._calls.values()))

    @property
    def written_bytes(self) -> int:
        """How much the model has written, what it wrote for itself included."""
        return self._bytes

    def usage(self, prompt_tokens: int, max_tokens: int) -> Usage:
        """The usage that the server counted last, else bounds."""
        if self._usage is not None:
            return self._usage
        written = self._bytes + CALL_TOKENS * len(self._calls)
        return Usage(input_tokens=prompt_tokens, output_tokens=min(written, max_tokens), is_measured=False)

    def read(self, data: bytes) -> Iterator[TextDelta | ToolCallComplete]:
        """Add a chunk; gives what it brought."""
        chunk = _parsed(data)
        self._usage = _counted(chunk.get("usage")) or self._usage
        for choice in _objects(chunk.get("choices"), "choices"):
            if choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta")
            if delta is not None:
                yield from self._read_delta(_object(delta, "delta"))
            if choice.get("finish_reason") is not None:
                yield from self._finish(choice["finish_reason"])

    def _read_delta(self, delta: Mapping[str, Any]) -> Iterator[TextDelta | ToolCallComplete]:
        for hidden in ("reasoning", "reasoning_content"):
            self._count(_text(delta.get(hidden), hidden))
        refusal = _text(delta.get("refusal"), "refusal")
        if refusal:
            self._count(refusal)
            self.refusal.append(refusal)
        text = _text(delta.get("content"), "content")
        if text:
            self._count(text)
            self._text.append(text)
            yield TextDelta(text=text)
        for piece in _objects(delta.get("tool_calls"), "tool_calls"):
            yield from self._read_call(piece)

    def _read_call(self, piece: Mapping[str, Any]) -> Iterator[ToolCallComplete]:
        call = self._calls.setdefault(self._index(piece), _Call())
        if len(self._calls) > MOST_CALLS:
            raise _no_completion(f"the answer has more than {MOST_CALLS} tool calls")
        function = _object(piece.get("function") or {}, "function")
        name, arguments = _text(function.get("name"), "name"), _text(function.get("arguments"), "arguments")
        self._count(name)
        self._count(arguments)
        call.name = call.name or name
        if not call.id:
            call.id = self._free_id(_text(piece.get("id"), "id"))
        if not arguments:
            return
        call.pieces.append(arguments)
        call.end.feed(arguments)
        if call.end.is_reached and not call.was_given:
            call.was_given = True
            yield ToolCallComplete(call=self._given(call))

    def _index(self, piece: Mapping[str, Any]) -> int:
        """The number of a piece's call. Some servers leave it out, and begin a call with its id."""
        index = piece.get("index")
        if isinstance(index, int):
            return index
        last = max(self._calls, default=-1)
        return last + 1 if piece.get("id") or last < 0 else last

    def _free_id(self, wanted: str) -> str:
        """The id that the server gave, unless another call has it or may get it."""
        is_taken = any(call.id == wanted for call in self._calls.values())
        return "" if is_taken or wanted.startswith(OWN_ID) or len(wanted) > LONGEST_ID else wanted

    def _given(self, call: _Call) -> ToolCall:
        return call.as_given(list(self._calls.values()).index(call))

    def _finish(self, reason: Any) -> Iterator[ToolCallComplete]:
        if not isinstance(reason, str):
            raise _no_completion("finish_reason is no text")
        if reason in FAILURES:
            message = f"the engine gave the request up: {reason}"
            raise ChunkError(ModelProblem(reason=ModelProblemReason.BROKEN_STREAM, message=message))
        known = FINISH_REASONS.get(reason, FinishReason.OTHER)
        has_called = bool(self._calls) and known is FinishReason.STOP
        self.finish_reason = FinishReason.TOOL_CALLS if has_called else known
        for call in self._calls.values():
            if not call.was_given or call.end.is_passed:
                call.was_given = True
                yield ToolCallComplete(call=self._given(call))

    def _count(self, text: str) -> None:
        self._bytes += len(text.encode(errors="replace"))


def parsed_arguments(text: str) -> tuple[Mapping[str, Any] | None, ModelProblem | None]:
    """The arguments of a tool call, or what is wrong; no text at all means no arguments."""
    if not text.strip():
        return {}, None
    try:
        value = read_json(text)
    except ValueError as error:
        end = ObjectEnd()
        end.feed(text)
        is_cut = not end.is_reached and text.lstrip().startswith("{")
        reason = ModelProblemReason.CUT_SHORT if is_cut else ModelProblemReason.NOT_JSON
        return None, ModelProblem(reason=reason, message=f"the arguments are no JSON: {shown(str(error))}")
    if not isinstance(value, dict):
        message = f"the arguments must be a JSON object, not {shown(json.dumps(value))}"
        return None, ModelProblem(reason=ModelProblemReason.NOT_AN_OBJECT, message=message)
    return value, None


def _parsed(data: bytes) -> Mapping[str, Any]:
    try:
        chunk = jiter.from_json(data, cache_mode="keys")
    except ValueError as error:
        raise _no_completion(f"a chunk is no JSON: {shown(str(error))}") from error
    chunk = _object(chunk, "a chunk")
    if chunk.get("error"):
        problem = ModelProblem(reason=ModelProblemReason.BROKEN_STREAM, message="the stream has an error")
        raise ChunkError(problem, said=data.decode(errors="replace"))
    return chunk


def _counted(usage: Any) -> Usage | None:
    """The counts of a chunk, if they are complete and can be true."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    read, written = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if read is None or written is None:
        return None
    return Usage(input_tokens=read, cached_input_tokens=min(cached or 0, read), output_tokens=written)


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if is_count else None


def _objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _no_completion(f"{name} is no list")
    return [_object(inner, f"one of {name}") for inner in value]


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _no_completion(f"{name} is no object")
    return value


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _no_completion(f"{name} is no text")
    return value


def _no_completion(problem: str) -> ChunkError:
    message = f"the answer is not a chat completion: {problem}"
    return ChunkError(ModelProblem(reason=ModelProblemReason.NOT_A_COMPLETION, message=message))
