"""A search of several sources: the fused ranking, deadlines, what is marked missing, and crashes anywhere."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_support.lives import Story, crashed_everywhere, never_answers
from agent_support.running import PASSAGE, config_of, failed, found, program_of, tool_of
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.patterns.fusion import SMOOTHING, fused, items_of, key_of
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import Context, Source, Task
from flotilla_runtime.contract import Effect

TOOLS = (tool_of("web", Effect.PURE), tool_of("sql", Effect.PURE))
CONFIG = config_of(indexes=("docs", "notes"))


def passage(name: str) -> dict[str, Any]:
    return {**PASSAGE, "id": name, "text": f"Text {name}."}


async def five_sources(call: Call) -> Reply:
    """`notes` never answers."""
    match call.target:
        case "docs":
            assert call.request.top_k == 20
            return found(passage("a"), passage("b"))
        case "notes":
            return await never_answers(call)
        case "web":
            value: Any = {"results": [{"url": "/b", "text": "Text  b."}, {"url": "/c", "text": "Text c."}]}
        case _:
            assert call.request == {"q": "why?", "limit": 5}
            value = [{"row": 1}, {"row": 2}]
    return Reply(outcome=CallOutcome.SUCCEEDED, value=value)


async def searcher(ctx: Context, task: Task) -> dict[str, Any]:
    sources: list[str | Source] = [
        Source(index="docs", depth=20),
        Source(index="notes", timeout_seconds=0.02),
        "web",
        Source(tool="sql", query_argument="q", arguments={"limit": 5}, weight=0.5),
    ]
    return (await ctx.search("why?", sources, top_k=4)).document


@pytest.mark.holds(
    "patterns.md",
    "A search fuses by reciprocal rank; a late source is marked; strange items of one spoil no other",
)
async def test_sources_are_fused_and_a_late_one_is_marked_through_a_crash_anywhere() -> None:
    program = program_of(searcher, *TOOLS, config=CONFIG)
    for story in await crashed_everywhere(lambda: Story(program, five_sources)):
        result = story.result
        assert [hit["item"].get("text") for hit in result["hits"]] == [
            "Text b.",
            "Text a.",
            "Text c.",
            None,
        ]
        assert result["hits"][0]["ranks"] == {"docs": 2, "web": 1}
        assert (result["expected"], result["received"], result["complete"]) == (4, 3, False)
        assert result["missing"]["notes"]["reason"] == "TimedOut"
        assert story.given_up() == {"search/notes/retrieve/notes"}


async def test_without_sources_all_indexes_are_searched() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        searched = await ctx.search("why?")
        return [[hit.item.id for hit in searched.hits], list(searched.missing)]

    async def script(call: Call) -> Reply:
        return found(passage(call.target)) if call.target == "docs" else failed("index is away")

    story = await Story(program_of(agent, config=CONFIG), script).to_the_end()
    assert story.result == [["docs"], ["notes"]]


@pytest.mark.holds(
    "patterns.md",
    "A search fuses by reciprocal rank; a late source is marked; strange items of one spoil no other",
)
@pytest.mark.parametrize(
    "given", ["no list", {"rows": "none"}, [float("nan")]], ids=["a text", "an object", "not JSON"]
)
async def test_a_source_with_strange_items_spoils_no_other(given: Any) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        source = Source(tool="web", items=lambda _value: items_of(given))
        searched = await ctx.search("why?", [source, "docs"])
        return [len(searched.hits), searched.missing["web"].reason]

    async def script(call: Call) -> Reply:
        return found(passage("a")) if call.target == "docs" else Reply(outcome=CallOutcome.SUCCEEDED)

    story = await Story(program_of(agent, *TOOLS, config=CONFIG), script).to_the_end()
    assert story.result == [1, "Refused"]


@pytest.mark.holds(
    "patterns.md", "A search may ask one tool or name several times; names that come again are numbered"
)
async def test_one_tool_or_name_is_asked_several_times_through_a_crash_anywhere() -> None:
    """The tools `sql` and `docs`, and the index `docs`; the second query of `sql` fails."""

    async def agent(ctx: Context, _task: Task) -> Any:
        tables = [Source(tool="sql", arguments={"table": table}) for table in ("tickets", "orders", "bills")]
        tables[2] = replace(tables[2], weight=9)
        searched = await ctx.search("why?", [*tables, Source(tool="docs"), Source(index="docs")])
        ranks = {hit.item["text"]: hit.ranks for hit in searched.hits if isinstance(hit.item, dict)}
        return [ranks, searched.hits[0].item["text"], searched.missing["sql-2"].document, searched.sources]

    async def script(call: Call) -> Reply:
        if call.kind is CallKind.RETRIEVE:
            return found(passage("a"))
        table = call.request.get("table", "docs")
        if table == "orders":
            return failed("no such table")
        return Reply(outcome=CallOutcome.SUCCEEDED, value=[{"text": f"Of {table}."}, {"text": "Text a."}])

    program = program_of(agent, *TOOLS, tool_of("docs", Effect.PURE), config=CONFIG)
    for story in await crashed_everywhere(lambda: Story(program, script)):
        ranks, best, missing, expected = story.result
        assert ranks["Of tickets."] == {"sql": 1}
        assert ranks["Of bills."] == {"sql-3": 1}
        assert ranks["Text a."] == {"sql": 2, "sql-3": 2, "docs": 2, "docs-2": 1}
        assert best == "Text a."
        assert missing == {"reason": "Failed", "problem": "sql: no such table"}
        assert expected == 5


async def test_a_search_of_nothing_is_refused() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.search("why?")

    story = await Story(program_of(agent), five_sources).to_the_end()
    assert story.task.finish is not None
    assert "there is nothing to search" in story.task.finish.message
    with pytest.raises(ValueError, match="either an index or a tool"):
        Source()


rankings = st.dictionaries(
    st.sampled_from(["one", "two", "three"]),
    st.lists(st.sampled_from("abcdef"), unique=True, max_size=6),
)


@pytest.mark.holds(
    "patterns.md",
    "A search fuses by reciprocal rank; a late source is marked; strange items of one spoil no other",
)
@given(rankings)
def test_the_score_is_the_sum_of_reciprocal_ranks(found: dict[str, list[str]]) -> None:
    hits = fused(found, weights={}, key=None, most=100)
    assert {hit.item for hit in hits} == {item for ranked in found.values() for item in ranked}
    for hit in hits:
        expected = sum(1 / (SMOOTHING + one.index(hit.item) + 1) for one in found.values() if hit.item in one)
        assert hit.score == pytest.approx(expected)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_what_makes_two_items_the_same() -> None:
    assert key_of({"text": "A  text", "score": 1}) == key_of({"text": "A text", "url": "/x"})
    assert key_of({"id": 1, "score": 0.5}) == key_of({"id": 1, "score": 0.7})
    assert key_of({"id": 1}) != key_of({"id": 2})
    assert key_of("a") != key_of("b")
