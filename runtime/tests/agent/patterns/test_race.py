"""A race: who wins, who is cancelled and when, and that a crash changes no winner that the agent has seen."""

import asyncio
import time
from typing import Any

import httpx2
import pytest

from agent_support.lives import Story, crashed_everywhere, never_answers
from agent_support.running import failed, program_of, said, tool_of
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import Context, EndReason, MissingReason, NoWinnerError, Task
from flotilla_runtime.contract import Effect, TaskLimits

NAMES = ("first", "second", "third")
TOOLS = tuple(tool_of(name, Effect.PURE) for name in NAMES)
WITH_UNSAFE = (TOOLS[0], tool_of("second", Effect.UNSAFE), TOOLS[2])
CLOSED_WITHIN_SECONDS = 0.1


def value(found: Any) -> Reply:
    return Reply(outcome=CallOutcome.SUCCEEDED, value=found)


async def racer(ctx: Context, _task: Task) -> dict[str, Any]:
    ways = {name: (lambda name=name: ctx.tool(name, {})) for name in NAMES}
    raced = await ctx.race(ways, stagger_seconds=0.01)
    told = (await ctx.llm(f"{raced.winner} won")).text
    reasons = {key: str(one.reason) for key, one in raced.missing.items()}
    return {"winner": raced.winner, "told": told, "slow": raced.is_slow_path, "reasons": reasons}


async def second_is_fastest(call: Call) -> Reply:
    if call.kind is CallKind.MODEL:
        return said(call.request.messages[0]["content"])
    if call.target == "second":
        return value(2)
    return await never_answers(call)


@pytest.mark.holds("patterns.md", "A quorum, a race and a time-out come out alike in every replay")
async def test_the_first_value_wins_and_a_crash_anywhere_does_not_change_it() -> None:
    stories = await crashed_everywhere(lambda: Story(program_of(racer, *TOOLS), second_is_fastest))
    whole = stories[0]
    assert whole.result == {
        "winner": "second",
        "told": "second won",
        "slow": True,
        "reasons": {"first": "NotNeeded", "third": "NotNeeded"},
    }
    assert whole.given_up() == {"race/first/tool/first"}
    assert "race/third/tool/third" not in whole.calls.made, "it never began"
    unknown = [story for story in stories if story.result["winner"] != "second"]
    assert unknown == []


@pytest.mark.holds(
    "patterns.md",
    "Branches that were not begun are no part of the cancel rate; to the agent they are NotNeeded",
)
async def test_a_branch_that_never_began_is_not_counted_as_cancelled() -> None:
    """To the agent, and in the journal, it is NotNeeded: so it is in journals of before too."""

    async def agent(ctx: Context, _task: Task) -> Any:
        ways = {name: (lambda name=name: ctx.tool(name, {})) for name in ("first", "third")}
        return (await ctx.race(ways, stagger_seconds=3600)).missing["third"].reason

    story = await Story(program_of(agent, *TOOLS), lambda _call: value(1)).to_the_end()
    assert [end.outcomes for end in story.patterns] == [{"Value": 1, "NotBegun": 1}]
    assert story.result == "NotNeeded"
    (chosen,) = [one for one in story.task.entries if isinstance(one, Done) and one.call == "race/chosen"]
    assert chosen.value["missing"]["third"]["reason"] == "NotNeeded"


@pytest.mark.parametrize(
    ("reason", "first", "options"),
    [
        pytest.param(MissingReason.FAILED, failed("broken"), {}, id="its call fails"),
        pytest.param(
            MissingReason.TIMED_OUT,
            failed("late", CallOutcome.TIMED_OUT),
            {"stagger_seconds": 9},
            id="its call is late",
        ),
        pytest.param(
            MissingReason.TIMED_OUT,
            None,
            {"timeout_seconds": 0.01, "stagger_seconds": 9},
            id="its own time is up",
        ),
        pytest.param(MissingReason.LIMIT_REACHED, said("Hello"), {}, id="a limit refuses its call"),
        pytest.param(
            MissingReason.REFUSED,
            value(7),
            {"is_valid": lambda found: found == 3},
            id="its value is not taken",
        ),
        pytest.param(MissingReason.NOT_NEEDED, None, {}, id="another one has won"),
    ],
)
async def test_what_becomes_of_a_branch_that_does_not_win(
    reason: MissingReason, first: Reply | None, options: dict[str, Any]
) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        async def asking() -> Any:
            if reason is MissingReason.LIMIT_REACHED:
                await ctx.llm("One step")
                return await ctx.llm("A step too many")
            return await ctx.tool("first", {})

        raced = await ctx.race({"first": asking, "third": lambda: ctx.tool("third", {})}, **options)
        return [raced.winner, raced.missing["first"].reason]

    async def script(call: Call) -> Reply:
        if call.target == "third":
            if reason not in (MissingReason.NOT_NEEDED, MissingReason.TIMED_OUT):
                await asyncio.sleep(0.03)
            return value(3)
        if first is None:
            return await never_answers(call)
        return first

    story = Story(program_of(agent, *TOOLS), script)
    story.task.tree.limits = TaskLimits(max_steps=1)
    assert (await story.to_the_end()).result == ["third", reason]


