"""Contract of agents with an engine: the double held against real vLLM, and the client against both.

The rest of the comparison is in test_engine_contract.py.
"""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema
import pytest

from flotilla_runtime.agent.models import (
    Endpoint,
    FinishReason,
    ModelClient,
    ModelOutcome,
    ModelProblemReason,
    ModelReply,
    ModelRequest,
    NamedTool,
    ToolChoice,
    ToolDeclaration,
    assistant_message,
    continuation,
    messages_bound,
    prompt_bound,
    tool_message,
)
from flotilla_runtime.contract import Priority
from tests.support.engine_pairs import WEATHER, Pair, chat, events, pair, shape
from tests.support.real_engines import EXAMPLE_ENGINES, KEY, PodsEngine

pytestmark = [pytest.mark.services, pytest.mark.timeout(900), EXAMPLE_ENGINES]

CHATS = "/v1/chat/completions"
WEATHER_FUNCTION: dict[str, Any] = dict(WEATHER["function"])
NAMED = {"type": "function", "function": {"name": "weather"}}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "role": {"enum": ["captain", "cook"]},
        "sails": {"type": "boolean"},
    },
    "required": ["name", "age", "role", "sails"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": PERSON}}
SCRIPTS = {
    "Latin": "The harbour is closed tonight, à bientôt.",
    "Cyrillic": "Гавань сегодня вечером закрыта.",
    "Arabic": "الميناء مغلق الليلة.",
    "Devanagari": "बंदरगाह आज रात बंद है।",
    "Chinese": "港口今晚关闭。",
    "Japanese": "港は今夜閉まっています。",
    "Korean": "항구는 오늘 밤 닫혀 있습니다.",
    "Thai": "ท่าเรือปิดคืนนี้",
    "Emoji": "🚢🏴‍☠️👩🏽‍🚀👨‍👩‍👧‍👦",
    "Hebrew": "הנמל סגור הלילה.",
}


@pytest.fixture(scope="module")
def generators(generator: PodsEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from pair(generator, tmp_path_factory.mktemp("double"))


def conversation() -> dict[str, Any]:
    """One in which a tool was called."""
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    return {
        "messages": [
            {"role": "system", "content": "You are brief."},
            {"role": "user", "content": "How is it in Rome?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "Sunny."},
        ],
        "tools": [WEATHER],
    }


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"messages": chat()["messages"]}, id="a chat"),
        pytest.param(conversation(), id="a chat with a tool call"),
        pytest.param({"prompt": "One, two,"}, id="a text"),
    ],
)
def test_tokens_are_counted_with_the_same_keys(generators: Pair, asked: dict[str, Any]) -> None:
    real, double = generators.both("/tokenize", asked)
    assert (real.status_code, double.status_code) == (200, 200)
    assert shape(double.json()) == shape(real.json())
    for answer in (real.json(), double.json()):
        assert answer["count"] == len(answer["tokens"])
        assert answer["max_model_len"] == 4096


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "Prompts are counted by `/tokenize`, also behind the router; without an answer the bound holds",
)
@pytest.mark.parametrize("asked", [{"messages": chat()["messages"]}, conversation()])
def test_a_prompt_has_as_many_tokens_as_were_counted(generators: Pair, asked: dict[str, Any]) -> None:
    counts = generators.both("/tokenize", asked)
    answers = generators.both(CHATS, {**asked, "max_tokens": 1, "tool_choice": "none"})
    for count, answer in zip(counts, answers, strict=True):
        assert count.json()["count"] == answer.json()["usage"]["prompt_tokens"]


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "No prompt of any script has more tokens than its bound, nor grows by more than that of its new messages",
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_no_prompt_of_any_script_has_more_tokens_than_its_bound(generators: Pair, script: str) -> None:
    asked = conversation()
    asked["messages"][0]["content"] = SCRIPTS[script] * 5
    tools = [
        ToolDeclaration(
            name="weather", description=SCRIPTS[script], parameters=WEATHER_FUNCTION["parameters"]
        )
    ]
    real, _ = generators.both("/tokenize", {**asked, "tools": [tool.document for tool in tools]})
    assert len(SCRIPTS[script]) < real.json()["count"] <= prompt_bound(asked["messages"], tools)


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "No prompt of any script has more tokens than its bound, nor grows by more than that of its new messages",
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_prompt_that_was_counted_grows_by_no_more_than_its_new_messages_bound(
    generators: Pair, script: str
) -> None:
    asked = conversation()
    asked["messages"][1]["content"] = asked["messages"][3]["content"] = SCRIPTS[script]
    before, _ = generators.both("/tokenize", {**asked, "messages": asked["messages"][:2]})
    after, _ = generators.both("/tokenize", asked)
    added = messages_bound(asked["messages"][2:])
    assert before.json()["count"] < after.json()["count"] <= before.json()["count"] + added


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_with_a_schema_satisfies_it(generators: Pair, stream: bool) -> None:
    body = chat("Describe a sailor.", response_format=FORMAT, max_tokens=200, temperature=0, stream=stream)
    for answer in generators.both(CHATS, body):
        if stream:
            deltas = [choice["delta"] for one in events(answer) for choice in one["choices"]]
            text = "".join(delta.get("content") or "" for delta in deltas)
        else:
            text = answer.json()["choices"][0]["message"]["content"]
        jsonschema.validate(json.loads(text), PERSON)


