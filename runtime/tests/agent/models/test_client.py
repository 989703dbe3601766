"""Calls over real connections: which answers are tried again, and how calls end.

The server sends the bytes that a test gives it. The limits are in test_client_limits.py, tokens and schemas
in test_client_tokens.py, calls of the engine double in test_client_and_double.py.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from flotilla_runtime.agent.models import (
    FinishReason,
    ModelOutcome,
    ModelProblemReason,
    TextDelta,
    Timeouts,
    Usage,
    Withdrawn,
)
from leaks.planted import MARK, planted
from model_support.calls import ASK, KEY, QUICK, asked, client, endpoint
from model_support.raw_server import (
    END,
    FOR_EVER,
    STREAM,
    Part,
    chunk,
    event,
    plain,
    said,
    serving,
    whole,
)

Why = ModelProblemReason
Outcome = ModelOutcome
DONE = b"data: [DONE]\n\n"
BEGUN: list[Part] = [STREAM, chunk(event(said("Once ")))]
SHORT = Timeouts(first_token_seconds=0.2, between_tokens_seconds=0.2, total_seconds=30)
TOO_LONG = json.dumps({"error": {"message": "maximum context length is 9 tokens", "param": "input_tokens"}})


def until_given_up(reason: Why, seconds: float) -> Timeouts:
    """Time-outs of which only that passes soon which has this reason."""
    return Timeouts(
        first_token_seconds=seconds if reason is Why.NO_FIRST_TOKEN else 30,
        between_tokens_seconds=seconds if reason is Why.STALLED else 30,
        total_seconds=60,
    )


def broken(*parts: Part) -> list[Part]:
    """A stream that begins and then ends with the connection."""
    return [*BEGUN, *parts]


async def test_a_model_is_asked_with_session_priority_and_key_and_answers() -> None:
    async with serving(whole("Because.")) as server:
        reply, seen = await asked(server.url)
    assert (reply.outcome, reply.text, reply.tries) == (Outcome.SUCCEEDED, "Because.", 1)
    assert (reply.finish_reason, reply.problem) == (FinishReason.STOP, None)
    assert reply.usage == Usage(input_tokens=12, output_tokens=3)
    assert reply.first_token_ms is not None
    assert seen.events[0] == TextDelta(text="Because.")
    (heard,) = server.requests
    assert heard.path == "/v1/chat/completions"
    assert heard.headers["x-session-id"] == "task-1"
    assert heard.headers["x-flotilla-priority"] == "Batch"
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert heard.headers["accept-encoding"] == "identity"
    assert (heard.body["model"], heard.body["max_tokens"], heard.body["stream"]) == ("smol", 64, True)


async def test_a_text_that_is_no_unicode_is_sent_all_the_same() -> None:
    async with serving(whole("ok")) as server:
        reply, _ = await asked(server.url, replace(ASK, messages=({"role": "user", "content": "a\ud800b"},)))
    assert reply.outcome is Outcome.SUCCEEDED
    assert server.requests[0].body["messages"][0]["content"] == "a?b"


PASSES = [
    pytest.param([], Why.NO_CONNECTION, id="a connection that closes before an answer"),
    pytest.param(plain(429), Why.RATE_LIMITED, id="429"),
    pytest.param(plain(408), Why.UNAVAILABLE, id="408"),
    pytest.param(plain(409), Why.UNAVAILABLE, id="409"),
    pytest.param(plain(425), Why.UNAVAILABLE, id="425"),
    pytest.param(plain(500), Why.UNAVAILABLE, id="500"),
    pytest.param(plain(503), Why.UNAVAILABLE, id="503"),
    pytest.param(plain(504), Why.UNAVAILABLE, id="504"),
    pytest.param(broken(), Why.BROKEN_STREAM, id="a stream that breaks"),
    pytest.param(broken(chunk(event({"error": {"message": "x"}}))), Why.BROKEN_STREAM, id="an error in it"),
    pytest.param(broken(chunk(event(said("", "abort")))), Why.BROKEN_STREAM, id="an engine that gives up"),
    pytest.param(broken(END), Why.UNFINISHED_STREAM, id="a stream that ends too early"),
    pytest.param(broken(chunk(DONE), END), Why.UNFINISHED_STREAM, id="and says that it is done"),
    pytest.param([STREAM, FOR_EVER], Why.NO_FIRST_TOKEN, id="an engine that says nothing"),
    pytest.param(broken(FOR_EVER), Why.STALLED, id="an engine that stops in the middle"),
]
STAYS = [
    pytest.param(plain(400), Outcome.REFUSED, Why.REQUEST_REFUSED, id="400"),
    pytest.param(plain(404), Outcome.REFUSED, Why.REQUEST_REFUSED, id="a model of another name"),
    pytest.param(plain(401), Outcome.REFUSED, Why.UNAUTHORIZED, id="a wrong key"),
    pytest.param(plain(403), Outcome.REFUSED, Why.UNAUTHORIZED, id="a key without the right"),
    pytest.param(plain(400, TOO_LONG.encode()), Outcome.PROMPT_TOO_LONG, Why.PROMPT_TOO_LONG, id="too long"),
    pytest.param(
        broken(chunk(event(json.loads(TOO_LONG)))),
        Outcome.PROMPT_TOO_LONG,
        Why.PROMPT_TOO_LONG,
        id="too long, as is said in the stream",
    ),
    pytest.param(
        plain(307, Location="http://169.254.169.254/"), Outcome.REFUSED, Why.REDIRECTED, id="a redirect"
    ),
    pytest.param(plain(204), Outcome.FAILED, Why.NOT_A_COMPLETION, id="no content"),
    pytest.param(
        plain(200, b"{}", Content_Type="application/json"),
        Outcome.FAILED,
        Why.NOT_A_COMPLETION,
        id="an answer that is not streamed",
    ),
    pytest.param(
        plain(200, b"\x1f\x8b", Content_Type="text/event-stream", Content_Encoding="gzip"),
        Outcome.FAILED,
        Why.NOT_A_COMPLETION,
        id="a compressed answer",
    ),
    pytest.param(
        broken(chunk(b"data: <html>\n\n")), Outcome.FAILED, Why.NOT_A_COMPLETION, id="a page in the stream"
    ),
    pytest.param(
        [STREAM, chunk(event(said("", "content_filter"))), chunk(DONE), END],
        Outcome.REFUSED,
        Why.CONTENT_FILTERED,
        id="a content filter",
    ),
    pytest.param(
        [
            STREAM,
            chunk(event({"choices": [{"delta": {"refusal": "No."}}]})),
            chunk(event(said("", "stop"))),
            END,
        ],
        Outcome.REFUSED,
        Why.MODEL_REFUSED,
        id="a model that will not",
    ),
    pytest.param(
        [STREAM, *[chunk(b": " + b"x" * 65536 + b"\n\n")] * 30, FOR_EVER],
        Outcome.FAILED,
        Why.ANSWER_TOO_LARGE,
        id="a stream without end",
    ),
    pytest.param(
        [STREAM, chunk(b"data: "), *[chunk(b"x" * 2**20)] * 9, FOR_EVER],
        Outcome.FAILED,
        Why.ANSWER_TOO_LARGE,
        id="an event without end",
    ),
]


@pytest.mark.holds("decisions/0018-model-calls.md", "What may pass is tried again, what will not pass is not")
@pytest.mark.parametrize(("answer", "reason"), PASSES)
async def test_what_may_pass_is_tried_again_and_the_first_text_taken_back(
    answer: Sequence[Part], reason: Why
) -> None:
    async with serving(answer, answer, whole("Twice.")) as server:
        reply, seen = await asked(server.url, timeouts=until_given_up(reason, 5))
    assert (reply.outcome, reply.text, reply.tries) == (Outcome.SUCCEEDED, "Twice.", 3)
    has_begun = len(answer) > 1 and answer[1] == BEGUN[1]
    assert [event.problem.reason for event in seen.withdrawn if isinstance(event, Withdrawn)] == (
        [reason, reason] if has_begun else []
    )


@pytest.mark.parametrize(("answer", "reason"), PASSES)
async def test_what_does_not_pass_in_time_is_told_with_its_reason(
    answer: Sequence[Part], reason: Why
) -> None:
    async with serving(*[answer] * 3, whole("Too late.")) as server:
        reply, seen = await asked(server.url, timeouts=until_given_up(reason, 0.2))
    assert reply.problem is not None
    assert reply.problem.reason is reason
    assert (reply.tries, reply.text, seen.text) == (3, "", "")
    slow = reason in (Why.NO_FIRST_TOKEN, Why.STALLED)
    assert reply.outcome is (Outcome.TIMED_OUT if slow else Outcome.FAILED)
    assert "(3 tries)" in reply.problem.message


@pytest.mark.holds("decisions/0018-model-calls.md", "What may pass is tried again, what will not pass is not")
@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "What is read has limits; no redirect is followed; nothing compressed is read",
)
@pytest.mark.parametrize(("answer", "outcome", "reason"), STAYS)
async def test_what_will_not_pass_is_not_tried_again(
    answer: Sequence[Part], outcome: Outcome, reason: Why
) -> None:
    async with serving(answer, whole("Never asked.")) as server:
        reply, _ = await asked(server.url)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason, reply.tries) == (outcome, reason, 1)
    assert len(server.requests) == 1


async def test_no_connection_is_tried_again() -> None:
    async with serving() as server:
        url = server.url
    reply, _ = await asked(url)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.FAILED, Why.NO_CONNECTION)
    assert (reply.tries, reply.usage) == (3, Usage())


@pytest.mark.parametrize(
    ("url", "key", "reason"),
    [
        pytest.param("ftp://model/v1", KEY, Why.BAD_ENDPOINT, id="an address of another kind"),
        pytest.param("http://mo del:x/v1", KEY, Why.BAD_ENDPOINT, id="no address"),
        pytest.param("http://model/v1", "", Why.UNAUTHORIZED, id="no key"),
        pytest.param("http://model/v1", f"sk-\n{planted('key')}", Why.UNAUTHORIZED, id="a key of two lines"),
        pytest.param("http://model/v1", "schlüssel", Why.UNAUTHORIZED, id="a key that no header can have"),
    ],
)
async def test_what_cannot_be_asked_is_not_asked(url: str, key: str, reason: Why) -> None:
    async with client(key=key) as models:
        reply = await models.complete(endpoint(url), ASK)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.REFUSED, reason)
    assert reply.usage == Usage()
    assert not key or key not in reply.problem.message


async def test_a_schema_that_is_none_is_not_asked_for() -> None:
    reply, _ = await asked("http://nowhere/v1", replace(ASK, response_schema={"type": "text"}))
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason, reply.tries) == (Outcome.REFUSED, Why.BAD_SCHEMA, 0)


@pytest.mark.holds(
    "decisions/0018-model-calls.md", "A key that a server sends back does not get into a message"
)
async def test_a_server_that_sends_the_key_back_does_not_get_it_into_the_journal() -> None:
    echo = f"Incorrect API key: {KEY}".encode()
    for answer in (
        plain(401, echo),
        broken(chunk(event({"error": {"message": echo.decode()}}))),
        plain(200, echo),
    ):
        async with serving(answer) as server:
            reply, _ = await asked(server.url, retries=replace(QUICK, tries=1))
        assert reply.problem is not None
        assert KEY not in reply.problem.message
        assert "Incorrect API key: …" in reply.problem.message


@pytest.mark.parametrize("answer", [plain(400), plain(500), [STREAM, FOR_EVER], []])
async def test_a_password_in_the_address_does_not_get_into_the_journal(answer: Sequence[Part]) -> None:
    async with serving(answer) as server:
        url = server.url.replace("http://", f"http://user:{planted('user')}@")
        reply, _ = await asked(url, timeouts=SHORT, retries=replace(QUICK, tries=1))
    assert reply.problem is not None
    assert f"http://127.0.0.1:{server.port}/v1" in reply.problem.message
    assert MARK not in reply.problem.message


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "What is read has limits; no redirect is followed; nothing compressed is read",
)
async def test_a_redirect_takes_the_key_nowhere() -> None:
    async with serving(whole("Never asked.")) as target:
        moved = plain(308, Location=f"{target.url}/chat/completions")
        async with serving(moved) as server:
            await asked(server.url)
    assert target.requests == []


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "All tries and pauses share `timeouts.totalSeconds`; `Retry-After` is kept in full or the call ends",
)
@pytest.mark.parametrize("after", ["1", "Wed, 21 Oct 2015 07:28:01 GMT"])
async def test_a_server_is_asked_again_when_it_says(after: str) -> None:
    wall = 1_445_412_480.0  # 07:28:00
    answers = (plain(429, Retry_After=after), whole("Now."))
    async with serving(*answers) as server, client(wall=lambda: wall) as models:
        began = time.monotonic()
        reply = await models.complete(endpoint(server.url), ASK)
    assert reply.text == "Now."
    assert 1 <= time.monotonic() - began < 30


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "All tries and pauses share `timeouts.totalSeconds`; `Retry-After` is kept in full or the call ends",
)
async def test_a_wait_beyond_the_time_of_the_call_is_not_begun() -> None:
    async with serving(plain(429, Retry_After="3000"), whole("Never asked.")) as server:
        reply, _ = await asked(server.url)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.FAILED, Why.RATE_LIMITED)
