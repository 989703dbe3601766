"""Texts to vectors over OpenAI's embeddings path, patiently.

A build may be late but not wrong: what may pass (a refused connection, 429, 5xx) is tried again with full
jitter for as long as `patience_seconds` lasts; a 400 is the text's fault, so the batch is halved until the
text is alone and comes back as `Refused`. Nothing is ever cut silently.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from flotilla_runtime.contract import HEADER_PRIORITY, BuildReason, Embedder
from flotilla_runtime.indexing.errors import BuildError

Vector = list[float]

BACKOFF_BASE_SECONDS = 0.5
BACKOFF_LIMIT_SECONDS = 20.0
MAY_PASS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
REFUSED = frozenset({400, 413, 422})
UNAUTHORIZED = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The embedder will not take this text, and why."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to try; `sleep`, `jitter` and `clock` are arguments so that tests need no time."""

    patience_seconds: float = 600.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic


class EmbeddingClient:
    """One embedder, reached through its ModelReplicaSet's router."""

    def __init__(
        self,
        embedder: Embedder,
        http: httpx.AsyncClient,
        *,
        key: str | None = None,
        patience: Patience | None = None,
        priority: str = "Batch",
    ) -> None:
        self.embedder = embedder
        self._http = http
        self._headers = {HEADER_PRIORITY: priority} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._patience = patience or Patience()

    async def longest_input_tokens(self) -> int | None:
        """What the engine says it takes, None when it does not say; one without this model is an error."""
        answer = await self._send("GET", "/models", None)
        models = answer.json().get("data", [])
        for model in models:
            if model.get("id") == self.embedder.model:
                longest = model.get("max_model_len")
                return int(longest) if longest else None
        names = ", ".join(str(model.get("id")) for model in models) or "none"
        raise BuildError(
            BuildReason.MODEL_UNKNOWN,
            f"embedding.modelRef: {self.embedder.url} serves {names}, not {self.embedder.model}",
        )

    async def embed(self, texts: Sequence[str]) -> list[Vector | Refused]:
        """A vector, or a refusal, for each text, in order."""
        if not texts:
            return []
        body = {"model": self.embedder.model, "input": list(texts), "encoding_format": "float"}
        answer = await self._send("POST", "/embeddings", body)
        if answer.status_code in REFUSED:
            if len(texts) == 1:
                return [Refused(message=_problem(answer))]
            half = len(texts) // 2
            return [*await self.embed(texts[:half]), *await self.embed(texts[half:])]
        return [*self._vectors(answer.json(), len(texts))]

    def _vectors(self, answer: Any, expected: int) -> list[Vector]:
        data = sorted(answer["data"], key=lambda item: item["index"])
        if len(data) != expected:
            raise BuildError(
                BuildReason.EMBEDDER_UNREACHABLE, f"{len(data)} vectors came back for {expected} texts"
            )
        vectors: list[Vector] = [item["embedding"] for item in data]
        for vector in vectors:
            if len(vector) != self.embedder.dimension:
                raise BuildError(
                    BuildReason.DIMENSION_MISMATCH,
                    f"embedding.dimension is {self.embedder.dimension}, but {self.embedder.model} makes "
                    f"vectors of {len(vector)}; set it to {len(vector)}",
                )
        return [normalized(vector) for vector in vectors] if self.embedder.normalize else vectors

    async def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        started = self._patience.clock()
        attempt = 0
        while True:
            answer, problem = await self._try(method, path, body)
            if answer is not None:
                return answer
            limit = min(BACKOFF_LIMIT_SECONDS, BACKOFF_BASE_SECONDS * 2**attempt)
            wait_seconds = self._patience.jitter() * limit
            attempt += 1
            if self._patience.clock() - started + wait_seconds > self._patience.patience_seconds:
                raise BuildError(
                    BuildReason.EMBEDDER_UNREACHABLE,
                    f"embedding.modelRef: {self.embedder.url} gave no answer in "
                    f"{self._patience.patience_seconds:.0f} s and {attempt} attempts; the last: {problem}",
                )
            await self._patience.sleep(wait_seconds)

    async def _try(self, method: str, path: str, body: Any) -> tuple[httpx.Response | None, str]:
        """An answer that stands, or None and what may pass."""
        try:
            answer = await self._http.request(
                method, self.embedder.url + path, json=body, headers=self._headers
            )
        except httpx.TransportError as error:
            return None, repr(error)
        if answer.status_code in MAY_PASS:
            return None, f"{answer.status_code} {_problem(answer)}"
        if answer.status_code in UNAUTHORIZED:
            raise BuildError(
                BuildReason.EMBEDDER_UNAUTHORIZED,
                f"embedding.modelRef: {self.embedder.url} refused our key ({answer.status_code})",
            )
        if answer.status_code == 404:
            raise BuildError(
                BuildReason.MODEL_UNKNOWN,
                f"embedding.modelRef: {self.embedder.url}{path} does not serve {self.embedder.model} "
                f"({_problem(answer)}); is its task Embed?",
            )
        if answer.is_success or (answer.status_code in REFUSED and method == "POST"):
            return answer, ""
        return None, f"{answer.status_code} {_problem(answer)}"


def normalized(vector: Vector) -> Vector:
    """The vector at length 1; one of length 0 stays as it is."""
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def similarity(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors of the same length."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
    return product / lengths if lengths else 0.0


def _problem(answer: httpx.Response) -> str:
    """What an OpenAI error says, or the beginning of whatever came."""
    try:
        body = answer.json()
        error = body.get("error", body)
        return str(error.get("message", error))[:500]
    except (ValueError, AttributeError):
        return answer.text[:200]
