"""The context of a model in an endpoint's list of models, and endpoints that mean harm."""

import json
from typing import Any

import httpx2
import pytest
import structlog

from flotilla_runtime.agent.worker.contexts import ContextLengths, context_in
from flotilla_runtime.contract import ModelConnection
from leaks.planted import planted

MODEL = ModelConnection(
    role="Default", name="gpt", url="https://models.example/v1/", model="gpt", asks_context=True
)


def listed(**entry: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "other", "max_model_len": 7000}, {"id": "gpt", **entry}]}


@pytest.mark.holds(
    "tasks.md",
    "A model's context is the fleet's, the engine's, the model's or the endpoint's, else 4,096 tokens",
)
@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        pytest.param(listed(max_model_len=32768), 32768, id="as vLLM says it"),
        pytest.param(listed(context_length=8192), 8192, id="as others do"),
        pytest.param(listed(context_window=16384), 16384, id="or others again"),
        pytest.param(listed(), None, id="as OpenAI, not at all"),
        pytest.param(listed(max_model_len="32768"), None, id="a text"),
        pytest.param(listed(max_model_len=True), None, id="no number"),
        pytest.param(listed(max_model_len=0), None, id="nothing"),
        pytest.param(listed(max_model_len=10**12), None, id="too much"),
        pytest.param({"data": []}, None, id="without the model"),
        pytest.param({"data": [3, None]}, None, id="entries that are none"),
        pytest.param([], None, id="a list"),
        pytest.param(None, None, id="null"),
    ],
)
def test_what_a_list_of_models_says(answer: Any, tokens: int | None) -> None:
    assert context_in(answer, "gpt") == tokens


HUSH = planted("hush")


class Endpoint:
    """Answers as a test says, and notes what it was asked."""

    def __init__(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        self.answer = httpx2.Response(status, content=body, headers=headers)
        self.asked: list[httpx2.Request] = []
        self.now = 0.0

    def lengths(self, key: str = HUSH) -> ContextLengths:
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(self._handle), follow_redirects=True)
        return ContextLengths(client, environment={"KEY": key}, monotonic_seconds=lambda: self.now)

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        stream = httpx2.ByteStream(self.answer.content)
        return httpx2.Response(self.answer.status_code, stream=stream, headers=self.answer.headers)


async def test_an_endpoint_is_asked_once_with_the_models_key() -> None:
    endpoint = Endpoint(body=json.dumps(listed(max_model_len=32768)).encode())
    lengths = endpoint.lengths()
    model = MODEL.model_copy(update={"key_environment": "KEY"})
    assert [await lengths.of(model) for _ in range(3)] == [32768] * 3
    (request,) = endpoint.asked
    assert str(request.url) == "https://models.example/v1/models"
    assert request.headers["Authorization"] == f"Bearer {HUSH}"


async def test_a_set_is_not_asked() -> None:
    endpoint = Endpoint()
    model = MODEL.model_copy(update={"asks_context": False, "context_tokens": 9000})
    assert await endpoint.lengths().of(model) == 9000
    assert endpoint.asked == []


@pytest.mark.holds("tasks.md", "An endpoint's list of models is asked with limits, and again after a minute")
@pytest.mark.parametrize(
    "endpoint",
    [
        pytest.param(Endpoint(status=500), id="an error"),
        pytest.param(Endpoint(body=b"<html>"), id="no JSON"),
        pytest.param(Endpoint(body=b"[" * 500_000), id="nested without end"),
        pytest.param(Endpoint(body=b" " * (2**20 + 1)), id="longer than 1 MiB"),
        pytest.param(Endpoint(status=307, Location="http://169.254.169.254/"), id="a redirect"),
    ],
)
async def test_an_endpoint_that_says_nothing_is_asked_again_after_a_minute(endpoint: Endpoint) -> None:
    lengths = endpoint.lengths()
    assert [await lengths.of(MODEL) for _ in range(2)] == [4096, 4096]
    assert {request.url.host for request in endpoint.asked} == {"models.example"}
    assert len(endpoint.asked) == 1
    endpoint.now = 61.0
    endpoint.answer = httpx2.Response(200, json=listed(max_model_len=20_000))
    assert await lengths.of(MODEL) == 20_000


@pytest.mark.holds("tools.md", "No message or log quotes a key that no header can have")
@pytest.mark.attack("A key that no header can have is quoted by an error")
async def test_a_key_that_no_header_can_have_is_in_no_log() -> None:
    endpoint = Endpoint()
    model = MODEL.model_copy(update={"key_environment": "KEY"})
    with structlog.testing.capture_logs() as logged:
        assert await endpoint.lengths(f"{HUSH}\u20ac").of(model) == 4096
    assert (len(logged), HUSH in str(logged), endpoint.asked) == (1, False, [])
