"""Bodies of any Content-Type at the task API, and its own failures; no server."""

from http import HTTPStatus

import pytest

from agent_support.task_apis import client_of
from flotilla_runtime.agent.tasks import Submission, SubmitOutcome
from flotilla_runtime.gateway.auth import Identity
from flotilla_runtime.gateway.requests import SubmitRequest

TASK = "01jd0000000000000000000000"


class Inputs:
    """Takes every submission, and keeps its input."""

    def __init__(self) -> None:
        self.submitted: list[str] = []

    async def submit(
        self, request: SubmitRequest, caller: Identity, tenant: str, traceparent: str | None
    ) -> Submission:
        self.submitted.append(request.input)
        return Submission(outcome=SubmitOutcome.CREATED, id=TASK)


class Broken:
    """Fails where nobody expects it."""

    async def submit(self, *_: object, **__: object) -> Submission:
        raise RuntimeError("no such thing")


@pytest.mark.holds("tasks.md", "A body is read as JSON whatever its `Content-Type`, so `curl -d` works")
@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("application/json", id="JSON"),
        pytest.param("application/x-www-form-urlencoded", id="what curl -d says"),
        pytest.param("text/plain", id="text"),
        pytest.param(None, id="none"),
    ],
)
async def test_the_body_is_json_whatever_its_content_type(content_type: str | None) -> None:
    service = Inputs()
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with client_of(service) as client:
        answer = await client.post("/v1/tasks", content=b'{"input": "why?"}', headers=headers)
    assert (answer.status_code, answer.json()) == (HTTPStatus.CREATED, {"id": TASK, "status": "Waiting"})
    assert service.submitted == ["why?"]


async def test_a_request_in_which_the_gateway_fails_is_not_to_be_sent_again() -> None:
    """OpenAI's clients repeat an answer of 500, and it may have made a task."""
    async with client_of(Broken(), answers_crashes=True) as client:
        answer = await client.post("/v1/tasks", json={"input": "why?"})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (500, "false")
    assert "no such thing" not in answer.text
