"""Answers of the double to agents: plans, forced calls, documents for schemas, and the faults of streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientTimeout

from engine_double.configuration import parse
from engine_double.constrained import document
from tests.support.doubles import Client, Doubles, ask, chat, stream

ADD = {"name": "add", "arguments": {"n": 1}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
PLAN = {"turns": [{"tool_calls": [ADD], "times": 2}, {"content": "The sum is {turn}, {session}."}]}
CHATS = "/v1/chat/completions"


@pytest.fixture
async def doubles() -> AsyncIterator[Doubles]:
    started = Doubles()
    yield started
    await started.stop()


async def turn(client: Client, messages: list[Any], session: str = "s", **more: Any) -> Any:
    body = {"model": "m", "messages": messages, "tools": [TOOL], **more}
    async with client.post(CHATS, json=body, headers={"X-Session-Id": session}) as response:
        assert response.status == 200, await response.text()
        return (await response.json())["choices"][0]


def result(message: Any) -> list[Any]:
    """A reply and the results of its calls, as messages."""
    calls = message.get("tool_calls") or ()
    return [message, *({"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in calls)]


@pytest.mark.parametrize("directive", ["Please [[plan:sum]] now", f"Add. [[plan {json.dumps(PLAN)}]]"])
async def test_a_conversation_follows_its_plan_turn_by_turn(doubles: Doubles, directive: str) -> None:
    client = await doubles.start(plans={"sum": PLAN})
    messages: list[Any] = [{"role": "user", "content": directive}]
    for _ in range(2):
        choice = await turn(client, messages)
        assert choice["finish_reason"] == "tool_calls"
        assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"n": 1}
        messages += result(choice["message"])
    choice = await turn(client, messages, session="task-7")
    assert choice["message"]["content"] == "The sum is 2, task-7."
    again = await turn(client, [*messages, choice["message"], {"role": "user", "content": "and?"}])
    assert again["message"]["content"] == "The sum is 3, s.", "the last turn is repeated"


async def test_a_double_that_is_started_anew_goes_on_with_the_plan(doubles: Doubles) -> None:
    messages: list[Any] = [{"role": "user", "content": f"[[plan {json.dumps(PLAN)}]]"}]
    for _ in range(2):
        messages += result((await turn(await doubles.start(), messages))["message"])
    assert (await turn(await doubles.start(), messages))["message"]["content"] == "The sum is 2, s."


async def test_many_conversations_follow_their_plans_side_by_side(doubles: Doubles) -> None:
    client = await doubles.start(plans={"sum": PLAN}, max_num_seqs=64)

    async def whole(session: str) -> str:
        messages: list[Any] = [{"role": "user", "content": "[[plan:sum]]"}]
        for _ in range(3):
            choice = await turn(client, messages, session)
            messages += result(choice["message"])
        return str(choice["message"]["content"])

    said = await asyncio.gather(*(whole(f"t{number}") for number in range(40)))
    assert said == [f"The sum is 2, t{number}." for number in range(40)]


async def test_the_last_message_with_a_plan_counts_and_the_users_before_the_systems(doubles: Doubles) -> None:
    plans = {name: {"turns": [{"content": name}, {"content": "later"}]} for name in ("a", "b", "c")}
    client = await doubles.start(plans=plans)
    system = {"role": "system", "content": "[[plan:a]]"}
    first, second = ({"role": "user", "content": f"[[plan:{name}]]"} for name in ("b", "c"))
    said = {"role": "assistant", "content": "[[plan:a]]"}
    for messages, expected in (
        ([system, {"role": "user", "content": "hello"}], "a"),
        ([system, first], "b"),
        ([system, first, said], "later"),
        ([system, first, said, second], "c"),
    ):
        assert (await turn(client, messages))["message"]["content"] == expected


async def test_without_tools_a_plan_calls_none(doubles: Doubles) -> None:
    client = await doubles.start(plans={"sum": PLAN})
    messages = [{"role": "user", "content": "[[plan:sum]]"}]
    none: list[dict[str, Any]] = [{"tools": None}, {"tool_choice": "none"}]
    for more in none:
        choice = await turn(client, messages, **more)
        assert (choice["finish_reason"], choice["message"].get("tool_calls")) == ("stop", None)


@pytest.mark.parametrize("directive", ["[[plan:nobody]]", "[[plan {]]", '[[plan {"turns": []}]]'])
async def test_a_plan_that_is_none_is_refused(doubles: Doubles, directive: str) -> None:
    status, body = await ask(await doubles.start(), chat(directive))
    assert status == 400
    assert "plan" in body["error"]["message"]


async def test_plans_can_be_given_later(doubles: Doubles) -> None:
    client = await doubles.start()
    assert await ask(client, {"new": PLAN}, "/admin/plans") == (200, {"plans": ["new"]})
    assert (await turn(client, [{"role": "user", "content": "[[plan:new]]"}]))["message"]["tool_calls"]


async def test_a_reply_that_was_cut_off_is_continued_where_it_ends(doubles: Doubles) -> None:
    text = "Ten words that are more than twenty characters long."
    client = await doubles.start(plans={"p": {"turns": [{"content": text}, {"content": "next"}]}})
    messages = [{"role": "user", "content": "[[plan:p]]"}]
    said = ""
    for _ in range(20):
        begun = [{"role": "assistant", "content": said}] if said else []
        more: dict[str, Any] = {"continue_final_message": True} if said else {}
        choice = await turn(client, [*messages, *begun], max_tokens=5, **more)
        said += choice["message"]["content"]
        if choice["finish_reason"] == "stop":
            break
    assert said == text


async def test_arguments_that_are_a_text_are_said_as_they_are(doubles: Doubles) -> None:
    client = await doubles.start(script=[{"tool_calls": [{"name": "add", "arguments": '{"n": '}]}])
    _, body = await ask(client, chat())
    assert body["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"n": '


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
            "required": ["a"],
        },
        {
            "type": "object",
            "properties": {"a": {"type": "array", "items": {"type": "boolean"}, "minItems": 3}},
        },
        {"enum": ["x", "y"]},
        {"const": {"a": [1, None]}},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {
            "$ref": "#/$defs/p",
            "$defs": {
                "p": {"type": "object", "properties": {"q": {"$ref": "#/$defs/q"}}},
                "q": {"type": "number", "exclusiveMinimum": 5, "multipleOf": 4},
            },
        },
        {
            "allOf": [
                {"properties": {"a": {"type": "string"}}, "required": ["a"]},
                {"properties": {"b": {"type": "null"}}, "required": ["b"]},
            ],
            "type": "object",
        },
        {"type": ["string", "null"], "minLength": 40, "maxLength": 41},
        {"type": "string", "maxLength": 2},
        {"type": "integer", "minimum": -9, "maximum": -3},
        {"type": "integer", "exclusiveMaximum": 0},
        {},
    ],
)
def test_a_document_satisfies_its_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(document(schema), schema)
    assert document(schema) == document(schema)


def test_a_schema_that_contains_itself_has_an_end() -> None:
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}}, "required": ["child"]}
    assert json.dumps(document(tree)).count("child") > 3


async def test_tokens_are_counted_as_in_the_answer(doubles: Doubles) -> None:
    client = await doubles.start()
    body = chat("hello there", tools=[TOOL])
    _, counted = await ask(client, body, "/tokenize")
    _, answer = await ask(client, body)
    assert counted["count"] == answer["usage"]["prompt_tokens"] == len(counted["tokens"])
    _, text = await ask(client, {"model": "m", "prompt": "x" * 40}, "/tokenize")
    assert text["count"] == 10


async def test_cached_tokens_are_counted_where_vllm_was_told_to(doubles: Doubles) -> None:
    configuration, _, _ = parse(["m", "--enable-prompt-tokens-details"])
    assert configuration.prompt_tokens_details
    client = await doubles.start(prompt_tokens_details=True)
    body = chat("a long question " * 40, max_tokens=4)
    details = [(await ask(client, body))[1]["usage"]["prompt_tokens_details"] for _ in range(2)]
    assert details[0]["cached_tokens"] == 0
    assert details[1]["cached_tokens"] > 100
    chunks = await stream(client, {**body, "stream_options": {"include_usage": True}})
    assert chunks[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 100
    plain = await doubles.start()
    assert (await ask(plain, body))[1]["usage"]["prompt_tokens_details"] is None


async def test_a_failure_says_when_to_come_again(doubles: Doubles) -> None:
    faults = {"fail_next": 1, "fail_status": 429, "retry_after": "7"}
    client = await doubles.start(faults=faults, script=[{"status": 503, "retry_after": "8"}])
    for status, after in ((429, "7"), (503, "8")):
        async with client.post(CHATS, json=chat()) as response:
            assert (response.status, response.headers["Retry-After"]) == (status, after)
    async with client.post(CHATS, json=chat()) as response:
        assert (response.status, "Retry-After" in response.headers) == (200, False)


async def test_calls_come_interleaved_and_in_small_pieces(doubles: Doubles) -> None:
    faults = {"interleave_calls": True, "argument_characters": 1, "stream_bytes": 1}
    client = await doubles.start(script=[{"tool_calls": [ADD, ADD]}], faults=faults)
    chunks = await stream(client, chat())
    pieces = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls") or ()]
    assert [piece["index"] for piece in pieces] == [0, 1] * (len(json.dumps(ADD["arguments"])) + 1)
    arguments = "".join(piece["function"].get("arguments", "") for piece in pieces if piece["index"] == 1)
    assert json.loads(arguments) == {"n": 1}


async def raw_stream(client: Client, seconds: float = 0.5) -> tuple[str, str]:
    """Chunks that come within this time, and how the stream ends."""
    received = b""
    try:
        async with client.post(
            CHATS, json=chat(stream=True), timeout=ClientTimeout(total=None, sock_read=30)
        ) as response:
            async with asyncio.timeout(seconds):
                async for part in response.content.iter_any():
                    received += part
    except TimeoutError:
        return received.decode(), "open"
    except (ClientPayloadError, ClientConnectionError):
        return received.decode(), "broken"
    return received.decode(), "ended"


@pytest.mark.parametrize(
    ("faults", "end", "is_done"),
    [
        pytest.param({"cut_streams_after_tokens": 3}, "broken", False, id="cut"),
        pytest.param({"end_streams_after_tokens": 3}, "ended", False, id="ended too early"),
        pytest.param({"error_in_streams_after_tokens": 3}, "ended", True, id="an error in the stream"),
        pytest.param({"stall_streams_after_tokens": 3}, "open", False, id="stalled"),
        pytest.param({"endless_streams": True}, "open", False, id="endless"),
    ],
)
async def test_streams_break_as_told_and_only_as_many_as_told(
    doubles: Doubles, faults: dict[str, Any], end: str, is_done: bool
) -> None:
    client = await doubles.start(faults={**faults, "faulty_streams": 1})
    text, how = await raw_stream(client)
    assert (how, "[DONE]" in text, '"finish_reason":"stop"' in text) == (end, is_done, False)
    tokens = text.count('"content":"') - 1  # the first chunk has the role and no text
    assert tokens > 40 if faults.get("endless_streams") else tokens == 3
    assert (": still here" in text) == ("stall_streams_after_tokens" in faults)
    text, how = await raw_stream(client, seconds=30)
    assert (how, "[DONE]" in text) == ("ended", True)
