"""Requests that OpenAI's clients may send, and parts that are refused by name."""

import asyncio
import json
from http import HTTPStatus
from typing import Any, cast

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse

from flotilla_runtime.agent.tasks import Submission, SubmitOutcome, TaskRecord
from flotilla_runtime.contract import Priority
from flotilla_runtime.gateway.auth import NoAuthentication
from flotilla_runtime.gateway.callers import Callers
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.openai.answers import chat_completion, response, usage
from flotilla_runtime.gateway.openai.endpoints import OpenAIFrontEnd
from flotilla_runtime.gateway.openai.errors import error_document
from flotilla_runtime.gateway.openai.requests import asked_chat, asked_response
from flotilla_runtime.gateway.problems import ProblemError, unavailable
from flotilla_runtime.gateway.service import Outcome
from flotilla_runtime.gateway.streams import Streams
from flotilla_runtime.places import Bound, KeepsPlaces
from router_support.waiting import until

USER = {"role": "user", "content": "why?"}


class Interrupted:
    """A service that stores a task, and then loses Redis."""

    def new_id(self) -> str:
        return "t7"

    async def submit(self, request: Any, caller: Any, tenant: str, **more: Any) -> Submission:
        return Submission(outcome=SubmitOutcome.CREATED, id="t7")

    async def outcome(self, task: str, caller: Any) -> Outcome:
        raise unavailable("Redis does not answer", 2)


def front_end(service: Any, bound: Bound | None = None) -> httpx2.AsyncClient:
    desk = Desk(
        service=service,
        sight=cast("Any", None),
        callers=Callers(NoAuthentication()),
        outside=cast("Any", None),
        replays=cast("Any", None),
        streams=Streams(9),
        max_body_bytes=1000,
    )
    transport = httpx2.ASGITransport(
        KeepsPlaces(Starlette(routes=OpenAIFrontEnd(desk, "support").routes()), bound or Bound())
    )
    return httpx2.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.mark.holds(
    "tasks.md",
    "A submission or replay without a key that may be kept is a 503 that is not to be repeated and "
    "names the task, so OpenAI's client makes one task",
)
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("more", [{"stream": True}, {}], ids=["streamed", "whole"])
async def test_a_request_whose_task_is_made_is_not_to_be_sent_again_without_a_key(
    path: str, more: dict[str, Any]
) -> None:
    body = {"model": "support", **more, **({"input": "pay"} if "responses" in path else {"messages": [USER]})}
    async with front_end(Interrupted()) as client:
        bare = await client.post(path, json=body)
        keyed = await client.post(path, json=body, headers={"Idempotency-Key": "k"})
    assert (bare.status_code, bare.headers["x-should-retry"]) == (503, "false")
    assert "has made the task t7" in bare.json()["error"]["message"]
    assert (keyed.status_code, keyed.headers["retry-after"]) == (503, "2")
    assert "x-should-retry" not in keyed.headers


class Waiting(Interrupted):
    """A service whose tasks do not end."""

    def __init__(self) -> None:
        self.asked = 0

    async def outcome(self, task: str, caller: Any) -> Outcome:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.attack("Callers send more large bodies at once than a gateway or a retriever has memory for")
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("more", [{"stream": True}, {}], ids=["streamed", "whole"])
async def test_a_request_that_waits_for_its_task_holds_no_room_for_bodies(
    path: str, more: dict[str, Any]
) -> None:
    long = {"role": "user", "content": "x" * 800}
    asked = {"input": "x" * 800} if "responses" in path else {"messages": [long]}
    service = Waiting()
    async with front_end(service, Bound(body_bytes=2000)) as client:
        waiting = []
        for number in range(64):
            posting = client.post(path, json={"model": "support", **more, **asked})
            waiting.append(asyncio.create_task(posting))
            await until(lambda: service.asked == len(waiting) or waiting[-1].done())
            assert service.asked == number + 1
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "support", "messages": [USER], **fields}).encode()


def responding(**fields: Any) -> bytes:
    return json.dumps({"model": "support", "input": "why?", **fields}).encode()


