"""Document fan-out: contracts are cut into chunks, and eight workers read them, two chunks a second."""

from typing import Any

from flotilla_runtime.agents import Context, DocumentChunk, Rate, Task

CONTRACTS = {
    "lease.md": "The rent is 900 euro.\n\nIt rises by 3 % each year.",
    "phone.md": "The contract runs for 24 months.",
}


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Ask the cheap model what each chunk says about the question."""

    async def read(chunk: DocumentChunk) -> str:
        prompt = f"{task.input}\n\nFrom {chunk.document}:\n{chunk.text}"
        return (await ctx.llm(prompt, role="Routine")).text

    read_all = await ctx.documents(
        CONTRACTS, read, chunk_tokens=500, workers=8, rate=Rate(per_second=2, burst=8), timeout_seconds=60
    )
    return read_all.document
