"""Branches that run at once: what each gives, what stands for one that gives nothing, and crashes anywhere.

The rules of when branches begin and end are in test_plans.py, races in test_race.py.
"""

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from agent_support.lives import Story, crashed_everywhere, never_answers
from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import ScriptedCalls, begin, failed, program_of, run, said, tool_of
from flotilla_runtime.agent.engine.run import Clock, Interrupt, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.journal import CallKind, CallOutcome, EndReason, Intended, WaitKind
from flotilla_runtime.agent.patterns.values import PatternEnd
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import Context, Gathered, Missing, MissingReason, Task, TaskFailedError
from flotilla_runtime.contract import Effect, TaskLimits

CITIES = ("Lisbon", "Porto", "Faro", "Braga")
TOOLS = (tool_of("weather", Effect.PURE), tool_of("book", Effect.UNSAFE))


def asking(ctx: Context, city: str, tool: str = "weather") -> Any:
    return lambda: ctx.tool(tool, {"city": city})


async def four_cities(call: Call) -> Reply:
    """Porto has no weather, and Faro never answers."""
    match call.request["city"]:
        case "Porto":
            return failed("no such city")
        case "Faro":
            return await never_answers(call)
    return Reply(outcome=CallOutcome.SUCCEEDED, value=call.request["city"].lower())


async def guide(ctx: Context, _task: Task) -> dict[str, Any]:
    asked = {city: asking(ctx, city) for city in CITIES}
    return (await ctx.fan_out(asked, timeout_seconds={"Faro": 0.15})).document


@pytest.mark.holds(
    "patterns.md",
    "A branch that fails or hangs is None with a reason, stops no other one, and is so in every "
    "replay; no finished call is repeated",
)
async def test_a_branch_that_fails_or_hangs_is_null_with_a_reason_through_a_crash_anywhere() -> None:
    stories = await crashed_everywhere(lambda: Story(program_of(guide, *TOOLS), four_cities))
    assert len(stories) > 15
    for story in stories:
        assert story.result == {
            "results": {"Lisbon": "lisbon", "Porto": None, "Faro": None, "Braga": "braga"},
            "expected": 4,
            "received": 2,
            "complete": False,
            "missing": {
                "Porto": {"reason": "Failed", "problem": "weather: no such city"},
                "Faro": {"reason": "TimedOut", "problem": "no result within 0.15 s"},
            },
        }
        assert story.given_up() == {"fan_out/Faro/tool/weather"}
        assert "fan_out/Faro/tool/weather" in story.calls.stopped


async def two_of_four(ctx: Context, _task: Task) -> dict[str, Any]:
    gathered = await ctx.fan_out({city: asking(ctx, city) for city in CITIES}, quorum=2)
    seen = sorted(gathered.present)
    return {"seen": seen, "said": (await ctx.llm(f"Of {seen}.")).text, **gathered.document}


async def slower_each(call: Call) -> Reply:
    """Braga never answers."""
    if call.kind is CallKind.MODEL:
        return said(call.request.messages[0]["content"])
    if call.request["city"] == "Braga":
        return await never_answers(call)
    await asyncio.sleep(CITIES.index(call.request["city"]) / 100)
    return Reply(outcome=CallOutcome.SUCCEEDED, value=call.request["city"])


@pytest.mark.holds("patterns.md", "A quorum, a race and a time-out come out alike in every replay")
async def test_a_quorum_ends_the_rest_and_is_the_same_in_every_replay() -> None:
    """The calls after it have the same arguments in each run, else its task would end as Invalid."""
    for story in await crashed_everywhere(lambda: Story(program_of(two_of_four, *TOOLS), slower_each)):
        result = story.result
        assert result["received"] >= 2
        assert result["said"] == f"Of {result['seen']}."
        assert set(result["missing"]) == set(CITIES) - set(result["seen"])
        assert {one["reason"] for one in result["missing"].values()} == {"NotNeeded"}