@pytest.mark.holds(
    "front-ends.md",
    "A parameter that a task cannot heed is refused by its name; instructions stand before the question",
)
@pytest.mark.parametrize(
    ("ask", "body", "parameter", "code"),
    [
        pytest.param(asked_chat, chat(temperature=1), "temperature", "unsupported_parameter", id="a knob"),
        pytest.param(asked_chat, chat(tools=[{}]), "tools", "unsupported_parameter", id="tools"),
        pytest.param(asked_chat, chat(n=2), "n", "unsupported_parameter", id="two answers"),
        pytest.param(
            asked_chat, chat(frobnicate=1), "frobnicate", "unsupported_parameter", id="an unknown one"
        ),
        pytest.param(
            asked_chat, chat(stream_options={"x": 1}), "stream_options.x", "unsupported_parameter", id="in it"
        ),
        pytest.param(asked_chat, chat(model="gpt"), "model", "model_not_found", id="another model"),
        pytest.param(asked_chat, chat(stream="yes"), "stream", "invalid_value", id="a flag"),
        pytest.param(asked_chat, chat(messages="hi"), "messages", "invalid_value", id="no list"),
        pytest.param(asked_chat, chat(messages=[]), "messages", "invalid_value", id="no messages"),
        pytest.param(asked_chat, chat(messages=[USER] * 1001), "messages", "invalid_value", id="too many"),
        pytest.param(
            asked_chat,
            chat(messages=[USER, {"role": "assistant", "content": "so"}]),
            "messages",
            "invalid_value",
            id="no question",
        ),
        pytest.param(
            asked_chat,
            chat(messages=[{"role": "tool", "content": "so"}]),
            "messages[0].role",
            "invalid_value",
            id="a role",
        ),
        pytest.param(
            asked_chat,
            chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
            "messages[0].content[0].type",
            "invalid_value",
            id="an image",
        ),
        pytest.param(asked_chat, chat(metadata={"a": 1}), "metadata.a", "invalid_request", id="metadata"),
        pytest.param(asked_chat, b"no", None, "not_json", id="no JSON"),
        pytest.param(asked_chat, b"[" * 100_000, None, "not_json", id="deep JSON"),
        pytest.param(asked_chat, chat(**{"\ud800": 1}), None, "not_json", id="half a character"),
        pytest.param(
            asked_response,
            responding(max_output_tokens=9),
            "max_output_tokens",
            "unsupported_parameter",
            id="a limit",
        ),
        pytest.param(asked_response, responding(input=7), "input", "invalid_value", id="no input"),
        pytest.param(
            asked_response,
            responding(input=[{"type": "reasoning"}]),
            "input[0].type",
            "invalid_value",
            id="item",
        ),
        pytest.param(
            asked_response, responding(service_tier="priority"), "service_tier", "invalid_value", id="tier"
        ),
        pytest.param(
            asked_response,
            responding(previous_response_id="a", conversation="b"),
            "conversation",
            "invalid_value",
            id="two conversations",
        ),
        pytest.param(
            asked_response,
            responding(previous_response_id="a", store=False),
            "store",
            "invalid_value",
            id="not stored behind a response",
        ),
        pytest.param(
            asked_response,
            responding(conversation={"id": "a"}, store=False),
            "store",
            "invalid_value",
            id="not stored in a conversation",
        ),
        pytest.param(
            asked_response, responding(conversation="é"), "conversationId", "invalid_request", id="an id"
        ),
    ],
)
def test_what_is_refused_is_named(ask: Any, body: bytes, parameter: str | None, code: str) -> None:
    with pytest.raises(ProblemError) as refused:
        ask(body, "support", None)
    error = error_document(refused.value)["error"]
    assert JSONResponse({"error": error}).body
    assert (error["param"], error["code"], error["type"]) == (parameter, code, "invalid_request_error")
    assert error["message"]


@pytest.mark.holds(
    "front-ends.md",
    "A parameter that a task cannot heed is refused by its name; instructions stand before the question",
)
def test_what_changes_nothing_is_taken() -> None:
    asked = asked_chat(
        chat(n=1, temperature=None, user="ann", response_format={"type": "text"}, service_tier="flex"),
        "support",
        "key",
    )
    assert asked.submission.priority is Priority.BATCH
    assert asked.submission.idempotency_key == "key"
    assert not asked.is_stored


@pytest.mark.holds(
    "front-ends.md",
    "A parameter that a task cannot heed is refused by its name; instructions stand before the question",
)
def test_instructions_stand_before_the_question_and_earlier_messages_are_the_history() -> None:
    items = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello."}]},
        {"role": "user", "content": "One"},
        {"role": "user", "content": "Two"},
    ]
    asked = asked_response(responding(input=items, instructions="Be brief."), "support", None)
    assert asked.submission.input == "Be brief.\n\nBe kind.\n\nOne\n\nTwo"
    assert [message.text for message in asked.history] == ["Hi", "Hello."]


def record(**fields: str) -> TaskRecord:
    told = {
        "id": "t1",
        "status": "Failed",
        "priority": "Interactive",
        "caller": "ann",
        "input": "why?",
        "limits": "{}",
        "metadata": "{}",
        "submittedAt": "1000",
        "endedAt": "2000",
        "attempts": "1",
        **fields,
    }
    return TaskRecord.of(told)


@pytest.mark.holds(
    "front-ends.md", "A task that fails is an error with its reason, and an answer that was cut off says so"
)
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        pytest.param({"reason": "ModelFailed"}, HTTPStatus.INTERNAL_SERVER_ERROR, "failed", id="failed"),
        pytest.param({"reason": "Invalid"}, HTTPStatus.BAD_REQUEST, "failed", id="invalid"),
        pytest.param(
            {"reason": "Cancelled", "status": "Cancelled"}, HTTPStatus.CONFLICT, "cancelled", id="cancelled"
        ),
    ],
)
def test_a_task_without_an_answer_is_an_error(fields: dict[str, str], status: HTTPStatus, code: str) -> None:
    ended = Outcome(record=record(**fields, message="it was so"))
    with pytest.raises(ProblemError) as refused:
        chat_completion(ended, "support")
    assert (refused.value.status, refused.value.kind) == (status, fields["reason"])
    assert "it was so" in refused.value.detail
    assert response(ended, "support")["status"] == code


def test_callers_are_told_what_a_model_had_cached_only_where_it_isolates_tenants() -> None:
    shared, isolated = (Outcome(record=record(), cached_tokens=count) for count in (None, 7))
    assert "prompt_tokens_details" not in usage(shared)
    assert usage(isolated)["prompt_tokens_details"] == {"cached_tokens": 7}
    told = [response(one, "support")["usage"]["input_tokens_details"] for one in (shared, isolated)]
    assert [one["cached_tokens"] for one in told] == [0, 7]


@pytest.mark.holds(
    "front-ends.md", "A task that fails is an error with its reason, and an answer that was cut off says so"
)
def test_an_answer_that_was_cut_is_given_as_such() -> None:
    ended = Outcome(record=record(reason="MaxTokens", partial='{"answer": "It i"}'))
    [choice] = chat_completion(ended, "support")["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "It i")
    shown = response(ended, "support")
    assert (shown["status"], shown["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert shown["output"][0]["content"][0]["text"] == "It i"
