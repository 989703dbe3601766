"""The official OpenAI client against a real gateway, Redis and worker; the model is a double."""

import asyncio
from typing import Any

import openai
import pytest

from agent_support.words import fleet_with_worker
from flotilla_runtime.contract import GatewayAuth

pytestmark = pytest.mark.services


def client_of(fleet: Any, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{fleet.gateway_url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.mark.holds(
    "front-ends.md",
    "The official OpenAI client gets chat completions, whole and streamed, and their tasks are "
    "tasks like any other",
)
async def test_a_chat_completion_is_answered_whole_and_streamed(fleet: Any) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": [{"type": "text", "text": "How is space freed?"}]},
    ]
    async with fleet_with_worker(fleet) as model, client_of(fleet) as client:
        assert [one.id async for one in client.models.list()] == ["support"]
        model.going.set()
        whole = await client.chat.completions.create(model="support", messages=messages)
        assert whole.choices[0].message.content == "VACUUM frees space."
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (80, 8)
        told = [(message["role"], message["content"]) for message in model.asked[0][1:]]
        assert told == [
            ("user", "Hi"),
            ("assistant", "Hello."),
            ("user", "Be brief.\n\nHow is space freed?"),
        ]
        model.going.clear()
        stream = await client.chat.completions.create(
            model="support", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        pieces, usage = [], None
        async for chunk in stream:
            usage = chunk.usage or usage
            if chunk.choices and (text := chunk.choices[0].delta.content):
                pieces.append(text)
                model.going.set()  # the first word has come while the model still writes
        assert len(pieces) > 1
        assert "".join(pieces) == "VACUUM frees space."
        assert usage is not None
        assert usage.total_tokens == 88
        task = await fleet.task(whole.id.removeprefix("chatcmpl-"))
        assert task["status"] == "Succeeded", "a task like any other"


@pytest.mark.holds(
    "front-ends.md",
    "Responses go on in the background, `previous_response_id` names their conversation, and they "
    "are retrieved and cancelled",
)
async def test_responses_go_on_in_the_background_and_as_a_conversation(fleet: Any) -> None:
    async with fleet_with_worker(fleet) as model, client_of(fleet) as client:
        first = await client.responses.create(
            model="support", input="How?", background=True, metadata={"for": "ann"}
        )
        assert first.status in ("queued", "in_progress")
        second = await client.responses.create(
            model="support", input="And then?", previous_response_id=first.id, background=True
        )
        model.going.set()
        await fleet.ended(second.id.removeprefix("resp_"))
        ended = await client.responses.retrieve(first.id)
        assert (ended.status, ended.output_text) == ("completed", "VACUUM frees space.")
        assert ended.metadata == {"for": "ann"}
        assert ended.usage is not None
        assert ended.usage.output_tokens == 8
        ended = await client.responses.retrieve(second.id)
        assert ended.previous_response_id == first.id
        assert [message["content"] for message in model.asked[1][1:]] == [
            "How?",
            "VACUUM frees space.",
            "And then?",
        ]


@pytest.mark.holds(
    "front-ends.md",
    "A client that leaves cancels nothing, and nothing waits for it; it resumes a stream behind any event",
)
@pytest.mark.once
async def test_a_stream_of_a_response_is_resumed_and_whoever_leaves_cancels_nothing(fleet: Any) -> None:
    async with fleet_with_worker(fleet) as model, client_of(fleet) as client:
        stream = await client.responses.create(model="support", input="How?", stream=True)
        seen: list[Any] = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
        await stream.close()
        model.going.set()
        response = seen[0].response.id
        resumed = await client.responses.retrieve(
            response, stream=True, starting_after=seen[-1].sequence_number
        )
        later = [event async for event in resumed]
        deltas = [one.delta for one in (*seen, *later) if one.type == "response.output_text.delta"]
        assert "".join(deltas) == "VACUUM frees space."
        numbers = [event.sequence_number for event in (*seen, *later)]
        assert numbers == sorted(set(numbers))
        assert later[-1].type == "response.completed"
        assert later[-1].response.output_text == "VACUUM frees space."
        assert len(model.asked) == 1
        again = await client.responses.retrieve(response, stream=True)
        assert [event.type for event in [one async for one in again]][-1] == "response.completed"


@pytest.mark.holds(
    "front-ends.md",
    "Responses go on in the background, `previous_response_id` names their conversation, and they "
    "are retrieved and cancelled",
)
async def test_a_response_is_cancelled(fleet: Any) -> None:
    async with fleet_with_worker(fleet), client_of(fleet) as client:
        response = await client.responses.create(model="support", input="How?", background=True)
        assert (await client.responses.cancel(response.id)).status == "cancelled"


@pytest.mark.holds(
    "front-ends.md",
    "A stream has what an agent says between its calls, goes on where a try died and says the "
    "same, and else breaks",
)
async def test_the_text_of_a_try_that_died_is_not_given_twice(fleet: Any) -> None:
    async with fleet_with_worker(fleet) as model, client_of(fleet) as client:
        model.dies = True
        stream = await client.chat.completions.create(
            model="support", messages=[{"role": "user", "content": "How?"}], stream=True
        )
        pieces = []
        async for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                pieces.append(text)
                model.going.set()
        assert "".join(pieces) == "VACUUM frees space."
        assert len(model.asked) > 1, "the first try died"


@pytest.mark.holds("front-ends.md", "Both front ends have the callers and rights of the task API")
@pytest.mark.attack("A caller reads or continues somebody else's response")
async def test_the_callers_and_rights_are_those_of_the_task_api(own_fleet: Any) -> None:
    for name in ("ann", "bob"):
        (own_fleet.callers / name).write_text(f"key-of-{name}")
    await own_fleet.start_gateway(GatewayAuth.SECRET, serves_openai=True, requests_per_minute=8)
    async with client_of(own_fleet, "key-of-ann") as ann, client_of(own_fleet, "key-of-bob") as bob:
        response = await ann.responses.create(model="support", input="How?", background=True)
        with pytest.raises(openai.NotFoundError):
            await bob.responses.retrieve(response.id)
        with pytest.raises(openai.BadRequestError) as refused:
            await bob.responses.create(model="support", input="And?", previous_response_id=response.id)
        assert (refused.value.param, refused.value.code) == (
            "previous_response_id",
            "previous_response_not_found",
        )
        await asyncio.gather(*(bob.models.list() for _ in range(6)))
        with pytest.raises(openai.RateLimitError, match="your own limit"):
            await asyncio.gather(*(bob.models.list() for _ in range(2)))
        assert (await ann.responses.retrieve(response.id)).status == "queued"
    async with client_of(own_fleet, "wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