@pytest.mark.holds("patterns.md", "A quorum, a race and a time-out come out alike in every replay")
async def test_of_two_that_end_at_once_every_replay_has_the_same_winner() -> None:
    """The task is replayed with both results in its journal, and the slower one takes fewer steps to read."""

    async def agent(ctx: Context, _task: Task) -> list[str]:
        async def in_two_steps() -> Any:
            await ctx.tool("first", {})
            return await ctx.tool("first", {})

        ways = {"two steps": in_two_steps, "one step": lambda: ctx.tool("third", {})}
        raced = await ctx.race(ways)
        return [raced.winner, (await ctx.llm(raced.winner)).text]

    turns = {"race/two steps/tool/first": 1, "race/two steps/tool/first#2": 1, "race/one step/tool/third": 30}

    async def at_once(call: Call) -> Reply:
        for _ in range(turns.get(call.id, 0)):
            await asyncio.sleep(0)
        if call.kind is CallKind.MODEL:
            return said(call.request.messages[0]["content"])
        return value(1)

    for story in await crashed_everywhere(lambda: Story(program_of(agent, *TOOLS), at_once)):
        winner, told = story.result
        assert winner == told


@pytest.mark.holds(
    "patterns.md",
    "The next branch of a race begins when all before it have failed; a value that is not valid "
    "does not win; a race without a winner says what became of each",
)
async def test_the_next_begins_at_once_when_all_before_it_have_failed() -> None:
    async def agent(ctx: Context, _task: Task) -> str:
        ways = {name: (lambda name=name: ctx.tool(name, {})) for name in ("first", "third")}
        return (await ctx.race(ways, stagger_seconds=3600)).winner

    async def first_fails(call: Call) -> Reply:
        return failed("broken") if call.target == "first" else value(1)

    assert (await Story(program_of(agent, *TOOLS), first_fails).to_the_end()).result == "third"


@pytest.mark.holds(
    "patterns.md",
    "The next branch of a race begins when all before it have failed; a value that is not valid "
    "does not win; a race without a winner says what became of each",
)
async def test_a_value_that_is_not_valid_does_not_win() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        ways = {name: (lambda name=name: ctx.tool(name, {})) for name in ("first", "third")}
        raced = await ctx.race(ways, is_valid=lambda found: found["celsius"] < 60)
        return [raced.winner, raced.missing["first"].document]

    async def one_is_absurd(call: Call) -> Reply:
        return value({"celsius": 451 if call.target == "first" else 21})

    for story in await crashed_everywhere(lambda: Story(program_of(agent, *TOOLS), one_is_absurd)):
        assert story.result == ["third", {"reason": "Refused", "problem": "is_valid did not take its value"}]


@pytest.mark.holds(
    "patterns.md",
    "The next branch of a race begins when all before it have failed; a value that is not valid "
    "does not win; a race without a winner says what became of each",
)
async def test_a_race_without_a_winner_says_what_became_of_each() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        ways = {name: (lambda name=name: ctx.tool(name, {})) for name in ("first", "third")}
        try:
            return await ctx.race(ways, timeout_seconds=0.1)
        except NoWinnerError as nobody:
            return [nobody.missing, str(nobody), nobody.reason]

    async def one_fails_one_hangs(call: Call) -> Reply:
        return failed("broken") if call.target == "first" else await never_answers(call)

    for story in await crashed_everywhere(lambda: Story(program_of(agent, *TOOLS), one_fails_one_hangs)):
        missing, message, reason = story.result
        assert reason == EndReason.TOOL_FAILED
        assert missing == {
            "first": "Failed: first: broken",
            "third": "TimedOut: no result within 0.1 s",
        }
        assert message.startswith("no branch gave a valid result: first: Failed")


async def test_a_race_needs_a_branch() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.race({})

    story = await Story(program_of(agent), second_is_fastest).to_the_end()
    assert story.task.finish is not None
    assert "a race needs at least one branch" in story.task.finish.message


@pytest.mark.holds(
    "patterns.md", "The request of a loser is closed within 100 ms, and an Unsafe one is never made again"
)
async def test_the_request_of_a_loser_is_closed_at_once() -> None:
    """A real connection: the server sees its end."""
    closed: list[float] = []
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await reader.read()
        closed.append(time.monotonic())
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    won: list[float] = []
    async with server, httpx2.AsyncClient() as client:

        async def script(call: Call) -> Reply:
            if call.target == "first":
                await client.get(f"http://127.0.0.1:{port}/", timeout=30)
            await arrived.wait()
            won.append(time.monotonic())
            return value(1)

        async def agent(ctx: Context, _task: Task) -> Any:
            ways = {name: (lambda name=name: ctx.tool(name, {})) for name in ("first", "third")}
            return (await ctx.race(ways)).winner

        assert (await Story(program_of(agent, *TOOLS), script).to_the_end()).result == "third"
        await ended.wait()
    assert closed[0] - won[0] < CLOSED_WITHIN_SECONDS


@pytest.mark.holds(
    "patterns.md", "The request of a loser is closed within 100 ms, and an Unsafe one is never made again"
)
@pytest.mark.parametrize("ending", ["before", "after"])
async def test_an_unsafe_loser_is_never_made_again(ending: str) -> None:
    """Its worker is lost around the write of the choice; the loser had been called."""

    async def agent(ctx: Context, _task: Task) -> Any:
        ways = {name: (lambda name=name: ctx.tool(name, {})) for name in ("second", "third")}
        return (await ctx.race(ways, timeout_seconds=1)).winner

    async def third_wins(call: Call) -> Reply:
        return value(3) if call.target == "third" else await never_answers(call)

    rehearsal = await Story(program_of(agent, *WITH_UNSAFE), third_wins).to_the_end()
    passed = rehearsal.store.points.passed
    (choice,) = (
        place
        for place, point in enumerate(passed)
        if point.startswith(ending) and "Intended race/chosen" in point
    )
    story = await Story(program_of(agent, *WITH_UNSAFE), third_wins).to_the_end(crash_at=choice)
    assert story.result == "third"
    assert story.calls.made.count("race/second/tool/second") == 1
    assert "race/second/tool/second" in story.given_up()
