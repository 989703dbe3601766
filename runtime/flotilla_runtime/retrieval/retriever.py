"""Answers a query with passages within the deadline, using only the model that made the index.

Each query is embedded together with the canary, a short text whose vector is in the generation's descriptor.
Both are in one request, so the same engine embeds them. When the canary's vector differs, another model
answers under the model's name, and the query is refused instead of answered with wrong passages.

A query that is longer than the model accepts is shortened to its beginning, so that an agent can send a whole
task as a query. The log says how much of it was used.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus

import httpx2
import structlog

from flotilla_runtime.contract import Embedder, Passage, RetrieveRequest, RetrieveResponse
from flotilla_runtime.indexing.embedding import EmbeddingClient, Patience, Refused, Vector, similarity
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.store import CANARY, Hit, Store
from flotilla_runtime.retrieval.generations import Generations, LiveGeneration
from flotilla_runtime.retrieval.problems import ProblemError

LOG = structlog.get_logger()
MOST_HALVINGS = 6  # enough to shorten the longest query to a length that every model accepts
CANARY_SIMILARITY = 0.98  # the same model on another machine, or in another precision, stays well above


class Retriever:
    """Answers the queries to one index."""

    def __init__(
        self,
        store: Store,
        generations: Generations,
        http: httpx2.AsyncClient,
        *,
        key: str | None = None,
        address_of: Callable[[Embedder], str | None] = lambda embedder: embedder.url,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._generations = generations
        self._http = http
        self._key = key
        self._address_of = address_of
        self._clock = clock

    async def retrieve(
        self, request: RetrieveRequest, *, top_k: int, deadline_seconds: float
    ) -> RetrieveResponse:
        """The passages nearest to the query; raises ProblemError when there is no answer in time."""
        started = self._clock()
        live = self._generations.live
        if live is None:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "no-generation",
                self._generations.problem or "no generation of the index is live yet",
            )
        try:
            async with asyncio.timeout(deadline_seconds):
                vector = await self._embed(live, request.query, deadline_seconds)
                hits = await self._search(live, vector, request.top_k or top_k, deadline_seconds)
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.GATEWAY_TIMEOUT,
                "deadline",
                f"no answer within {deadline_seconds * 1000:.0f} ms; try again, or raise "
                "spec.retriever.deadlineMilliseconds",
            ) from None
        return RetrieveResponse(
            passages=tuple(_passage(hit) for hit in hits),
            generation=live.descriptor.generation,
            took_milliseconds=round(1000 * (self._clock() - started), 1),
        )

    async def _embed(self, live: LiveGeneration, query: str, deadline_seconds: float) -> Vector:
        embedder = self._addressed(live.descriptor.embedder)
        try:
            vector, canary = await self._embed_what_fits(embedder, query, deadline_seconds)
        except BuildError as error:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "embedder", error.message) from None
        if isinstance(vector, Refused):
            raise ProblemError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "query-refused",
                f"the embedding model refuses the query: {vector.message}",
            )
        if isinstance(canary, Refused) or similarity(canary, live.descriptor.canary) < CANARY_SIMILARITY:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "wrong-model",
                f"{embedder.model} at {embedder.url} is not the model that made generation "
                f"{live.descriptor.generation} ({embedder.identity}); wait until a build with the new model "
                "is promoted",
            )
        return vector

    def _addressed(self, embedder: Embedder) -> Embedder:
        """The embedder at the address that the configuration has for it."""
        url = self._address_of(embedder)
        if url is None:
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "embedder",
                f"the live generation names the embedding model {embedder.model_ref!r} at an address that no "
                "ModelReplicaSet of this namespace has; build the index again",
            )
        return embedder.model_copy(update={"url": url})

    async def _embed_what_fits(
        self, embedder: Embedder, query: str, deadline_seconds: float
    ) -> tuple[Vector | Refused, Vector | Refused]:
        """The vectors of the query and of the canary. The query is halved while it is too long."""
        client, asked = self._client(embedder, deadline_seconds), query
        for _ in range(MOST_HALVINGS + 1):
            vector, canary = await client.embed([asked, CANARY])
            half = asked[: len(asked) // 2].rstrip()
            if not (isinstance(vector, Refused) and vector.too_long and half):
                break
            asked = half
        if len(asked) < len(query) and not isinstance(vector, Refused):
            LOG.warning("query_shortened", characters=len(query), embedded=len(asked))
        return vector, canary

    def _client(self, embedder: Embedder, deadline_seconds: float) -> EmbeddingClient:
        return EmbeddingClient(
            embedder,
            self._http,
            key=self._key,
            patience=Patience(patience_seconds=deadline_seconds),
            priority="Interactive",
        )

    async def _search(
        self, live: LiveGeneration, vector: Vector, limit: int, deadline_seconds: float
    ) -> list[Hit]:
        try:
            return await asyncio.to_thread(
                self._store.search, live.collection, vector, limit, deadline_seconds
            )
        except BuildError as error:
            await self._generations.refresh()
            current = self._generations.live
            if current is None or current.collection == live.collection:
                raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "milvus", error.message) from None
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "generation-gone",
                "another generation became live during the query; send it again",
            ) from None


def _passage(hit: Hit) -> Passage:
    fields = hit.fields
    return Passage(
        id=hit.id,
        document=fields["document"],
        title=fields["title"],
        heading=fields["heading"],
        anchor=fields["anchor"] or None,
        page=fields["page"] or None,
        text=fields["text"],
        score=hit.score,
    )