@pytest.mark.holds(
    "patterns.md",
    "Branches that were not begun are no part of the cancel rate; to the agent they are NotNeeded",
)
async def test_what_only_a_lost_run_has_begun_is_given_up_with_the_others() -> None:
    """Two of three had ended when the worker was lost. The third waits for a place in the next run."""

    async def agent(ctx: Context, _task: Task) -> Any:
        branches = {city: asking(ctx, city, "book") for city in ("Lisbon", "Braga", "Faro", "Porto")}
        gathered = await ctx.fan_out(branches, quorum=2, at_once=2)
        return [str(gathered.missing[city].reason) for city in ("Faro", "Porto")]

    def make() -> Story:
        faro_is_asked = asyncio.Event()

        async def braga_is_second(call: Call) -> Reply:
            if call.request["city"] == "Braga":
                await faro_is_asked.wait()
            if call.request["city"] == "Faro":
                faro_is_asked.set()
            return await four_cities(call)

        return Story(program_of(agent, *TOOLS), braga_is_second)

    passed = (await make().to_the_end()).store.points.passed
    choice = next(place for place, point in enumerate(passed) if "Intended fan_out/chosen" in point)
    story = await make().to_the_end(crash_at=choice)
    assert story.result == ["NotNeeded", "NotNeeded"]
    assert story.given_up() == {"fan_out/Faro/tool/book"}
    assert story.calls.made.count("fan_out/Faro/tool/book") == 1
    assert story.patterns[-1].outcomes == {"Value": 2, "NotNeeded": 1, "NotBegun": 1}


@pytest.mark.holds(
    "patterns.md",
    "Results of a fan-out are keyed, in the order in which they were asked for; too few are an "
    "error where the agent asks",
)
async def test_results_are_in_the_order_in_which_they_were_asked_for_whichever_ends_first() -> None:
    async def backwards(call: Call) -> Reply:
        await asyncio.sleep((3 - CITIES.index(call.request["city"])) / 200)
        return Reply(outcome=CallOutcome.SUCCEEDED, value=call.request["city"])

    async def agent(ctx: Context, _task: Task) -> list[Any]:
        gathered = await ctx.fan_out({city: asking(ctx, city) for city in CITIES})
        assert gathered.is_complete
        return list(gathered.at_least(4).values.items())

    story = await Story(program_of(agent, *TOOLS), backwards).to_the_end()
    assert story.result == [[city, city] for city in CITIES]
    kinds = {entry.kind for entry in story.task.entries if isinstance(entry, Intended)}
    assert kinds == {CallKind.TOOL}, "nothing depends on the time, so there is no choice to write"


@pytest.mark.holds("patterns.md", "`at_once` bounds how many branches run at the same time")
async def test_at_most_so_many_run_at_the_same_time() -> None:
    running: set[str] = set()
    most = []

    async def counting(call: Call) -> Reply:
        running.add(call.id)
        most.append(len(running))
        await asyncio.sleep(0.001)
        running.discard(call.id)
        return Reply(outcome=CallOutcome.SUCCEEDED, value=1)

    async def agent(ctx: Context, _task: Task) -> int:
        asked = {str(number): asking(ctx, str(number)) for number in range(10)}
        return sum((await ctx.fan_out(asked, at_once=3)).values.values())

    assert (await Story(program_of(agent, *TOOLS), counting).to_the_end()).result == 10
    assert max(most) == 3


@pytest.mark.holds(
    "patterns.md",
    "Results of a fan-out are keyed, in the order in which they were asked for; too few are an "
    "error where the agent asks",
)
async def test_too_few_results_are_an_error_only_where_the_agent_asks() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        gathered = await ctx.fan_out({"Porto": asking(ctx, "Porto")})
        assert gathered.missing == {
            "Porto": Missing(reason=MissingReason.FAILED, problem="weather: no such city")
        }
        return gathered.at_least(1)

    story = await Story(program_of(agent, *TOOLS), four_cities).to_the_end()
    assert story.task.finish is not None
    assert (story.task.finish.reason, story.task.finish.message) == (
        EndReason.TOOL_FAILED,
        "0 results are there, and 1 are needed: Porto: Failed: weather: no such city",
    )


