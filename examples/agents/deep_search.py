"""Search: an index, a search over HTTP and a SQL query are asked at once, and their rankings become one.

The two tools are Python functions here; tools over HTTP and SQL are used alike.
"""

from typing import Any

from flotilla_runtime.agents import Context, Source, Task


def web(query: str) -> dict[str, Any]:
    """A web search."""
    return {"results": [{"url": "https://example.org/vacuum", "text": "Vacuum frees space."}]}


def incidents(words: str, limit: int) -> list[dict[str, Any]]:
    """Past incidents with these words, newest first."""
    return [{"id": 7, "text": "A table was not vacuumed for a month."}][:limit]


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Answer from the best of all sources; say which of them is missing."""
    searched = await ctx.search(
        task.input,
        [
            Source(index="docs", depth=20),
            Source(tool="web", timeout_seconds=3),
            Source(tool="incidents", query_argument="words", arguments={"limit": 20}, weight=0.5),
        ],
        top_k=5,
    )
    answer = await ctx.llm(f"{task.input}\n\nAnswer from this: {searched.document}")
    return {"answer": answer.text, "complete": searched.is_complete, "hits": len(searched.hits)}
