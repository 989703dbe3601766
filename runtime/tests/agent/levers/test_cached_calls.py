"""Calls that the cache answers: which, for whom, for how long, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry

from agent_support.running import PASSAGE, ScriptedCalls, failed, found, tool_of
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.levers import cache
from flotilla_runtime.agent.levers.cached_calls import CachedCalls, Embedding
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.protocols import Call, Reply, SearchRequest, Session
from flotilla_runtime.contract import CacheConfig, Effect, Priority

ANN = Session(task_id="t1", tenant="ann", priority=Priority.INTERACTIVE)
BOB = Session(task_id="t2", tenant="bob", priority=Priority.INTERACTIVE)
PURE = Call(id="a", kind=CallKind.TOOL, target="weather", request={"city": "Faro"}, key="k")
UNSAFE = Call(id="b", kind=CallKind.TOOL, target="pay", request={}, key="k", effect=Effect.UNSAFE)
LOOK = Call(id="c", kind=CallKind.RETRIEVE, target="manual", request=SearchRequest(query="why?"), key="k")
TOOLS = {
    "weather": tool_of("weather", Effect.PURE),
    "pay": tool_of("pay", Effect.UNSAFE),
    "mail": tool_of("mail", Effect.IDEMPOTENT),
}
EAST, ALMOST, NORTH = [1.0, 0.0], [0.999, 0.0447], [0.0, 1.0]
VECTORS = {"why?": EAST, "why so?": ALMOST, "who?": NORTH}
PLENTY = Budget(used=Amount(), reserved=Amount(), most_steps=9, most_tokens=1000, most_nano_usd=None)


@dataclass(slots=True)
class MemoryKept:
    """A cache in memory, which may be away."""

    texts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    is_away: bool = False

    async def get(self, *names: str) -> list[str | None]:
        return [None if self.is_away else self.texts.get(name) for name in names]

    async def put(self, name: str, text: str, seconds: float) -> None:
        if not self.is_away:
            self.texts[name], self.seconds[name] = text, seconds


@dataclass(slots=True)
class Vectors:
    """Embeds by a table; five tokens a query, at ten billionths each."""

    name: str = "embedder"
    vectors: Mapping[str, list[float]] = field(default_factory=lambda: VECTORS)
    asked: list[str] = field(default_factory=list)

    def most(self, query: str) -> Amount:
        return Amount(tokens=8, nano_usd=80)

    async def embed(self, query: str, session: Session) -> Embedding:
        self.asked.append(query)
        vector = self.vectors.get(query)
        return Embedding() if vector is None else Embedding(vector=vector, tokens=5, nano_usd=50)


@dataclass(slots=True)
class Site:
    made: ScriptedCalls
    kept: MemoryKept
    embedder: Vectors
    registry: CollectorRegistry
    calls: CachedCalls

    def looks(self, kind: str, outcome: str) -> float | None:
        labels = {"kind": kind, "outcome": outcome}
        return self.registry.get_sample_value("flotilla_worker_cache_total", labels)

    async def search(self, query: str, session: Session = ANN, budget: Budget = PLENTY) -> Reply:
        asked = replace(LOOK, request=SearchRequest(query=query))
        call, _ = await self.calls.reservation(asked, session, budget)
        return await self.calls.make(call, session)


def site(config: CacheConfig | None = None, replies: list[Reply] | None = None) -> Site:
    left = list(replies or [])
    made = ScriptedCalls(lambda call: left.pop(0) if left else _usual(call))
    kept, embedder, registry = MemoryKept(), Vectors(), CollectorRegistry()
    calls = CachedCalls(
        made,
        kept,
        config or CacheConfig(),
        revision="r1",
        tools=TOOLS,
        metrics=LeverMetrics(registry),
        embedder=embedder if config is not None and config.semantic_threshold is not None else None,
    )
    return Site(made=made, kept=kept, embedder=embedder, registry=registry, calls=calls)


def _usual(call: Call) -> Reply:
    if call.kind is CallKind.RETRIEVE:
        return found(PASSAGE)
    return Reply(outcome=CallOutcome.SUCCEEDED, value="sun", tries=2)


@pytest.mark.holds(
    "agents.md",
    "Searches and Pure tools are answered from the cache for the same tenant, and only while it holds",
)
async def test_a_pure_tool_is_called_once_for_a_tenant() -> None:
    one = site()
    first, again, other = [await one.calls.make(PURE, session) for session in (ANN, ANN, BOB)]
    assert [reply.cached for reply in (first, again, other)] == [False, True, False]
    assert (first.value, again.value) == ("sun", "sun")
    assert len(one.made.made) == 2
    assert (one.looks("Tool", "Hit"), one.looks("Tool", "Miss")) == (1, 2)
    assert set(one.kept.seconds.values()) == {cache.TOOL_SECONDS}


@pytest.mark.holds(
    "agents.md", "No tenant is answered from the cache with what another one found, similar or equal"
)
@pytest.mark.attack("A task is answered from the cache with what another tenant's task found")
async def test_what_one_tenant_found_is_never_shown_to_another() -> None:
    one = site(CacheConfig(semantic_threshold=0.5))
    for query in ("why?", "why so?"):
        await one.search(query, ANN)
    before = len(one.made.made)
    replies = [await one.search(query, BOB) for query in ("why?",)] + [await one.calls.make(PURE, BOB)]
    assert [reply.cached for reply in replies] == [False, False]
    assert len(one.made.made) == before + 2


@pytest.mark.holds(
    "agents.md",
    "Searches and Pure tools are answered from the cache for the same tenant, and only while it holds",
)
@pytest.mark.parametrize("call", [UNSAFE, replace(UNSAFE, target="mail", effect=Effect.IDEMPOTENT)])
async def test_a_tool_that_changes_something_is_always_called(call: Call) -> None:
    one = site()
    replies = [await one.calls.make(call, ANN) for _ in range(2)]
    assert [reply.cached for reply in replies] == [None, None]
    assert (len(one.made.made), one.kept.texts) == (2, {})


async def test_a_tool_that_was_unsafe_when_the_call_began_is_called() -> None:
    one = site()
    await one.calls.make(PURE, ANN)
    assert (await one.calls.make(replace(PURE, effect=Effect.UNSAFE), ANN)).cached is None


@pytest.mark.holds(
    "agents.md",
    "Searches and Pure tools are answered from the cache for the same tenant, and only while it holds",
)
async def test_failures_are_not_kept() -> None:
    one = site(replies=[failed("503")])
    assert (await one.calls.make(PURE, ANN)).outcome is CallOutcome.FAILED
    assert (await one.calls.make(PURE, ANN)).value == "sun"


@pytest.mark.holds(
    "agents.md",
    "Searches and Pure tools are answered from the cache for the same tenant, and only while it holds",
)
@pytest.mark.parametrize(
    ("config", "call"),
    [
        pytest.param(CacheConfig(pure_tools=False), PURE, id="tools"),
        pytest.param(CacheConfig(retrieval=False), LOOK, id="searches"),
    ],
)
async def test_what_is_switched_off_is_made(config: CacheConfig, call: Call) -> None:
    one = site(config)
    assert [(await one.calls.make(call, ANN)).cached for _ in range(2)] == [None, None]


@pytest.mark.holds(
    "agents.md",
    "Searches and Pure tools are answered from the cache for the same tenant, and only while it holds",
)
async def test_a_search_counts_as_long_as_its_generation_is_served() -> None:
    one = site(replies=[found(PASSAGE), found({**PASSAGE, "text": "New."}, generation="g-2")])
    assert [(await one.search("why?")).cached for _ in range(2)] == [False, True]
    assert (await one.search("who?")).generation == "g-2", "another search sees the new generation"
    assert (await one.search("why?")).cached is False
    assert one.kept.seconds[cache.generation_name("r1/manual")] == cache.GENERATION_SECONDS
    del one.kept.texts[cache.generation_name("r1/manual")]
    assert (await one.search("why?")).cached is False, "after a minute the index is asked"


@pytest.mark.holds(
    "agents.md", "With `semanticThreshold` a similar search answers; its embedding is a part of the budget"
)
async def test_a_similar_search_of_the_same_tenant_answers() -> None:
    one = site(CacheConfig(semantic_threshold=0.99))
    first, similar, other = [await one.search(query) for query in ("why?", "why so?", "who?")]
    assert [reply.cached for reply in (first, similar, other)] == [False, True, False]
    assert similar.value == first.value
    assert (similar.input_tokens, similar.nano_usd) == (5, 50)
    again = await one.search("why so?")
    assert (again.cached, again.input_tokens, again.nano_usd) == (True, 0, 0), (
        "equal now: nothing is embedded"
    )
    assert one.embedder.asked == ["why?", "why so?", "who?"]
    assert one.looks("Retrieve", "SimilarHit") == 1


@pytest.mark.holds(
    "agents.md", "With `semanticThreshold` a similar search answers; its embedding is a part of the budget"
)
async def test_a_similar_search_of_an_older_generation_does_not_answer() -> None:
    one = site(CacheConfig(semantic_threshold=0.99), [found(PASSAGE), found(PASSAGE, generation="g-2")])
    for query in ("why?", "who?"):
        await one.search(query)
    assert (await one.search("why so?")).cached is False


@pytest.mark.holds(
    "agents.md", "With `semanticThreshold` a similar search answers; its embedding is a part of the budget"
)
async def test_a_query_that_cannot_be_embedded_is_searched_for() -> None:
    one = site(CacheConfig(semantic_threshold=0.99))
    reply = await one.search("of which the table knows nothing")
    assert (reply.outcome, reply.cached, reply.input_tokens) == (CallOutcome.SUCCEEDED, False, 0)


@pytest.mark.holds(
    "agents.md", "With `semanticThreshold` a similar search answers; its embedding is a part of the budget"
)
@pytest.mark.parametrize(
    ("budget", "compares"),
    [
        pytest.param(PLENTY, True, id="enough"),
        pytest.param(replace(PLENTY, used=Amount(tokens=995)), False, id="too few tokens"),
        pytest.param(replace(PLENTY, most_nano_usd=79), False, id="too little money"),
    ],
)
async def test_an_embedding_is_reserved_where_the_budget_lasts(budget: Budget, compares: bool) -> None:
    one = site(CacheConfig(semantic_threshold=0.99))
    call, amount = await one.calls.reservation(LOOK, ANN, budget)
    assert (call.request.compares, amount) == (compares, one.embedder.most("") if compares else Amount())
    await one.calls.make(call, ANN)
    assert one.embedder.asked == ["why?"] * compares


@pytest.mark.holds("agents.md", "The cache is bounded in time and bytes, and fails no call")
async def test_a_cache_that_is_away_fails_no_call() -> None:
    one = site(CacheConfig(semantic_threshold=0.99))
    await one.search("why?")
    one.kept.is_away = True
    assert (await one.search("why?")).outcome is CallOutcome.SUCCEEDED
    assert (await one.calls.make(PURE, ANN)).value == "sun"
