"""Calls that the cache answers: those of Pure tools, and searches.

What it answers is the result of a call like any other: it stands in the journal, with a mark, so a replay
does not depend on the cache. With a threshold, a search is also answered with what a similar one of the same
tenant found; to find it, its query is embedded, which costs what the embedding costs. Where the cache or the
embedder cannot be asked, the call is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.levers import cache
from flotilla_runtime.agent.levers.cache import Kept, Result, Similar, Vector
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.protocols import Call, Calls, Reconciled, Reply, SearchRequest, Session
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import CacheConfig, Effect

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """The vector of a query, and what it cost; no vector where none was to be had."""

    vector: Vector | None = None
    tokens: int = 0
    nano_usd: int | None = None


class Embedder(Protocol):
    """Embeds queries, with the model named `name`; never raises for the other side."""

    name: str

    def most(self, query: str) -> Amount:
        """The most that the embedding of a query can use."""

    async def embed(self, query: str, session: Session) -> Embedding:
        """The vector of a query, of the length 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look into the cache for a search; its names and embedding serve to keep what is found instead."""

    name: str
    embedding: Embedding = Embedding()
    similar_name: str = ""
    similar: tuple[Similar, ...] = ()
    found: Result | None = None


class CachedCalls:
    """Calls of one worker, of which the cache answers some."""

    def __init__(
        self,
        calls: Calls,
        kept: Kept,
        config: CacheConfig,
        *,
        revision: str,
        tools: Mapping[str, Tool],
        metrics: LeverMetrics,
        embedder: Embedder | None = None,
    ) -> None:
        self._calls = calls
        self._kept = kept
        self._config = config
        self._revision = revision
        self._tools = tools
        self._metrics = metrics
        self._embedder = embedder

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """Return the call cut to what is left, and the most that it can use.

        A search for whose embedding nothing is left is compared with no other.
        """
        if isinstance(call.request, SearchRequest) and self._embedder is not None:
            amount = self._embedder.most(call.request.query)
            if self._config.retrieval and budget.has_room(amount):
                return replace(call, request=replace(call.request, compares=True)), amount
        return await self._calls.reservation(call, session, budget)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """Find out whether an Unsafe call happened; None if nobody knows."""
        return await self._calls.reconcile(call, session)

    async def make(self, call: Call, session: Session) -> Reply:
        """Answer one call from the cache, or make it and keep what it gives."""
        match call.request:
            case SearchRequest() as request if self._config.retrieval:
                return await self._searched(call, request, session)
            case _ if call.kind is CallKind.TOOL and self._config.pure_tools and self._is_pure(call):
                return await self._used(call, session)
        return await self._calls.make(call, session)

    def _is_pure(self, call: Call) -> bool:
        """Whether the call is Pure, by its intent and by the tool of now."""
        tool = self._tools.get(call.target)
        return tool is not None and call.effect is Effect.PURE and tool.config.effect is Effect.PURE

    async def _used(self, call: Call, session: Session) -> Reply:
        name = cache.tool_name(session.tenant, self._revision, call.target, call.request)
        [text] = await self._kept.get(name)
        if (found := cache.read(text)) is not None:
            return self._hit(call, found, "Hit")
        reply = await self._calls.make(call, session)
        if reply.outcome is CallOutcome.SUCCEEDED:
            await self._keep(name, Result(value=reply.value), cache.TOOL_SECONDS)
        return self._missed(call, reply)

    def _index(self, call: Call) -> str:
        """The index of a search; another revision may mean another one by the same name."""
        return f"{self._revision}/{call.target}"

    async def _searched(self, call: Call, request: SearchRequest, session: Session) -> Reply:
        name = cache.search_name(session.tenant, self._index(call), request)
        generation, text = await self._kept.get(cache.generation_name(self._index(call)), name)
        found, look = cache.read(text), Look(name=name)
        if found is not None and found.generation == generation:
            return _costing(self._hit(call, found, "Hit"), request, look.embedding)
        if request.compares:
            look = await self._similar(call, request, session, look, generation)
        if look.found is not None:
            await self._keep(name, look.found, cache.SEARCH_SECONDS)  # asked again, it needs no embedding
            return _costing(self._hit(call, look.found, "SimilarHit"), request, look.embedding)
        reply = await self._calls.make(call, session)
        if reply.outcome is CallOutcome.SUCCEEDED and reply.generation is not None:
            await self._keep_search(call, reply, look)
        return _costing(self._missed(call, reply), request, look.embedding)

    async def _similar(
        self, call: Call, request: SearchRequest, session: Session, look: Look, generation: str | None
    ) -> Look:
        """A similar search whose result counts, if there is one."""
        threshold = self._config.semantic_threshold
        if threshold is None or self._embedder is None:
            return look
        look = replace(look, embedding=await self._embedder.embed(request.query, session))
        if (vector := look.embedding.vector) is None:
            return look
        group = cache.similar_name(session.tenant, self._index(call), request.top_k, self._embedder.name)
        [text] = await self._kept.get(group)
        look = replace(look, similar_name=group, similar=tuple(cache.read_similar(text)))
        nearest = cache.nearest(look.similar, vector, threshold)
        if nearest is None or generation is None:
            return look
        [kept] = await self._kept.get(nearest)
        found = cache.read(kept)
        return replace(look, found=found) if found is not None and found.generation == generation else look

    async def _keep_search(self, call: Call, reply: Reply, look: Look) -> None:
        assert reply.generation is not None
        await self._kept.put(
            cache.generation_name(self._index(call)), reply.generation, cache.GENERATION_SECONDS
        )
        await self._keep(
            look.name, Result(value=reply.value, generation=reply.generation), cache.SEARCH_SECONDS
        )
        if look.embedding.vector is not None:
            newest = Similar(name=look.name, vector=look.embedding.vector)
            text = cache.written_similar(look.similar, newest)
            await self._kept.put(look.similar_name, text, cache.SEARCH_SECONDS)

    async def _keep(self, name: str, result: Result, seconds: float) -> None:
        text = cache.written(result)
        if text is not None:
            await self._kept.put(name, text, seconds)

    def _hit(self, call: Call, found: Result, how: str) -> Reply:
        self._metrics.cache.labels(call.kind, how).inc()
        return Reply(
            outcome=CallOutcome.SUCCEEDED, value=found.value, generation=found.generation, cached=True
        )

    def _missed(self, call: Call, reply: Reply) -> Reply:
        self._metrics.cache.labels(call.kind, "Miss").inc()
        return replace(reply, cached=False)


def _costing(reply: Reply, request: SearchRequest, embedding: Embedding) -> Reply:
    """The reply with what the embedding cost: what was reserved for one that was not needed is free."""
    if not request.compares:
        return reply
    is_unpriced = embedding.tokens > 0 and embedding.nano_usd is None
    nano_usd = None if is_unpriced else (reply.nano_usd or 0) + (embedding.nano_usd or 0)
    return replace(reply, input_tokens=reply.input_tokens + embedding.tokens, nano_usd=nano_usd)