@pytest.mark.holds(
    "patterns.md",
    "A branch that fails or hangs is None with a reason, stops no other one, and is so in every "
    "replay; no finished call is repeated",
)
async def test_an_error_in_the_code_of_a_branch_stops_no_other_branch() -> None:
    async def agent(ctx: Context, _task: Task) -> dict[str, Any]:
        async def broken() -> Any:
            return (await ctx.tool("weather", {"city": "Lisbon"}))["celsius"]

        async def pair() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(broken())

        async def leaving() -> None:
            raise asyncio.CancelledError

        asked = {"broken": broken, "pair": pair, "leaving": leaving, "Braga": asking(ctx, "Braga")}
        return (await ctx.fan_out(asked)).document

    story = await Story(program_of(agent, *TOOLS), four_cities).to_the_end()
    assert story.result["results"]["Braga"] == "braga"
    problems = {key: one["problem"] for key, one in story.result["missing"].items()}
    assert problems["broken"].startswith("TypeError: string indices")
    assert problems["leaving"] == "the branch's code cancelled itself"


@pytest.mark.holds(
    "patterns.md",
    "A branch that no limit leaves room for says so; a `TaskFailedError` ends the pattern; a "
    "cancelled task stops all branches",
)
async def test_a_branch_that_ends_the_task_ends_it() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        async def ending() -> None:
            raise TaskFailedError(EndReason.INVALID, "no such country")

        return await ctx.fan_out({"Lisbon": asking(ctx, "Faro"), "ending": ending})

    story = await Story(program_of(agent, *TOOLS), four_cities).to_the_end()
    assert story.task.finish is not None
    assert (story.task.finish.reason, story.task.finish.message) == (EndReason.INVALID, "no such country")


@pytest.mark.holds(
    "patterns.md",
    "A branch that no limit leaves room for says so; a `TaskFailedError` ends the pattern; a "
    "cancelled task stops all branches",
)
async def test_a_limit_that_leaves_no_room_for_a_branch_is_its_reason() -> None:
    async def agent(ctx: Context, _task: Task) -> dict[str, Any]:
        asked = {role: (lambda: ctx.llm("Hello")) for role in ("one", "two", "three")}
        return {key: one.reason for key, one in (await ctx.fan_out(asked)).missing.items()}

    store = MemoryStore()
    store.submit("t1", "?", TaskLimits(max_steps=2))
    calls = ScriptedCalls()
    assert await run(store, program_of(agent), calls) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.result == {"three": "LimitReached"}


@pytest.mark.holds(
    "patterns.md", "A branch with an unknown effect times out like any other, and its call is closed"
)
async def test_a_branch_with_an_unknown_effect_times_out_and_its_call_is_closed() -> None:
    """The worker was lost within an Unsafe call. Nobody knows what came of it, and the fan-out goes on."""

    async def agent(ctx: Context, _task: Task) -> dict[str, Any]:
        asked = {"Lisbon": asking(ctx, "Lisbon", "book")}
        return (await ctx.fan_out(asked, timeout_seconds=30)).document

    story = Story(program_of(agent, *TOOLS), four_cities)
    rehearsal = await Story(program_of(agent, *TOOLS), four_cities).to_the_end()
    point = rehearsal.store.points.passed.index("after call fan_out/Lisbon/tool/book")
    await story.to_the_end(crash_at=point)
    assert story.result["missing"]["Lisbon"]["reason"] == "TimedOut"
    assert len(story.calls.made) == 1
    assert story.given_up() == {"fan_out/Lisbon/tool/book"}


