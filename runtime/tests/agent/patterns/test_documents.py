"""Document fan-out: where documents are cut, the pool and its rate, what is missing, and crashes anywhere."""

import asyncio
from typing import Any

import pytest

from agent_support.lives import Story, crashed_everywhere, never_answers
from agent_support.running import failed, program_of, said
from agent_support.steps import long_steps
from flotilla_runtime.agent.patterns import documents
from flotilla_runtime.agent.patterns.documents import chunks_of
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import Context, DocumentChunk, Rate, Task

PARAGRAPH = "A first sentence is here. A second one follows it."
TEXTS = {"a#1.md": f"{PARAGRAPH}\n\n{PARAGRAPH}", "b.md": PARAGRAPH, "empty.md": "  \n"}


async def reader(ctx: Context, _task: Task) -> dict[str, Any]:
    async def work(chunk: DocumentChunk) -> str:
        return (await ctx.llm(f"{chunk.document} {chunk.number}")).text

    documented = await ctx.documents(TEXTS, work, chunk_tokens=25, workers=2, timeout_seconds=0.1)
    return documented.document


async def echo(call: Call) -> Reply:
    said_of = call.request.messages[0]["content"]
    if said_of == "a#1.md 2":
        return await never_answers(call)
    return failed("broken") if said_of == "b.md 1" else said(said_of)


@pytest.mark.holds(
    "patterns.md",
    "Documents are cut at paragraphs, else sentences, in a thread; each chunk has a value or a "
    "reason; all workers share one rate",
)
async def test_each_chunk_has_a_value_or_a_reason_through_a_crash_anywhere() -> None:
    for story in await crashed_everywhere(lambda: Story(program_of(reader), echo)):
        result = story.result
        assert (result["expected"], result["received"], result["complete"]) == (3, 1, False)
        first = result["documents"]["a#1.md"]
        assert first["results"] == {"1": "a#1.md 1", "2": None}
        assert first["missing"]["2"]["reason"] == "TimedOut"
        assert result["documents"]["b.md"]["missing"]["1"]["reason"] == "Failed"
        assert result["documents"]["empty.md"]["results"] == {}


@pytest.mark.holds(
    "patterns.md",
    "Documents are cut at paragraphs, else sentences, in a thread; each chunk has a value or a "
    "reason; all workers share one rate",
)
def test_documents_are_cut_at_paragraphs_and_sentences() -> None:
    assert [chunk.text for chunk in chunks_of({"a": f"{PARAGRAPH}\n\n{PARAGRAPH}"}, 25, 0)] == [PARAGRAPH] * 2
    sentences = [chunk.text for chunk in chunks_of({"a": PARAGRAPH}, 14, 0)]
    assert sentences == ["A first sentence is here.", "A second one follows it."]
    assert all(chunk.tokens <= 14 for chunk in chunks_of({"a": PARAGRAPH}, 14, 0))


def test_too_many_chunks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MOST_CHUNKS", 1)
    with pytest.raises(ValueError, match="raise chunk_tokens"):
        chunks_of({"a": PARAGRAPH}, 14, 0)


@pytest.mark.holds(
    "patterns.md",
    "Documents are cut at paragraphs, else sentences, in a thread; each chunk has a value or a "
    "reason; all workers share one rate",
)
@pytest.mark.parametrize("counts_tokens", [False, True])
async def test_all_workers_share_one_rate(counts_tokens: bool) -> None:
    began: list[float] = []

    async def agent(ctx: Context, _task: Task) -> Any:
        async def work(chunk: DocumentChunk) -> str:
            return (await ctx.llm(chunk.text)).text

        unit = 4 if counts_tokens else 1
        rate = Rate(per_second=50 * unit, burst=2 * unit)
        texts = {str(number): "four" * 2 for number in range(6)}
        options: dict[str, Any] = {"rate": rate, "counts_tokens": counts_tokens}
        return (await ctx.documents(texts, work, workers=6, **options)).received

    async def noting(call: Call) -> Reply:
        began.append(asyncio.get_running_loop().time())
        return said("x")

    story = Story(program_of(agent), noting)
    assert (await story.to_the_end()).result == 6
    per_chunk = chunks_of({"a": "four" * 2}, 25, 0)[0].tokens / 4 if counts_tokens else 1
    assert began[-1] - began[0] >= (6 * per_chunk - 2 - per_chunk) / 50 * 0.8


@pytest.mark.holds(
    "patterns.md",
    "Documents are cut at paragraphs, else sentences, in a thread; each chunk has a value or a "
    "reason; all workers share one rate",
)
async def test_cutting_a_large_document_blocks_no_other_task() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        async def work(chunk: DocumentChunk) -> int:
            return chunk.number

        return (await ctx.documents({"book": f"{PARAGRAPH}\n\n" * 20_000}, work, chunk_tokens=2000)).received

    with long_steps(0.5) as told:
        story = await Story(program_of(agent), echo).to_the_end()
    assert story.result > 100
    assert told == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"chunk_tokens": 0}, "chunk_tokens must be at least 1"),
        ({"chunk_tokens": 5, "overlap_tokens": 5}, "overlap_tokens less than it"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
async def test_what_cannot_be_meant_is_refused(options: dict[str, Any], says: str) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.documents(TEXTS, lambda _chunk: ctx.now(), **options)

    story = await Story(program_of(agent), echo).to_the_end()
    assert story.task.finish is not None
    assert says in story.task.finish.message
