"""The embedding client under faults, on a transport that answers from a script."""

import json
from collections.abc import Callable, Sequence

import httpx2
import pytest

from flotilla_runtime.contract import BuildReason, Embedder
from flotilla_runtime.indexing.embedding import EmbeddingClient, Patience, Refused, normalized, similarity
from flotilla_runtime.indexing.errors import BuildError

EMBEDDER = Embedder(model_ref="m", url="http://e/v1", model="m", identity="m", dimension=2)


class Script:
    """Answers in turn, then well; waits cost no time and are counted."""

    def __init__(self, *statuses: int, refuse: Callable[[str], bool] = lambda text: False) -> None:
        self.statuses = list(statuses)
        self.refuse = refuse
        self.batches: list[Sequence[str]] = []
        self.waits: list[float] = []
        self.requests: list[httpx2.Request] = []
        self.now = 0.0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if self.statuses:
            status = self.statuses.pop(0)
            if status == 0:
                raise httpx2.ConnectError("refused")
            return httpx2.Response(status, json={"error": {"message": "scripted"}})
        texts = json.loads(request.content)["input"]
        self.batches.append(texts)
        if any(self.refuse(text) for text in texts):
            return httpx2.Response(400, json={"error": {"message": "too long"}})
        data = [{"index": index, "embedding": [3.0, 4.0]} for index in range(len(texts))]
        return httpx2.Response(200, json={"data": data[::-1]})

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def client(self, patience_seconds: float = 600, embedder: Embedder = EMBEDDER) -> EmbeddingClient:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self))
        patience = Patience(
            patience_seconds=patience_seconds, sleep=self.sleep, draw=max, clock=lambda: self.now
        )
        return EmbeddingClient(embedder, http, key="k", patience=patience)


@pytest.mark.holds("router.md", "Fleets send the priority of the task, index builds send Batch")
async def test_vectors_come_in_order_at_length_one_with_our_key_as_batch() -> None:
    script = Script()
    assert await script.client().embed(["a", "b"]) == [[0.6, 0.8], [0.6, 0.8]]
    assert script.requests[0].headers["Authorization"] == "Bearer k"
    assert script.requests[0].headers["X-Flotilla-Priority"] == "Batch"


async def test_what_may_pass_is_tried_again_with_growing_waits() -> None:
    script = Script(0, 503, 429, 500)
    await script.client().embed(["a"])
    assert script.waits == [0.5, 1.0, 2.0, 4.0]


async def test_patience_ends_and_says_what_was_last() -> None:
    script = Script(*[503] * 100)
    with pytest.raises(BuildError) as ended:
        await script.client(patience_seconds=30).embed(["a"])
    assert ended.value.reason is BuildReason.EMBEDDER_UNREACHABLE
    assert "503 scripted" in ended.value.message
    assert script.now <= 30


async def test_a_text_that_is_refused_is_found_among_its_batch() -> None:
    script = Script(refuse=lambda text: text == "bad")
    answers = await script.client().embed(["a", "b", "bad", "c"])
    assert [isinstance(answer, Refused) for answer in answers] == [False, False, True, False]
    assert answers[2] == Refused(message="too long", too_long=True)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        pytest.param(401, BuildReason.EMBEDDER_UNAUTHORIZED, id="our key is refused"),
        pytest.param(404, BuildReason.MODEL_UNKNOWN, id="another model is served"),
    ],
)
async def test_what_waits_for_a_person_is_not_tried_again(status: int, reason: BuildReason) -> None:
    script = Script(status)
    with pytest.raises(BuildError) as ended:
        await script.client().embed(["a"])
    assert ended.value.reason is reason
    assert ended.value.permanent
    assert script.waits == []


async def test_another_dimension_is_said_with_the_right_one() -> None:
    other = EMBEDDER.model_copy(update={"dimension": 384})
    with pytest.raises(BuildError, match="set it to 2"):
        await Script().client(embedder=other).embed(["a"])


async def test_no_text_is_no_request() -> None:
    script = Script()
    assert await script.client().embed([]) == []
    assert script.requests == []


def test_lengths_and_angles() -> None:
    assert normalized([3.0, 4.0]) == [0.6, 0.8]
    assert normalized([0.0, 0.0]) == [0.0, 0.0]
    assert similarity([1.0, 0.0], [2.0, 0.0]) == 1.0
    assert similarity([1.0, 0.0], [0.0, 0.0]) == 0.0
