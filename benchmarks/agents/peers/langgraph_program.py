"""Tasks of steps on LangGraph with its saver for PostgreSQL; the arguments are those of dbos_program.py.

Each step is a node, and its state is saved before the next one begins (durability "sync").
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

VALUE = "The tool said what it had to say, in about two hundred characters. " * 3
AFTER_EFFECT_SECONDS = 0.05
MOST_STEPS = 10**6
CONNECTIONS = 16


class State(TypedDict):
    """State that is saved after each step."""

    task: int
    number: int
    steps: int
    ends: float
    path: str
    value: str


def happen(state: State) -> None:
    """The effect of a step."""
    with Path(state["path"]).open("a") as file:
        file.write(f"{state['task']} {state['number']}\n")


async def step(state: State) -> dict[str, Any]:
    """One step, with an effect if there is a file."""
    if state["path"]:
        happen(state)
        await asyncio.sleep(AFTER_EFFECT_SECONDS)
    return {"number": state["number"] + 1, "value": VALUE}


def go_on(state: State) -> str:
    """Whether the task has a further step."""
    is_over = state["number"] >= state["steps"] or time.time() >= state["ends"]
    return END if is_over else "step"


async def run(url: str, beginnings: list[State]) -> int:
    """Run these tasks to their end, from where each of them was; the sum of their steps."""
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(url, max_size=CONNECTIONS, kwargs=options, open=False) as pool:
        saver = AsyncPostgresSaver(pool)  # type: ignore[arg-type,unused-ignore]
        await saver.setup()
        graph = StateGraph(State)
        graph.add_node("step", step)
        graph.add_edge(START, "step")
        graph.add_conditional_edges("step", go_on)
        compiled = graph.compile(checkpointer=saver)

        async def one(beginning: State) -> int:
            config: Any = {
                "configurable": {"thread_id": f"task-{beginning['path']}-{beginning['task']}"},
                "recursion_limit": MOST_STEPS,
            }
            known = await compiled.aget_state(config)
            ended = await compiled.ainvoke(None if known.values else beginning, config, durability="sync")
            return int(ended["number"])

        return sum(await asyncio.gather(*(one(beginning) for beginning in beginnings)))


def main() -> None:
    """Run what the arguments say."""
    url, what, *rest = sys.argv[1:]
    if what == "rate":
        ends, steps, path, tasks = time.time() + float(rest[0]), MOST_STEPS, "", int(rest[1])
    else:
        ends, steps, path, tasks = time.time() + 10**6, int(rest[2]), rest[0], int(rest[1])
    beginnings = [
        State(task=task, number=0, steps=steps, ends=ends, path=path, value="") for task in range(tasks)
    ]
    print(asyncio.run(run(url, beginnings)), flush=True)


if __name__ == "__main__":
    main()
