"""Map-reduce: the tree of calls, roles, what is missing and counted, and crashes anywhere."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_support.lives import Story, crashed_everywhere, never_answers
from agent_support.running import config_of, failed, program_of, said
from flotilla_runtime.agent.patterns.map_reduce import received, tree
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import Context, Task
from flotilla_runtime.contract import ModelConnection, TaskLimits

MODELS = (
    ModelConnection(role="Default", name="capable", url="http://m/v1", model="m"),
    ModelConnection(role="Routine", name="cheap", url="http://m/v1", model="m"),
)
CONFIG = config_of(models=MODELS)


def test_a_thousand_chunks_by_tens_make_1111_calls() -> None:
    assert len(tree(1000, 10)) == 1111


@given(st.integers(1, 300), st.integers(2, 12))
def test_every_item_is_in_the_last_call_once_and_no_call_begins_before_its_parts(
    items: int, size: int
) -> None:
    nodes = tree(items, size)
    held: dict[str, list[int]] = {}
    used: set[str] = set()
    for node in nodes:
        assert len(node.parts) <= size
        assert not used & set(node.parts), "a part goes into one reduction"
        used.update(node.parts)
        held[node.key] = (
            [node.item] if node.item is not None else [item for one in node.parts for item in held[one]]
        )
    assert held[nodes[-1].key] == list(range(items))
    assert received(nodes, set()) == items
    assert nodes[-1].key.startswith("reduce/")


async def summing(call: Call) -> Reply:
    """The sum of the numbers in the prompt."""
    return said(str(sum(map(int, call.request.messages[0]["content"].split()))))


async def summer(ctx: Context, task: Task) -> Any:
    """The input is the time of each call."""
    reduced = await ctx.map_reduce(
        list(range(7)),
        map=lambda item, role: ctx.llm(f"{item}", role=role),
        reduce=lambda parts, role: ctx.llm(" ".join(parts), role=role),
        group_size=3,
        timeout_seconds=float(task.input),
    )
    return [reduced.value, reduced.expected, reduced.received, sorted(reduced.missing)]


@pytest.mark.holds(
    "patterns.md",
    "Map-reduce makes 1,111 calls of 1,000 items, the last by the capable model; what fails is "
    "left out and counted",
)
async def test_all_is_reduced_to_one_by_the_capable_model_through_a_crash_anywhere() -> None:
    for story in await crashed_everywhere(lambda: Story(program_of(summer, config=CONFIG), summing, "60")):
        assert story.result == ["21", 7, 7, []]
        by_model = {call.id: call.target for call in story.calls.asked}
        capable = [name for name, target in by_model.items() if target == "capable"]
        assert capable == ["map_reduce/reduce/2/0/llm/Default"]
        assert len(by_model) == 7 + 2 + 1, "the seventh goes up as it is"


@pytest.mark.holds(
    "patterns.md",
    "Map-reduce makes 1,111 calls of 1,000 items, the last by the capable model; what fails is "
    "left out and counted",
)
async def test_what_fails_or_hangs_is_left_out_and_counted() -> None:
    async def script(call: Call) -> Reply:
        if call.id.startswith("map_reduce/map/1/"):
            return failed("broken")
        if call.id.startswith("map_reduce/reduce/1/1/"):
            return await never_answers(call)
        return await summing(call)

    story = await Story(program_of(summer, config=CONFIG), script, "0.3").to_the_end()
    assert story.result == ["8", 7, 3, ["map/1", "reduce/1/1"]]


async def test_a_tree_of_which_nothing_is_left_has_no_value_and_makes_no_call_for_nothing() -> None:
    async def script(call: Call) -> Reply:
        return failed("broken")

    story = await Story(program_of(summer, config=CONFIG), script, "0.3").to_the_end()
    value, expected, left, missing = story.result
    assert (value, expected, left, len(missing)) == (None, 7, 0, 10)
    assert len(story.calls.made) == 7


@pytest.mark.holds(
    "patterns.md",
    "Map-reduce makes 1,111 calls of 1,000 items, the last by the capable model; what fails is "
    "left out and counted",
)
async def test_a_thousand_items_end_within_the_limits_of_a_task() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        reduced = await ctx.map_reduce(
            [str(number) for number in range(1000)],
            map=lambda item, role: ctx.llm(item, role=role),
            reduce=lambda parts, role: ctx.llm(" ".join(parts), role=role),
            at_once=64,
        )
        return [reduced.value, reduced.received]

    story = Story(program_of(agent, config=CONFIG), summing)
    story.task.tree.limits = TaskLimits(max_steps=1111, max_tokens=10_000_000)
    assert (await story.to_the_end()).result == [str(sum(range(1000))), 1000]
    assert len(story.calls.made) == 1111


@pytest.mark.parametrize(
    ("items", "options", "says"),
    [
        ([], {}, "takes 1 to 10000 items, not 0"),
        ([1], {"group_size": 1}, "group_size must be at least 2"),
        ([1], {"at_once": 0}, "at_once must be at least 1"),
    ],
)
async def test_what_cannot_be_meant_is_refused(items: list[int], options: dict[str, Any], says: str) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.map_reduce(items, map=lambda *_: ctx.now(), reduce=lambda *_: ctx.now(), **options)

    story = await Story(program_of(agent), summing).to_the_end()
    assert story.task.finish is not None
    assert says in story.task.finish.message
