"""Problems and their calls: whether another try may help, and how the call ends."""

import socket

import httpx2
import pytest

from flotilla_runtime.agent.models import ModelOutcome, ModelProblem, ModelProblemReason
from flotilla_runtime.agent.models.failures import Failure, of_error, outcome_of
from flotilla_runtime.http_errors import NO_URL, UNSENDABLE, said_of
from leaks.planted import planted

Why = ModelProblemReason
Outcome = ModelOutcome


@pytest.mark.parametrize(
    ("reason", "may_pass", "outcome"),
    [
        pytest.param(Why.NO_CONNECTION, True, Outcome.FAILED, id="nobody answers"),
        pytest.param(Why.RATE_LIMITED, True, Outcome.FAILED, id="too many requests"),
        pytest.param(Why.UNAVAILABLE, True, Outcome.FAILED, id="the server cannot now"),
        pytest.param(Why.BROKEN_STREAM, True, Outcome.FAILED, id="a replica dies"),
        pytest.param(Why.UNFINISHED_STREAM, True, Outcome.FAILED, id="an answer without an end"),
        pytest.param(Why.NO_FIRST_TOKEN, True, Outcome.TIMED_OUT, id="nothing comes"),
        pytest.param(Why.STALLED, True, Outcome.TIMED_OUT, id="nothing more comes"),
        pytest.param(Why.OUT_OF_TIME, False, Outcome.TIMED_OUT, id="the time of the call is over"),
        pytest.param(Why.ANSWER_TOO_LARGE, False, Outcome.FAILED, id="an answer without limits"),
        pytest.param(Why.NOT_A_COMPLETION, False, Outcome.FAILED, id="another kind of server"),
        pytest.param(Why.ALLOWANCE_SPENT, False, Outcome.FAILED, id="no tokens are left"),
        pytest.param(Why.PROMPT_TOO_LONG, False, Outcome.PROMPT_TOO_LONG, id="more than the context"),
        pytest.param(Why.REQUEST_REFUSED, False, Outcome.REFUSED, id="a bad request"),
        pytest.param(Why.UNAUTHORIZED, False, Outcome.REFUSED, id="a bad key"),
        pytest.param(Why.REDIRECTED, False, Outcome.REFUSED, id="another address"),
        pytest.param(Why.BAD_ENDPOINT, False, Outcome.REFUSED, id="no address"),
        pytest.param(Why.MODEL_REFUSED, False, Outcome.REFUSED, id="the model will not"),
        pytest.param(Why.CONTENT_FILTERED, False, Outcome.REFUSED, id="a filter"),
        pytest.param(Why.BAD_SCHEMA, False, Outcome.REFUSED, id="a bad schema"),
        pytest.param(Why.NOT_JSON, False, Outcome.FAILED, id="prose"),
        pytest.param(Why.NOT_AN_OBJECT, False, Outcome.FAILED, id="arguments that are a list"),
        pytest.param(Why.CUT_SHORT, False, Outcome.FAILED, id="half an object"),
        pytest.param(Why.SCHEMA_VIOLATED, False, Outcome.FAILED, id="a value that does not fit"),
    ],
)
def test_a_problem_ends_its_call_or_may_pass(reason: Why, may_pass: bool, outcome: Outcome) -> None:
    problem = ModelProblem(reason=reason, message="x")
    assert Failure(problem=problem, has_read_prompt=False).may_pass == may_pass
    assert outcome_of(problem) is outcome


def test_without_a_problem_a_call_succeeded() -> None:
    assert outcome_of(None) is Outcome.SUCCEEDED


SECRET = planted("sk")


def refused_by_the_client(**headers: str) -> Exception:
    """The error of the HTTP client for headers that it cannot send."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises((httpx2.LocalProtocolError, UnicodeEncodeError)) as raised:
            httpx2.get(url, headers=headers, trust_env=False)
    return raised.value


@pytest.mark.holds("tools.md", "No message or log quotes a key that no header can have")
@pytest.mark.attack("A key that no header can have is quoted by an error")
def test_no_message_quotes_a_header_or_an_address_with_a_password() -> None:
    wrong = httpx2.LocalProtocolError(f"Illegal header value b'Bearer {SECRET}\\n'")
    failure = of_error("http://m", wrong, has_begun=False)
    assert (failure.problem.reason, failure.has_read_prompt) == (Why.BAD_ENDPOINT, False)
    assert failure.problem.message == f"http://m: {UNSENDABLE}"
    bad = httpx2.InvalidURL(f"Invalid port: '{SECRET}@host'")
    assert of_error("http://m", bad, has_begun=False).problem.message == f"http://m: {NO_URL}"
    away = of_error("http://m", httpx2.ConnectError("refused"), has_begun=False)
    assert away.problem.message == "http://m: ConnectError"


@pytest.mark.attack("A key that no header can have is quoted by an error")
@pytest.mark.parametrize("value", [f"{SECRET}\nX: y", f"{SECRET}\u20ac"], ids=["two lines", "no ASCII"])
def test_what_the_client_says_of_a_bad_header_is_not_repeated(value: str) -> None:
    error = refused_by_the_client(Authorization=value)
    assert SECRET in repr(error)
    assert SECRET not in said_of(error)