@pytest.mark.holds("patterns.md", "A pattern that only waits is suspended until its next time-out")
async def test_a_fan_out_that_only_waits_is_suspended_until_the_first_branch_is_late() -> None:
    async def agent(ctx: Context, _task: Task) -> dict[str, Any]:
        async def sleeping() -> None:
            await ctx.sleep(7200)

        return (await ctx.fan_out({"nap": sleeping}, timeout_seconds=3600)).document

    store = MemoryStore()
    store.submit("t1", "?")
    program = program_of(agent)
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    waits = store.tasks["t1"].waits
    assert waits is not None
    assert (waits.kind, waits.until) == (WaitKind.TIMER, store.now_ms + 3600_000)
    store.now_ms += 3600_000
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.result["missing"]["nap"]["reason"] == "TimedOut"


@pytest.mark.holds("patterns.md", "A quorum, a race and a time-out come out alike in every replay")
async def test_a_pattern_that_its_agent_gives_up_is_given_up_in_every_replay() -> None:
    async def agent(ctx: Context, _task: Task) -> str:
        try:
            async with asyncio.timeout(0.02):
                await ctx.fan_out({"Faro": asking(ctx, "Faro")}, timeout_seconds=0.05)
        except TimeoutError:
            return str(await ctx.tool("weather", {"city": "Braga"}))
        return "in time"

    stories = await crashed_everywhere(lambda: Story(program_of(agent, *TOOLS), four_cities))
    assert {story.result for story in stories} == {"braga"}


@pytest.mark.holds(
    "patterns.md",
    "A branch that no limit leaves room for says so; a `TaskFailedError` ends the pattern; a "
    "cancelled task stops all branches",
)
async def test_a_cancelled_task_stops_all_branches() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.fan_out({"Faro": asking(ctx, "Faro")}, timeout_seconds=60)

    store = MemoryStore()
    store.submit("t1", "?")
    asked = asyncio.Event()

    async def hanging(call: Call) -> Reply:
        asked.set()
        return await never_answers(call)

    calls = ScriptedCalls(script=hanging)
    one = begin(store, program_of(agent, *TOOLS), calls)
    running = asyncio.create_task(one.run())
    await asked.wait()
    one.interrupt(Interrupt.CANCEL)
    assert await running is RunOutcome.ENDED
    assert calls.stopped == ["fan_out/Faro/tool/weather"]
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.reason is EndReason.CANCELLED


@pytest.mark.holds("patterns.md", "Patterns within patterns, and two of one kind, have ids of their own")
async def test_patterns_within_patterns_and_two_at_once_have_ids_of_their_own() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        def inner(country: str) -> Any:
            return lambda: ctx.fan_out({city: asking(ctx, city) for city in (country, "Braga")})

        both = await asyncio.gather(
            ctx.fan_out({"Lisbon": inner("Lisbon")}, quorum=1),
            ctx.fan_out({"Lisbon": inner("Lisbon")}, name="again"),
        )
        values: list[Gathered] = [one.values["Lisbon"] for one in both]
        return [list(one.present) for one in values]

    for story in await crashed_everywhere(lambda: Story(program_of(agent, *TOOLS), four_cities)):
        assert story.result == [["Lisbon", "Braga"]] * 2
        assert set(story.calls.made) == {
            f"{name}/Lisbon/fan_out/{city}/tool/weather"
            for name in ("fan_out", "again")
            for city in ("Lisbon", "Braga")
        }


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quorum": 0}, "quorum is 0, but there are 1 branches"),
        ({"quorum": 2}, "quorum is 2, but there are 1 branches"),
        ({"at_once": 0}, "at_once must be at least 1"),
        ({"timeout_seconds": {"Rome": 1}}, "timeout_seconds names branches that there are not: Rome"),
    ],
)
async def test_what_cannot_be_meant_is_refused(options: dict[str, Any], says: str) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.fan_out({"Lisbon": asking(ctx, "Lisbon")}, **options)

    story = await Story(program_of(agent, *TOOLS), four_cities).to_the_end()
    assert story.task.finish is not None
    assert says in story.task.finish.message


