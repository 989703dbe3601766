"""Embeds texts with OpenAI's embeddings API, and tries again for a long time.

A build may be late, but it must be right. Errors that may be temporary (a refused connection, 429, 5xx) are
tried again with full jitter for up to `patience_seconds`. A 400 means that a text of the batch is refused, so
the batch is halved until that text is alone, and it is returned as `Refused`. No text is ever cut silently.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from flotilla_runtime.backoff import Backoff, Draw
from flotilla_runtime.contract import HEADER_PRIORITY, BuildReason, Embedder
from flotilla_runtime.contract.failure_texts import without
from flotilla_runtime.engine_errors import says_too_long
from flotilla_runtime.http_errors import said_of
from flotilla_runtime.indexing.errors import BuildError

Vector = list[float]

BACKOFF = Backoff(base_seconds=0.5, limit_seconds=20.0)
MAY_PASS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
REFUSED = frozenset({400, 413, 422})
UNAUTHORIZED = frozenset({401, 403})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The embedder refused this text, for the reason in `message`."""

    message: str
    too_long: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """For how long to try again; `sleep`, `draw` and `clock` are arguments so that tests need not wait."""

    patience_seconds: float = 600.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    draw: Draw = random.uniform
    clock: Callable[[], float] = time.monotonic


class EmbeddingClient:
    """A client of one embedder, through the router of its ModelReplicaSet."""

    def __init__(
        self,
        embedder: Embedder,
        http: httpx2.AsyncClient,
        *,
        key: str | None = None,
        patience: Patience | None = None,
        priority: str = "Batch",
    ) -> None:
        self.embedder = embedder
        self._http = http
        self._key = key
        self._headers = {HEADER_PRIORITY: priority} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._patience = patience or Patience()

    async def longest_input_tokens(self) -> int | None:
        """The longest text that the engine accepts, None when it does not say.

        Raises BuildError when the engine does not serve the model.
        """
        answer = await self._send("GET", "/models", None)
        models = answer.json().get("data", [])
        for model in models:
            if model.get("id") == self.embedder.model:
                longest = model.get("max_model_len")
                return int(longest) if longest else None
        names = ", ".join(str(model.get("id")) for model in models) or "none"
        raise BuildError(
            BuildReason.MODEL_UNKNOWN,
            f"spec.embedding.modelRef: {self.embedder.url} serves {names}, but not {self.embedder.model}",
        )

    async def embed(self, texts: Sequence[str]) -> list[Vector | Refused]:
        """A vector or a refusal for each text, in order."""
        if not texts:
            return []
        body = {"model": self.embedder.model, "input": list(texts), "encoding_format": "float"}
        answer = await self._send("POST", "/embeddings", body)
        if answer.status_code in REFUSED:
            if len(texts) == 1:
                return [Refused(message=self._said(answer), too_long=says_too_long(answer.text))]
            half = len(texts) // 2
            return [*await self.embed(texts[:half]), *await self.embed(texts[half:])]
        return [*self._vectors(answer.json(), len(texts))]

    def _vectors(self, answer: Any, expected: int) -> list[Vector]:
        data = sorted(answer["data"], key=lambda item: item["index"])
        if len(data) != expected:
            raise BuildError(
                BuildReason.EMBEDDER_UNREACHABLE,
                f"spec.embedding.modelRef: {self.embedder.url} returned {len(data)} vectors for {expected} "
                "texts",
            )
        vectors: list[Vector] = [item["embedding"] for item in data]
        for vector in vectors:
            if len(vector) != self.embedder.dimension:
                raise BuildError(
                    BuildReason.DIMENSION_MISMATCH,
                    f"spec.embedding.dimension is {self.embedder.dimension}, but the vectors of "
                    f"{self.embedder.model} have {len(vector)} numbers; set it to {len(vector)}",
                )
        return [normalized(vector) for vector in vectors] if self.embedder.normalize else vectors

    def _said(self, answer: httpx2.Response) -> str:
        """The embedder's words on a failure, without our key."""
        return without(_problem(answer), [self._key])

    async def _send(self, method: str, path: str, body: Any) -> httpx2.Response:
        started = self._patience.clock()
        failures = 0
        while True:
            answer, problem = await self._try(method, path, body)
            if answer is not None:
                return answer
            failures += 1
            wait_seconds = BACKOFF.seconds_after(failures, self._patience.draw)
            if self._patience.clock() - started + wait_seconds > self._patience.patience_seconds:
                raise BuildError(
                    BuildReason.EMBEDDER_UNREACHABLE,
                    f"spec.embedding.modelRef: {self.embedder.url} gave no answer within "
                    f"{self._patience.patience_seconds:.0f} s and {failures} attempts; the last: {problem}",
                )
            await self._patience.sleep(wait_seconds)

    async def _try(self, method: str, path: str, body: Any) -> tuple[httpx2.Response | None, str]:
        """The answer, or None and a problem that may be temporary."""
        try:
            answer = await self._http.request(
                method, self.embedder.url + path, json=body, headers=self._headers
            )
        except httpx2.TransportError as error:
            return None, said_of(error)
        if answer.status_code in MAY_PASS:
            return None, f"{answer.status_code} {self._said(answer)}"
        if answer.status_code in UNAUTHORIZED:
            raise BuildError(
                BuildReason.EMBEDDER_UNAUTHORIZED,
                f"spec.embedding.modelRef: {self.embedder.url} refused the key of this index "
                f"({answer.status_code}); check spec.router.authSecretRef of the ModelReplicaSet",
            )
        if answer.status_code == 404:
            raise BuildError(
                BuildReason.MODEL_UNKNOWN,
                f"spec.embedding.modelRef: {self.embedder.url}{path} does not serve {self.embedder.model} "
                f"({self._said(answer)}); check that the task of the model is Embed",
            )
        if answer.is_success or (answer.status_code in REFUSED and method == "POST"):
            return answer, ""
        return None, f"{answer.status_code} {self._said(answer)}"


def normalized(vector: Vector) -> Vector:
    """The vector scaled to length 1; a vector of length 0 is returned unchanged."""
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def similarity(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors of the same length."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    lengths = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
    return product / lengths if lengths else 0.0


def _problem(answer: httpx2.Response) -> str:
    """The message of an OpenAI error, or the beginning of any other answer."""
    try:
        body = answer.json()
        error = body.get("error", body)
        return str(error.get("message", error))[:500]
    except (ValueError, AttributeError):
        return answer.text[:200]
