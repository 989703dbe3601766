"""The limits of a call over real connections: its times and bytes, and that nothing is kept open."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from flotilla_runtime.agent.models import (
    ModelOutcome,
    ModelProblemReason,
    Timeouts,
)
from flotilla_runtime.agent.models.streaming import LEAST_STREAM_BYTES, STREAM_BYTES_PER_TOKEN
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Backoff
from model_support.calls import ASK, PATIENT, QUICK, Seen, asked, client, endpoint
from model_support.raw_server import (
    END,
    FOR_EVER,
    STREAM,
    Part,
    chunk,
    event,
    said,
    serving,
    whole,
)

Why = ModelProblemReason
Outcome = ModelOutcome
DONE = b"data: [DONE]\n\n"
BEGUN: list[Part] = [STREAM, chunk(event(said("Once ")))]
SHORT = Timeouts(first_token_seconds=0.2, between_tokens_seconds=0.2, total_seconds=30)


@pytest.mark.holds(
    "decisions/0018-model-calls.md", "Only what the model writes puts `betweenTokensSeconds` off"
)
async def test_comments_and_empty_chunks_put_no_time_off() -> None:
    alive: list[Part] = []
    for _ in range(100):
        alive += [0.05, chunk(b": alive\n\n" + event(said("")))]
    silent: list[Part] = [STREAM]
    for start, reason in ((silent, Why.NO_FIRST_TOKEN), (BEGUN, Why.STALLED)):
        async with serving([*start, *alive]) as server:
            first = SHORT.first_token_seconds if reason is Why.NO_FIRST_TOKEN else 30
            limits = replace(SHORT, first_token_seconds=first)
            reply, _ = await asked(server.url, timeouts=limits, retries=replace(QUICK, tries=1))
        assert reply.problem is not None
        assert (reply.outcome, reply.problem.reason) == (Outcome.TIMED_OUT, reason)


async def test_an_answer_that_is_never_done_ends_with_the_time_of_the_call_and_is_not_begun_again() -> None:
    slowly: list[Part] = [*BEGUN]
    for _ in range(200):
        slowly += [0.05, chunk(event(said("and ")))]
    brief = replace(PATIENT, total_seconds=5)
    async with serving(slowly, whole("Never asked.")) as server:
        reply, seen = await asked(server.url, timeouts=brief)
        await asyncio.wait_for(server.caller_left.wait(), 30)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.TIMED_OUT, Why.OUT_OF_TIME)
    assert "timeouts.totalSeconds (5 s)" in reply.problem.message
    assert (reply.tries, seen.text, len(seen.withdrawn)) == (1, "", 1)


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "All tries and pauses share `timeouts.totalSeconds`; `Retry-After` is kept in full or the call ends",
)
async def test_all_tries_and_pauses_share_the_time_of_the_call() -> None:
    brief = Timeouts(first_token_seconds=2, between_tokens_seconds=9, total_seconds=5)
    many = RetryPolicy(tries=99, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
    silent: list[Part] = [STREAM, FOR_EVER]
    async with serving(*[silent] * 9) as server:
        began = time.monotonic()
        reply, _ = await asked(server.url, timeouts=brief, retries=many)
    assert reply.outcome is Outcome.TIMED_OUT
    assert 4.9 < time.monotonic() - began < 60
    assert 2 <= reply.tries <= 3


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "What is read has limits; no redirect is followed; nothing compressed is read",
)
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


@pytest.mark.holds("decisions/0018-model-calls.md", "Cancelling a call closes its connection")
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


async def test_an_error_of_the_caller_is_the_callers() -> None:
    """An error of `on_event` is neither swallowed nor taken for a time-out of the model."""

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