async def test_code_that_asks_for_other_branches_when_it_is_resumed_is_named() -> None:
    cities = ["Lisbon", "Faro"]

    async def agent(ctx: Context, _task: Task) -> Any:
        await ctx.fan_out({city: asking(ctx, city) for city in cities}, quorum=1)
        return await ctx.tool("weather", {"city": "Braga"})

    story = Story(program_of(agent, *TOOLS), four_cities)
    rehearsal = await Story(program_of(agent, *TOOLS), four_cities).to_the_end()
    story.crash_at(rehearsal.store.points.passed.index("before Intended tool/weather"))
    await story.one_run()
    cities[:] = ["Lisbon", "Braga"]
    story.crash_at(None)
    await story.one_run()
    assert story.task.finish is not None
    assert story.task.finish.reason is EndReason.INVALID
    assert "fan_out/chosen" in story.task.finish.message


@pytest.mark.holds(
    "observability.md", "Workers measure how long branches took and the first waited for the last"
)
async def test_the_times_of_branches_are_told_by_the_run_that_made_them_alone() -> None:
    """A run that goes on after a crash does not know how long they took."""
    told: list[PatternEnd] = []

    async def weather(call: Call) -> Reply:
        await asyncio.sleep(CITIES.index(call.request["city"]) / 20)
        store.now_ms += 1000
        return Reply(outcome=CallOutcome.SUCCEEDED, value="sun")

    def seconds() -> float:
        return store.now_ms / 1000

    for crash_at in (None, "after call fan_out/Porto/tool/weather"):
        store = MemoryStore(CrashPoints(crash_at=crash_at))
        store.submit("t1", "Where to?")
        calls = ScriptedCalls(script=weather, points=store.points)
        for _ in range(2):
            claim, task = store.claim("t1")
            clock = Clock(monotonic_seconds=seconds)
            means = Means(worker="w", journal=store, calls=calls, clock=clock, on_pattern=told.append)
            with contextlib.suppress(BaseExceptionGroup, CrashError):
                await TaskRun(claim, task, program_of(four_suns, *TOOLS), means).run()
            if store.tasks["t1"].finish is not None:
                break
            store.points = calls.points = CrashPoints()
    whole, resumed = told
    assert sorted(whole.took_ms) == [1000, 2000, 3000, 4000]
    assert whole.fan_in_ms == 3000
    assert (resumed.took_ms, resumed.fan_in_ms) == ((), None)


async def four_suns(ctx: Context, _task: Task) -> dict[str, Any]:
    return (await ctx.fan_out({city: asking(ctx, city) for city in CITIES})).document


@pytest.mark.holds(
    "patterns.md",
    "A pattern is counted once, by the worker under which it ended, however often its task is replayed",
)
async def test_a_pattern_is_counted_once_however_often_its_task_is_replayed() -> None:
    """One that another one contains too. Each has another size here; the last one writes a choice."""

    async def agent(ctx: Context, _task: Task) -> Any:
        def trip(cities: tuple[str, ...]) -> Any:
            return lambda: ctx.fan_out({city: asking(ctx, city) for city in cities})

        await ctx.fan_out({"short": trip(CITIES[:1]), "long": trip(CITIES[1:])})
        await ctx.fan_out({city: asking(ctx, city) for city in CITIES}, quorum=1)
        await ctx.tool("weather", {"city": "Lisbon"})
        return await ctx.tool("weather", {"city": "Porto"})

    async def weather(_call: Call) -> Reply:
        return Reply(outcome=CallOutcome.SUCCEEDED, value="sun")

    whole, *stories = await crashed_everywhere(lambda: Story(program_of(agent, *TOOLS), weather))
    all_ended = whole.store.points.passed.index("before Intended tool/weather")
    once, crashed_as_it_chose = Counter([1, 2, 3, 4]), Counter([4])
    for place, story in enumerate([*stories, whole]):
        counted = Counter(sum(end.outcomes.values()) for end in story.patterns)
        assert counted == once if place >= all_ended else counted <= once + crashed_as_it_chose