@pytest.mark.parametrize(
    ("choice", "finish"),
    [
        pytest.param(NAMED, "stop", id="the tool that is named"),
        pytest.param("required", "tool_calls", id="any"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_comes_and_ends_alike(generators: Pair, choice: Any, finish: str, stream: bool) -> None:
    """The double has no script for what is asked. Without `strict`, vLLM lets its model write any JSON."""
    tool = {**WEATHER, "function": {**WEATHER_FUNCTION, "strict": True}}
    body = chat("How is it up north?", tools=[tool], tool_choice=choice, max_tokens=120, temperature=0)
    answers = generators.both(CHATS, {**body, "stream": stream})
    assert [forced(answer, stream=stream) for answer in answers] == [
        (finish, "weather", {"city": "Oslo"})
    ] * 2


def forced(answer: httpx2.Response, *, stream: bool) -> tuple[str, str, Any]:
    """Why an answer ended, and the name and the arguments of its call."""
    chunks = events(answer) if stream else [answer.json()]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    said = [choice["delta" if stream else "message"] for choice in choices]
    calls = [call["function"] for delta in said for call in delta.get("tool_calls") or ()]
    arguments = "".join(call.get("arguments") or "" for call in calls)
    return choices[-1]["finish_reason"], calls[0]["name"], json.loads(arguments)


def test_a_tool_that_is_not_declared_cannot_be_forced(generators: Pair) -> None:
    choice = {"type": "function", "function": {"name": "other"}}
    real, double = generators.both(CHATS, chat(tools=[WEATHER], tool_choice=choice))
    assert (real.status_code, double.status_code) == (400, 400)
    assert shape(double.json()) == shape(real.json())


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_from_the_cache_are_counted_with_the_same_keys(generators: Pair, stream: bool) -> None:
    """`--enable-prompt-tokens-details`: the second time, most of the prompt comes from the cache."""
    body = chat("Tell me about the harbour. " * 40, max_tokens=4, stream=stream)
    body |= {"stream_options": {"include_usage": True}} if stream else {}
    generators.both(CHATS, body)
    counted = [
        (events(answer)[-1] if stream else answer.json())["usage"] for answer in generators.both(CHATS, body)
    ]
    real, double = counted
    assert shape(double) == shape(real)
    for usage in counted:
        assert 0.5 * usage["prompt_tokens"] < usage["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.holds(
    "tasks.md",
    "With `isolateTenants` a model finds in its cache what the same tenant has sent, and nothing "
    "else; without it callers are told no cached tokens",
)
@pytest.mark.attack("A caller asks whether others have sent a prompt, by what a model had cached")
def test_what_was_cached_with_one_salt_is_found_with_that_salt_alone(generators: Pair) -> None:
    body = chat("Tell me about the lighthouse. " * 40, max_tokens=4)
    cached = []
    for salt in ("one", "one", "another", None):
        salted = body if salt is None else {**body, "cache_salt": salt}
        answers = [answer.json()["usage"] for answer in generators.both(CHATS, salted)]
        cached.append([usage["prompt_tokens_details"]["cached_tokens"] > 0 for usage in answers])
    assert cached == [[False, False], [True, True], [False, False], [False, False]]


def test_a_stream_that_counts_along_has_the_same_chunks(generators: Pair) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    real, double = generators.both(CHATS, chat(stream=True, stream_options=options))
    theirs, mine = events(real), events(double)
    for place in (0, 1, -2, -1):
        assert shape(mine[place]) == shape(theirs[place]), f"chunk {place}"
    for chunks in (theirs, mine):
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == [*range(len(counts) - 1), counts[-2]]


def test_the_last_message_is_continued_by_both(generators: Pair) -> None:
    """Text that was said is not said again."""
    asked = chat("Count from one to nine in words.", max_tokens=20, temperature=0, frequency_penalty=0)
    begun = [*asked["messages"], {"role": "assistant", "content": "one, two, three,"}]
    going_on = {"continue_final_message": True, "add_generation_prompt": False}
    real, double = generators.both(CHATS, {**asked, **going_on, "messages": begun})
    assert shape(double.json()) == shape(real.json())
    assert real.json()["choices"][0]["message"]["content"].lstrip().startswith("four")
    counts = generators.both("/tokenize", {**going_on, "messages": begun})
    assert [answer.json()["count"] for answer in counts] == [
        answer.json()["usage"]["prompt_tokens"] for answer in (real, double)
    ]


def test_a_message_cannot_be_continued_and_followed_by_another(generators: Pair) -> None:
    both = {"continue_final_message": True, "add_generation_prompt": True}
    real, double = generators.both(CHATS, {**chat(), **both})
    assert (real.status_code, double.status_code) == (400, 400)


# The client. Every test asks the real engine and its double.


def endpoints(generators: Pair) -> list[Endpoint]:
    return [
        Endpoint(url=f"{client.base_url}/v1", model=generators.model, is_vllm=True, key_environment="K")
        for client in (generators.real, generators.double)
    ]


def request(content: str, **more: Any) -> ModelRequest:
    fields: dict[str, Any] = {"max_tokens": 120, "messages": ({"role": "user", "content": content},)}
    return ModelRequest(session_id="t", priority=Priority.INTERACTIVE, **{**fields, **more})


async def replies(generators: Pair, asked: ModelRequest) -> list[ModelReply]:
    async with httpx2.AsyncClient() as connections:
        models = ModelClient(connections, environment={"K": KEY})
        answers = [await models.complete(endpoint, asked) for endpoint in endpoints(generators)]
        for endpoint, answer in zip(endpoints(generators), answers, strict=True):
            if answer.problem is None:
                counted = await models.count_prompt(endpoint, asked)
                assert (counted.tokens, counted.is_measured) == (answer.usage.input_tokens, True)
    return answers


TOOL = ToolDeclaration(
    name="weather",
    description="The weather.",
    parameters=WEATHER_FUNCTION["parameters"],
    is_strict=True,
)


async def test_the_client_gets_an_answer_with_its_counts(generators: Pair) -> None:
    for reply in await replies(generators, request("Say hello.", max_tokens=8)):
        assert (reply.outcome, reply.tries) == (ModelOutcome.SUCCEEDED, 1)
        assert reply.text
        assert reply.usage.is_measured
        assert 0 < reply.usage.output_tokens <= 8


async def test_the_client_gets_a_call_and_the_conversation_goes_on_with_its_result(generators: Pair) -> None:
    """The real model calls a tool, since it is told which."""
    asked = request("How is it up north?", tools=(TOOL,), tool_choice=NamedTool(name="weather"))
    for reply in await replies(generators, asked):
        assert (reply.outcome, reply.finish_reason) == (ModelOutcome.SUCCEEDED, FinishReason.TOOL_CALLS)
        (call,) = reply.tool_calls
        assert (call.name, call.arguments, call.problem) == ("weather", {"city": "Oslo"}, None)
        told = (*asked.messages, assistant_message(reply), tool_message(call, "Snow."))
        going_on = request("", messages=told, tools=(TOOL,), tool_choice=ToolChoice.NONE, max_tokens=20)
        for answer in await replies(generators, going_on):
            assert answer.outcome is ModelOutcome.SUCCEEDED


async def test_the_client_gets_a_structured_value(generators: Pair) -> None:
    for reply in await replies(generators, request("A sailor.", response_schema=PERSON, max_tokens=200)):
        assert (reply.outcome, reply.tries) == (ModelOutcome.SUCCEEDED, 1)
        jsonschema.validate(reply.value, PERSON)


async def test_the_client_continues_an_answer_that_was_cut_off(generators: Pair) -> None:
    asked = request("Count from one to nine in words.", max_tokens=6)
    for number, first in enumerate(await replies(generators, asked)):
        assert first.finish_reason is FinishReason.LENGTH
        second = (await replies(generators, continuation(asked, first.text)))[number]
        assert second.outcome is ModelOutcome.SUCCEEDED
        assert second.usage.input_tokens > first.usage.input_tokens
        assert not second.text.startswith(first.text)


async def test_the_client_is_told_that_a_prompt_is_too_long(generators: Pair) -> None:
    for reply in await replies(generators, request("word " * 6000)):
        assert reply.outcome is ModelOutcome.PROMPT_TOO_LONG


async def test_the_client_is_told_why_a_request_is_refused(generators: Pair) -> None:
    for reply in await replies(generators, request("x", tools=(TOOL,), tool_choice=NamedTool(name="other"))):
        assert reply.problem is not None
        assert reply.problem.reason is ModelProblemReason.REQUEST_REFUSED
        assert "tool_choice" in reply.problem.message
