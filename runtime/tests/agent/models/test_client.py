"""Calls over real connections: which answers are tried again, how they end, and that nothing is kept open.

The server sends the bytes that a test gives it. Calls of the engine double are in test_client_and_double.py.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flotilla_runtime.agent.models import (
    Endpoint,
    FinishReason,
    ModelOutcome,
    ModelProblemReason,
    TextDelta,
    Timeouts,
    Usage,
    Withdrawn,
)
from flotilla_runtime.agent.models.streaming import LEAST_STREAM_BYTES, STREAM_BYTES_PER_TOKEN
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Backoff
from model_support.calls import ASK, KEY, PATIENT, QUICK, Seen, asked, client, endpoint
from model_support.raw_server import (
    END,
    FOR_EVER,
    STREAM,
    Part,
    chunk,
    counted,
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
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


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


@pytest.mark.parametrize(("answer", "reason"), PASSES)
async def test_what_may_pass_is_tried_again_and_the_first_text_taken_back(
    answer: Sequence[Part], reason: Why
) -> None:
    async with serving(answer, answer, whole("Twice.")) as server:
        reply, seen = await asked(server.url, timeouts=SHORT)
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
        reply, seen = await asked(server.url, timeouts=SHORT)
    assert reply.problem is not None
    assert reply.problem.reason is reason
    assert (reply.tries, reply.text, seen.text) == (3, "", "")
    slow = reason in (Why.NO_FIRST_TOKEN, Why.STALLED)
    assert reply.outcome is (Outcome.TIMED_OUT if slow else Outcome.FAILED)
    assert "(3 tries)" in reply.problem.message


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
        pytest.param("http://model/v1", "sk-\n-key", Why.UNAUTHORIZED, id="a key of two lines"),
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


async def test_a_redirect_takes_the_key_nowhere() -> None:
    async with serving(whole("Never asked.")) as target:
        moved = plain(308, Location=f"{target.url}/chat/completions")
        async with serving(moved) as server:
            await asked(server.url)
    assert target.requests == []


@pytest.mark.parametrize("after", ["1", "Wed, 21 Oct 2015 07:28:01 GMT"])
async def test_a_server_is_asked_again_when_it_says(after: str) -> None:
    wall = 1_445_412_480.0  # 07:28:00
    patient = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=5))
    answers = (plain(429, Retry_After=after), whole("Now."))
    async with serving(*answers) as server, client(patient, wall=lambda: wall) as models:
        began = time.monotonic()
        reply = await models.complete(endpoint(server.url), ASK)
    assert reply.text == "Now."
    assert 1 <= time.monotonic() - began < 30


async def test_a_wait_beyond_the_time_of_the_call_is_not_begun() -> None:
    patient = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=3600))
    async with serving(plain(429, Retry_After="3000"), whole("Never asked.")) as server:
        reply, _ = await asked(server.url, retries=patient)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.FAILED, Why.RATE_LIMITED)


async def test_comments_and_empty_chunks_put_no_time_off() -> None:
    alive: list[Part] = []
    for _ in range(100):
        alive += [0.05, chunk(b": alive\n\n" + event(said("")))]
    silent: list[Part] = [STREAM]
    for start, reason in ((silent, Why.NO_FIRST_TOKEN), (BEGUN, Why.STALLED)):
        async with serving([*start, *alive]) as server:
            reply, _ = await asked(server.url, timeouts=SHORT, retries=replace(QUICK, tries=1))
        assert reply.problem is not None
        assert (reply.outcome, reply.problem.reason) == (Outcome.TIMED_OUT, reason)


async def test_an_answer_that_is_never_done_ends_with_the_time_of_the_call_and_is_not_begun_again() -> None:
    slowly: list[Part] = [*BEGUN]
    for _ in range(200):
        slowly += [0.05, chunk(event(said("and ")))]
    brief = replace(PATIENT, total_seconds=0.5)
    async with serving(slowly, whole("Never asked.")) as server:
        reply, seen = await asked(server.url, timeouts=brief)
        await asyncio.wait_for(server.caller_left.wait(), 30)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.TIMED_OUT, Why.OUT_OF_TIME)
    assert "timeouts.totalSeconds (0.5 s)" in reply.problem.message
    assert (reply.tries, seen.text, len(seen.withdrawn)) == (1, "", 1)


async def test_all_tries_and_pauses_share_the_time_of_the_call() -> None:
    brief = Timeouts(first_token_seconds=0.4, between_tokens_seconds=9, total_seconds=1)
    many = RetryPolicy(tries=99, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
    silent: list[Part] = [STREAM, FOR_EVER]
    async with serving(*[silent] * 9) as server:
        began = time.monotonic()
        reply, _ = await asked(server.url, timeouts=brief, retries=many)
    assert reply.outcome is Outcome.TIMED_OUT
    assert 0.9 < time.monotonic() - began < 20
    assert 2 <= reply.tries <= 3


async def test_an_error_without_end_is_read_no_further() -> None:
    endless: list[Part] = [b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n"]
    endless += [chunk(b"x" * 65536)] * 4
    async with serving([*endless, FOR_EVER]) as server:
        reply, _ = await asked(server.url)
        await asyncio.wait_for(server.caller_left.wait(), 30)
    assert reply.problem is not None
    assert reply.problem.reason is Why.REQUEST_REFUSED
    assert len(reply.problem.message) < 500


async def test_a_long_answer_may_be_as_long_as_its_limit_of_tokens() -> None:
    """The limit on bytes leaves room for what each token brings along."""
    one = event({**said("word"), "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "pad": "x" * 3000})
    many = LEAST_STREAM_BYTES // len(one) + ASK.max_tokens
    assert many * len(one) > STREAM_BYTES_PER_TOKEN * ASK.max_tokens
    ending = chunk(event(said("", "stop")) + DONE)
    async with serving([STREAM, *[chunk(one)] * many, ending, END]) as server:
        reply, _ = await asked(server.url)
    assert reply.text == "word" * many


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([STREAM, FOR_EVER], id="before the first token"),
        pytest.param([*BEGUN, FOR_EVER], id="in the middle"),
        pytest.param([FOR_EVER], id="before the answer"),
    ],
)
async def test_a_cancelled_call_closes_its_connection_at_once(answer: Sequence[Part]) -> None:
    async with serving(answer) as server, client() as models:
        making = asyncio.create_task(models.complete(endpoint(server.url), ASK))
        async with asyncio.timeout(30):
            while not server.requests:  # noqa: ASYNC110 - it is in the server
                await asyncio.sleep(0.01)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        await asyncio.wait_for(server.caller_left.wait(), 5)


async def test_a_connection_is_used_again_after_a_good_answer() -> None:
    async with serving(whole("One."), whole("Two.")) as server, client() as models:
        for text in ("One.", "Two."):
            assert (await models.complete(endpoint(server.url), ASK)).text == text
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param([], id="the connection breaks"),
        pytest.param([END], id="without counts"),
        pytest.param([chunk(event({"error": {"message": "x"}})), END], id="with an error behind it"),
        pytest.param([chunk(b"data: nonsense\n\n"), END], id="with nonsense behind it"),
        pytest.param([chunk(DONE), FOR_EVER], id="the connection stays open"),
    ],
)
async def test_an_answer_that_has_ended_counts_whatever_comes_behind_it(ending: list[Part]) -> None:
    async with serving([*BEGUN, chunk(event(said("more.", "stop"))), *ending]) as server:
        reply, _ = await asked(server.url)
    assert (reply.outcome, reply.text, reply.tries) == (Outcome.SUCCEEDED, "Once more.", 1)
    assert reply.usage == Usage(input_tokens=10, output_tokens=len("Once more."), is_measured=False)


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        pytest.param(plain(429), Usage(), id="a refusal before the prompt was read"),
        pytest.param(plain(503), Usage(), id="a router without a replica"),
        pytest.param(plain(500), Usage(input_tokens=10, is_measured=False), id="an engine that failed"),
        pytest.param([], Usage(input_tokens=10, is_measured=False), id="a connection that was lost"),
        pytest.param(
            broken(), Usage(input_tokens=10, output_tokens=5, is_measured=False), id="a broken stream"
        ),
        pytest.param(
            [STREAM, chunk(event({**said("Once "), "usage": counted(9, 2)["usage"]}))],
            Usage(input_tokens=9, output_tokens=2),
            id="a broken stream that counted along",
        ),
    ],
)
async def test_the_tokens_of_a_try_that_failed_count(answer: Sequence[Part], used: Usage) -> None:
    async with serving(answer, whole("Because.")) as server:
        reply, _ = await asked(server.url)
    assert reply.usage == used + Usage(input_tokens=12, output_tokens=3)


async def test_no_try_goes_beyond_the_allowance() -> None:
    request = replace(ASK, prompt_tokens=10, max_tokens=64, allowance_tokens=74)
    async with serving(*[broken()] * 4, whole("Never asked.")) as server:
        reply, _ = await asked(server.url, request, retries=replace(QUICK, tries=9))
    # Each dead try may have cost its prompt of 10 tokens and the 5 bytes that it wrote.
    assert [heard.body["max_tokens"] for heard in server.requests] == [64, 49, 34, 19]
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.FAILED, Why.ALLOWANCE_SPENT)
    assert reply.usage.tokens <= 74


async def test_a_call_whose_allowance_is_spent_says_after_what() -> None:
    request = replace(ASK, prompt_tokens=10, max_tokens=20, allowance_tokens=40)
    async with serving(broken(), whole("Never asked.")) as server:
        reply, _ = await asked(server.url, request)
    assert reply.problem is not None
    assert reply.problem.reason is Why.ALLOWANCE_SPENT
    assert "RemoteProtocolError" in reply.problem.message
    assert reply.tries == 1


async def test_an_answer_that_was_cut_off_is_told() -> None:
    answer = [STREAM, chunk(event(said("{", "length")) + event(counted(12, 1)) + DONE), END]
    async with serving(answer) as server:
        reply, _ = await asked(server.url, replace(ASK, response_schema=CITY))
    assert (reply.outcome, reply.finish_reason) == (Outcome.SUCCEEDED, FinishReason.LENGTH)
    assert (reply.text, reply.value, reply.tries) == ("{", None, 1)


async def test_a_structured_answer_has_a_value() -> None:
    async with serving(whole('{"city": "Oslo"}')) as server:
        reply, _ = await asked(server.url, replace(ASK, response_schema=CITY))
    assert (reply.outcome, reply.value) == (Outcome.SUCCEEDED, {"city": "Oslo"})


async def test_an_answer_that_does_not_fit_is_corrected_once_and_both_are_paid_for() -> None:
    async with serving(whole("Oslo!"), whole('{"city": "Oslo"}', 40, 5)) as server:
        reply, seen = await asked(server.url, replace(ASK, response_schema=CITY))
    assert (reply.outcome, reply.value, reply.tries) == (Outcome.SUCCEEDED, {"city": "Oslo"}, 2)
    assert reply.usage == Usage(input_tokens=52, output_tokens=8)
    (taken_back,) = seen.withdrawn
    assert isinstance(taken_back, Withdrawn)
    assert taken_back.problem.reason is Why.NOT_JSON
    first, answer, correction = server.requests[1].body["messages"]
    assert (first, answer) == (ASK.messages[0], {"role": "assistant", "content": "Oslo!"})
    assert correction["role"] == "user"
    assert taken_back.problem.message in correction["content"]


@pytest.mark.parametrize(
    ("second", "reason", "tries"),
    [
        pytest.param([whole('{"city": 1}')], Why.SCHEMA_VIOLATED, 2, id="the correction does not fit"),
        pytest.param([plain(400)], Why.NOT_JSON, 2, id="the correction is refused"),
        pytest.param([broken()] * 3, Why.NOT_JSON, 4, id="the correction never comes"),
    ],
)
async def test_there_is_one_correction(second: list[list[Part]], reason: Why, tries: int) -> None:
    async with serving(whole("Oslo!"), *second, whole('{"city": "Oslo"}')) as server:
        reply, _ = await asked(server.url, replace(ASK, response_schema=CITY))
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason, reply.tries) == (Outcome.FAILED, reason, tries)
    assert reply.value is None


async def test_a_correction_that_the_allowance_does_not_cover_is_not_asked_for() -> None:
    request = replace(ASK, response_schema=CITY, allowance_tokens=200)
    async with serving(whole("Oslo!"), whole('{"city": "Oslo"}')) as server:
        reply, seen = await asked(server.url, request)
    assert reply.problem is not None
    assert (reply.problem.reason, reply.text, reply.tries) == (Why.NOT_JSON, "Oslo!", 1)
    assert seen.withdrawn == []


async def test_vllm_counts_a_prompt() -> None:
    counted_prompt = plain(200, b'{"count": 31, "max_model_len": 4096, "tokens": [1]}')
    async with serving(counted_prompt) as server, client() as models:
        prompt = await models.count_prompt(endpoint(server.url), ASK)
    assert (prompt.tokens, prompt.is_measured) == (31, True)
    (heard,) = server.requests
    assert heard.path == "/tokenize"
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert heard.headers["x-session-id"] == "task-1"
    assert heard.body == {"model": "smol", "messages": list(ASK.messages)}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([], id="no answer"),
        pytest.param(plain(404), id="no such path"),
        pytest.param(plain(307, Location="http://169.254.169.254/"), id="a redirect"),
        pytest.param(plain(200, b"[]"), id="a list"),
        pytest.param(plain(200, b'{"count": -1}'), id="a number that cannot be"),
        pytest.param(plain(200, b'{"count": "7"}'), id="a text"),
        pytest.param([FOR_EVER], id="no answer in time"),
    ],
)
async def test_without_a_count_the_bound_holds(answer: Sequence[Part]) -> None:
    async with serving(answer) as server, client() as models:
        prompt = await models.count_prompt(endpoint(server.url), replace(ASK, prompt_tokens=None))
    assert not prompt.is_measured
    assert prompt.tokens > len("why?") + 32


async def test_only_vllm_is_asked_for_a_count() -> None:
    other = Endpoint(url="http://nowhere/v1", model="gpt", is_vllm=False)
    async with client() as models:
        assert not (await models.count_prompt(other, ASK)).is_measured


async def test_an_error_of_the_caller_is_the_callers() -> None:
    """What `on_event` raises is neither swallowed nor taken for a time-out of the model."""

    def wrong(_event: object) -> None:
        raise TimeoutError("the caller's own")

    async with serving(whole("Because.")) as server, client() as models:
        with pytest.raises(TimeoutError, match="own"):
            await models.complete(endpoint(server.url), ASK, wrong)


async def test_two_calls_at_once_keep_apart() -> None:
    answers = [
        [
            STREAM,
            *[part for word in range(20) for part in (chunk(event(said(f"{n}"))), 0.001)],
            chunk(event(said("", "stop"))),
            END,
        ]
        for n in (1, 2)
    ]
    async with serving(*answers) as server, client() as models:
        seen = [Seen(), Seen()]
        replies = await asyncio.gather(
            *(models.complete(endpoint(server.url), ASK, one.take) for one in seen)
        )
    assert sorted(reply.text for reply in replies) == ["1" * 20, "2" * 20]
    assert [one.text for one in seen] == [reply.text for reply in replies]
