"""An answer from its chunks: texts, tool calls as they arrive, counts, and what is no answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.models.answers import MOST_CALLS, ChunkError, StreamedAnswer
from flotilla_runtime.agent.models.sse import EventParser
from flotilla_runtime.agent.models.values import (
    FinishReason,
    ModelProblemReason,
    TextDelta,
    ToolCall,
    ToolCallComplete,
    Usage,
)

Why = ModelProblemReason


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def piece(index: int | None, arguments: str | None = None, **head: Any) -> dict[str, Any]:
    """A piece of a tool call; `head` has its id and name."""
    function = {"name": head.pop("name")} if "name" in head else {}
    if arguments is not None:
        function["arguments"] = arguments
    place = {} if index is None else {"index": index}
    return chunk(tool_calls=[{**place, **head, "function": function}])


def read(*chunks: Any, answer: StreamedAnswer | None = None) -> tuple[StreamedAnswer, list[Any]]:
    answer = answer or StreamedAnswer()
    events = [event for one in chunks for event in answer.read(json.dumps(one).encode())]
    return answer, events


def call(call_id: str, name: str, arguments: Any) -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments_text=json.dumps(arguments), arguments=arguments)


def test_text_comes_as_it_is_written() -> None:
    answer, events = read(
        chunk(role="assistant", content=""), chunk(content="Be"), chunk(content="cause."), chunk("stop")
    )
    assert events == [TextDelta(text="Be"), TextDelta(text="cause.")]
    assert (answer.text, answer.finish_reason) == ("Because.", FinishReason.STOP)


def test_a_tool_call_is_given_with_its_last_bracket_and_not_with_the_answers_end() -> None:
    answer, events = read(
        piece(0, id="a", name="weather", type="function"),
        piece(0, '{"city": "Os}'),
        piece(0, 'lo"}'),
        piece(1, '{"city":', id="b", name="weather"),
    )
    assert events == [ToolCallComplete(call=call("a", "weather", {"city": "Os}lo"}))]
    _, more = read(piece(1, ' "Rome"}'), chunk("stop"), answer=answer)
    assert more == [ToolCallComplete(call=call("b", "weather", {"city": "Rome"}))]
    assert [one.id for one in answer.tool_calls] == ["a", "b"]
    assert answer.finish_reason is FinishReason.TOOL_CALLS


arguments = st.dictionaries(st.text(max_size=8), st.text() | st.integers() | st.lists(st.text()), max_size=3)
sendable = arguments.filter(lambda value: json.dumps(value).isascii() and "\\ud" not in json.dumps(value))


@given(st.lists(sendable, min_size=1, max_size=5), st.data())
def test_calls_that_are_interleaved_and_cut_anywhere_are_put_together(
    wanted: list[dict[str, Any]], data: st.DataObject
) -> None:
    answer, events = read(*(piece(index, id=f"id{index}", name=f"t{index}") for index in range(len(wanted))))
    assert events == []
    left = {index: json.dumps(value) for index, value in enumerate(wanted)}
    while left:
        index = data.draw(st.sampled_from(sorted(left)))
        size = data.draw(st.integers(1, len(left[index])))
        part, rest = left[index][:size], left[index][size:]
        _, events = read(piece(index, part), answer=answer)
        is_complete = [event.call for event in events] == [call(f"id{index}", f"t{index}", wanted[index])]
        assert is_complete == (not rest)
        left = {**left, index: rest} if rest else {key: text for key, text in left.items() if key != index}
    assert [one.arguments for one in answer.tool_calls] == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param('{"city": "Os', Why.CUT_SHORT, id="arguments that end too early"),
        pytest.param("{'city': 'Oslo'}", Why.NOT_JSON, id="arguments in another language"),
        pytest.param('{"city": "a", "city": "b"}', Why.NOT_JSON, id="a key twice"),
        pytest.param("Oslo", Why.NOT_JSON, id="a word"),
        pytest.param('["Oslo"]', Why.NOT_AN_OBJECT, id="a list"),
        pytest.param("7", Why.NOT_AN_OBJECT, id="a number"),
    ],
)
def test_arguments_that_are_none_are_told_with_a_reason(text: str, reason: Why) -> None:
    answer, events = read(piece(0, text, id="a", name="weather"), chunk("length"))
    (given_call,) = answer.tool_calls
    assert events[-1] == ToolCallComplete(call=given_call)
    assert (given_call.arguments, given_call.arguments_text) == (None, text)
    assert given_call.problem is not None
    assert given_call.problem.reason is reason


def test_a_call_that_goes_on_behind_its_end_is_given_again_with_its_problem() -> None:
    answer, events = read(piece(0, "{}", id="a", name="now"), piece(0, " {}"), chunk("tool_calls"))
    first, second = (event.call for event in events)
    assert (first.arguments, first.problem) == ({}, None)
    assert second == answer.tool_calls[0]
    assert second.problem is not None


def test_a_call_without_arguments_has_none() -> None:
    answer, events = read(piece(0, id="a", name="now"), chunk("tool_calls"))
    assert answer.tool_calls[0].arguments == {}
    assert len(events) == 1


def test_calls_without_an_index_begin_with_their_id() -> None:
    answer, _ = read(
        piece(None, '{"n": ', id="a", name="one"),
        piece(None, "1}"),
        piece(None, '{"n": 2}', id="b", name="two"),
        chunk("tool_calls"),
    )
    assert answer.tool_calls == (call("a", "one", {"n": 1}), call("b", "two", {"n": 2}))


def test_every_call_has_an_id_of_its_own() -> None:
    heads: list[dict[str, Any]] = [
        {"id": "a"},
        {"id": "a"},
        {},
        {"id": "call-3"},
        {"id": "x" * 300},
        {"id": ""},
    ]
    answer, _ = read(*(piece(index, "{}", name="t", **head) for index, head in enumerate(heads)))
    assert [one.id for one in answer.tool_calls] == ["a", "call-1", "call-2", "call-3", "call-4", "call-5"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        pytest.param("stop", FinishReason.STOP, id="its own end"),
        pytest.param("length", FinishReason.LENGTH, id="the limit"),
        pytest.param("tool_calls", FinishReason.TOOL_CALLS, id="tool calls"),
        pytest.param("content_filter", FinishReason.CONTENT_FILTER, id="a filter"),
        pytest.param("repetition", FinishReason.OTHER, id="a word that only this server has"),
    ],
)
def test_why_an_answer_ended(said: str, reason: FinishReason) -> None:
    answer, _ = read(chunk(content="x"), chunk(said))
    assert answer.finish_reason is reason


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        pytest.param([], Why.NOT_A_COMPLETION, id="a list"),
        pytest.param({"choices": {}}, Why.NOT_A_COMPLETION, id="choices that are no list"),
        pytest.param({"choices": [1]}, Why.NOT_A_COMPLETION, id="a choice that is a number"),
        pytest.param({"choices": [{"delta": "x"}]}, Why.NOT_A_COMPLETION, id="a delta that is a text"),
        pytest.param(chunk(content=["x"]), Why.NOT_A_COMPLETION, id="a text that is a list"),
        pytest.param(
            chunk(tool_calls=[{"function": "f"}]), Why.NOT_A_COMPLETION, id="a function that is a text"
        ),
        pytest.param(piece(0, id=5), Why.NOT_A_COMPLETION, id="an id that is a number"),
        pytest.param(
            {"choices": [{"finish_reason": 1}]}, Why.NOT_A_COMPLETION, id="a reason that is a number"
        ),
        pytest.param(chunk("abort"), Why.BROKEN_STREAM, id="an engine that stops"),
        pytest.param(chunk("error"), Why.BROKEN_STREAM, id="an engine that failed"),
        pytest.param({"error": {"message": "dead"}}, Why.BROKEN_STREAM, id="an error as a chunk"),
    ],
)
def test_a_chunk_that_is_none_ends_the_try(document: Any, reason: Why) -> None:
    with pytest.raises(ChunkError) as error:
        read(document)
    assert error.value.problem.reason is reason


def test_bytes_that_are_no_json_end_the_try() -> None:
    for data in (b"", b"hello", b'{"choices": [', b"\xff", b"[" * 5000):
        with pytest.raises(ChunkError) as error:
            list(StreamedAnswer().read(data))
        assert error.value.problem.reason is Why.NOT_A_COMPLETION


def test_calls_without_number_end_the_try() -> None:
    answer, _ = read(*(piece(index, name="t") for index in range(MOST_CALLS)))
    with pytest.raises(ChunkError):
        read(piece(MOST_CALLS, name="t"), answer=answer)


def test_only_the_first_choice_counts_and_unknown_fields_are_passed_over() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "stop"}], "new": 1}
    answer, events = read(other, {"choices": None}, {}, chunk(audio={"id": 1}))
    assert (answer.text, answer.finish_reason, events) == ("", None, [])


USAGE = {"prompt_tokens": 12, "completion_tokens": 3}


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        pytest.param(USAGE, (12, 0, 3), id="plain"),
        pytest.param({**USAGE, "prompt_tokens_details": {"cached_tokens": 8}}, (12, 8, 3), id="with a cache"),
        pytest.param({**USAGE, "prompt_tokens_details": None}, (12, 0, 3), id="details that are null"),
        pytest.param(
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 99}}, (12, 12, 3), id="more cached than read"
        ),
        pytest.param({**USAGE, "prompt_tokens": -1}, None, id="a negative number"),
        pytest.param({**USAGE, "completion_tokens": True}, None, id="a truth value"),
        pytest.param({**USAGE, "completion_tokens": 10**12}, None, id="a number that cannot be"),
        pytest.param({"prompt_tokens": 12}, None, id="only one of the two"),
        pytest.param("12", None, id="a text"),
    ],
)
def test_the_counts_of_the_server_count_if_they_can_be_true(
    usage: Any, counted: tuple[int, int, int] | None
) -> None:
    answer, _ = read(chunk(content="abc"), {"choices": [], "usage": usage})
    used = answer.usage(prompt_tokens=100, max_tokens=50)
    figures = (used.input_tokens, used.cached_input_tokens, used.output_tokens)
    assert figures == (counted or (100, 0, 3))
    assert used.is_measured == (counted is not None)


def test_without_counts_every_byte_that_was_written_may_be_a_token_up_to_the_limit() -> None:
    answer, _ = read(chunk(content="é"), chunk(reasoning="hm"), piece(0, "{}", name="t"))
    assert answer.usage(prompt_tokens=7, max_tokens=1000).output_tokens == 2 + 2 + 3 + 32
    assert answer.usage(prompt_tokens=7, max_tokens=20) == Usage(
        input_tokens=7, output_tokens=20, is_measured=False
    )


def test_the_last_counts_of_a_stream_that_counts_along_hold() -> None:
    along = [{**chunk(content="x"), "usage": {"prompt_tokens": 9, "completion_tokens": n}} for n in (1, 2)]
    answer, _ = read(*along)
    assert answer.usage(prompt_tokens=100, max_tokens=50) == Usage(input_tokens=9, output_tokens=2)


def test_an_answer_is_the_same_wherever_its_bytes_are_cut() -> None:
    """Text in several scripts, and two interleaved calls whose arguments have brackets and escapes."""
    chunks = [
        chunk(role="assistant", content=""),
        chunk(content="Гавань 港口 🚢"),
        piece(0, id="a", name="weather"),
        piece(1, id="b", name="weather"),
        piece(0, '{"city": "Os'),
        piece(1, '{"city": "\\"}\\\\'),
        piece(0, 'lo 🌦"}'),
        piece(1, '"}'),
        chunk("tool_calls"),
        {"choices": [], "usage": USAGE},
    ]
    events = [f"data: {json.dumps(one, ensure_ascii=False)}\r\n\r\n".encode() for one in chunks]
    stream = b"".join([*events, b": alive\n\ndata: [DONE]\n\n"])

    def reading(*parts: bytes) -> tuple[str, Any, Any, Usage, list[Any]]:
        parser, answer = EventParser(), StreamedAnswer()
        told: list[Any] = []
        for data in (data for part in parts for data in parser.feed(part)):
            if data != b"[DONE]":
                told.extend(answer.read(data))
        return answer.text, answer.tool_calls, answer.finish_reason, answer.usage(0, 0), told

    whole = reading(stream)
    assert whole[0] == "Гавань 港口 🚢"
    assert [one.arguments for one in whole[1]] == [{"city": "Oslo 🌦"}, {"city": '"}\\'}]
    assert whole[3] == Usage(input_tokens=12, output_tokens=3)
    for cut in range(1, len(stream)):
        assert reading(stream[:cut], stream[cut:]) == whole
    assert reading(*(stream[place : place + 1] for place in range(len(stream)))) == whole
