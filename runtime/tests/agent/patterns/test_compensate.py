"""Compensations: in reverse order, once each, through a crash anywhere; what comes of one that fails.

That cancelled tasks make them before they end is tested against a real Redis in test_unwinding.py.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from agent_support.lives import Story, crashed_everywhere, never_answers
from agent_support.memory import MemoryStore, Stored
from agent_support.running import ScriptedCalls, config_of, failed, program_of, run, tool_of, usual
from flotilla_runtime.agent.engine import compensations, unwinding
from flotilla_runtime.agent.engine.compensations import may_be_tried_again
from flotilla_runtime.agent.engine.endings import Ending
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.errors import NoRoomError
from flotilla_runtime.agent.journal import CallOutcome, Claimed, EndReason, TaskStatus
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Certainty, Finish, Reply
from flotilla_runtime.agent.replays import replay_of
from flotilla_runtime.agents import Context, Task, ToolFailedError
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import Approval, Effect, QueueConfig

UNDO = ("undo_hotel", "undo_flight")
Script = Callable[[Call], Reply | Awaitable[Reply]]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwinding, "BACKOFF", Backoff(base_seconds=0, limit_seconds=0))


async def saga(ctx: Context, _task: Task) -> str:
    for what in ("hotel", "flight"):
        await ctx.compensate(f"undo_{what}", {"what": what})
        await ctx.tool(what, {"what": what})
    ctx.partial = {"booked": 2}
    await ctx.tool("pay")
    return "paid"


def saga_with(undo: Effect = Effect.IDEMPOTENT, **fields: Any) -> Program:
    tools = [tool_of(name, Effect.IDEMPOTENT) for name in ("hotel", "flight", "pay")]
    config = config_of(queue=QueueConfig(fleet="default/support", max_attempts=3))
    return program_of(saga, *tools, *(tool_of(name, undo, **fields) for name in UNDO), config=config)


def without_pay(undo: Script = usual) -> Script:
    def script(call: Call) -> Reply | Awaitable[Reply]:
        if call.target == "pay":
            return failed("no money")
        return undo(call) if call.target in UNDO else usual(call)

    return script


def undone(story: Story) -> list[str]:
    return [call.target for call in story.calls.asked if call.target in UNDO]


def end_of(story: Story) -> tuple[TaskStatus, EndReason, str]:
    finish = story.task.finish
    assert finish is not None
    return finish.status, finish.reason, finish.message


@pytest.mark.holds(
    "agent-code.md", "What a task did is undone in reverse order and once, wherever workers are lost"
)
async def test_what_was_done_is_undone_in_reverse_through_a_crash_anywhere() -> None:
    stories = await crashed_everywhere(lambda: Story(saga_with(), without_pay()))
    assert len(stories) > 25
    for story in stories:
        assert end_of(story) == (TaskStatus.FAILED, EndReason.TOOL_FAILED, "pay: no money")
        assert story.task.finish is not None
        assert story.task.finish.partial == {"booked": 2}
        assert list(dict.fromkeys(undone(story))) == ["undo_flight", "undo_hotel"]
        keys = {call.key for call in story.calls.asked if call.target in UNDO}
        assert len(keys) == 2, "a call that is made again has the same key"
        assert next(call.request for call in story.calls.asked if call.target == "undo_hotel") == {
            "what": "hotel"
        }


@pytest.mark.holds(
    "agent-code.md", "What a task did is undone in reverse order and once, wherever workers are lost"
)
async def test_an_unsafe_compensation_is_never_made_twice() -> None:
    """Where it may have happened when its worker was lost, somebody is asked."""
    for story in await crashed_everywhere(lambda: Story(saga_with(Effect.UNSAFE), without_pay())):
        assert len(undone(story)) == len(set(undone(story)))
        status, reason, message = end_of(story)
        assert status is TaskStatus.FAILED
        if reason is not EndReason.TOOL_FAILED:
            assert reason is EndReason.COMPENSATION_FAILED
            assert "it is not known whether the call compensate/undo_" in message
            assert set(undone(story)) | {"undo_flight", "undo_hotel"} == set(UNDO)


@pytest.mark.holds("agent-code.md", "Only what was registered is undone, and nothing of a task that succeeds")
async def test_a_task_that_succeeds_makes_none() -> None:
    story = await Story(saga_with(), usual).to_the_end()
    assert (story.result, undone(story)) == ("paid", [])


@pytest.mark.holds("agent-code.md", "Only what was registered is undone, and nothing of a task that succeeds")
async def test_only_what_was_registered_is_undone() -> None:
    def script(call: Call) -> Reply:
        return failed("none left") if call.target == "hotel" else usual(call)

    story = await Story(saga_with(), script).to_the_end()
    assert undone(story) == ["undo_hotel"]
    assert end_of(story)[1] is EndReason.TOOL_FAILED


@pytest.mark.holds(
    "agent-code.md",
    "A compensation that fails is tried again under the same key, an Unsafe one is not; the task "
    "ends as CompensationFailed and names it",
)
async def test_one_that_fails_is_tried_again_under_the_same_key() -> None:
    def second_time(call: Call) -> Reply:
        return usual(call) if call.id.endswith("-3") else failed("busy")

    story = await Story(saga_with(), without_pay(second_time)).to_the_end()
    assert end_of(story)[1] is EndReason.TOOL_FAILED
    tries = [call for call in story.calls.asked if call.target == "undo_flight"]
    assert [call.id for call in tries] == [
        "compensate/undo_flight#compensation",
        "compensate/undo_flight#compensation-2",
        "compensate/undo_flight#compensation-3",
    ]
    assert len({call.key for call in tries}) == 1


@pytest.mark.holds(
    "agent-code.md",
    "A compensation that fails is tried again under the same key, an Unsafe one is not; the task "
    "ends as CompensationFailed and names it",
)
@pytest.mark.parametrize(("effect", "tries"), [(Effect.PURE, 5), (Effect.IDEMPOTENT, 5), (Effect.UNSAFE, 1)])
async def test_the_error_names_one_that_fails_for_good_and_the_others_are_made(
    effect: Effect, tries: int
) -> None:
    def flight_stays(call: Call) -> Reply:
        return failed("closed") if call.target == "undo_flight" else usual(call)

    story = await Story(saga_with(effect), without_pay(flight_stays)).to_the_end()
    assert end_of(story) == (
        TaskStatus.FAILED,
        EndReason.COMPENSATION_FAILED,
        "not compensated: undo_flight (compensate/undo_flight): undo_flight: closed; "
        "the task had come to ToolFailed: pay: no money".replace("undo_flight: closed", "closed"),
    )
    assert undone(story) == ["undo_flight"] * tries + ["undo_hotel"]
    assert may_be_tried_again(effect, 1) == (tries > 1)


@pytest.mark.holds(
    "agent-code.md", "A compensation that an open circuit held back is called later, also an Unsafe one"
)
async def test_one_that_the_circuit_of_its_tool_held_back_is_called_later_also_an_unsafe_one() -> None:
    def open_at_first(call: Call) -> Reply:
        if "-2" in call.id:
            return usual(call)
        return Reply(outcome=CallOutcome.FAILED, problem="its circuit is open", retry_after_ms=1)

    story = await Story(saga_with(Effect.UNSAFE), without_pay(open_at_first)).to_the_end()
    assert end_of(story)[1] is EndReason.TOOL_FAILED
    assert undone(story) == ["undo_flight", "undo_flight", "undo_hotel", "undo_hotel"]


@pytest.mark.holds(
    "agent-code.md",
    "A cancelled task is undone before it ends, also a suspended one and through crashes; a second "
    "cancellation stops nothing",
)
async def test_a_cancelled_task_makes_them_and_heeds_no_second_cancellation() -> None:
    story = Story(saga_with(), usual)

    def cancelling(call: Call) -> Reply:
        if call.target == "flight":
            story.task.cancel_requested = True
        return usual(call)

    story.calls.script = cancelling
    await story.to_the_end()
    assert end_of(story) == (TaskStatus.CANCELLED, EndReason.CANCELLED, "cancelled by the caller")
    assert undone(story) == ["undo_flight", "undo_hotel"]
    assert "pay" not in [call.target for call in story.calls.asked]


@pytest.mark.holds(
    "agent-code.md",
    "Compensations have 600 s and attempts of their own, and are written where the caller's share is full",
)
async def test_they_have_a_time_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensations, "SECONDS", 0.2)

    async def hangs(call: Call) -> Reply:
        return await never_answers(call) if call.target == "undo_flight" else usual(call)

    story = await Story(saga_with(), without_pay(hangs)).to_the_end()
    _, reason, message = end_of(story)
    assert reason is EndReason.COMPENSATION_FAILED
    late = "not made, because the compensations did not end within 0.2 s"
    assert f"undo_flight (compensate/undo_flight): {late}" in message
    assert f"undo_hotel (compensate/undo_hotel): {late}" in message


@pytest.mark.holds("agent-code.md", "Nothing is undone while a task that was spawned lives")
@pytest.mark.parametrize("is_given_up", [False, True])
async def test_nothing_is_undone_while_a_spawned_task_lives(is_given_up: bool) -> None:
    """Not before that task has undone its own; whether the agent still awaits it or has given it up."""

    async def agent(ctx: Context, task: Task) -> Any:
        what = "flight" if task.input == "part" else "hotel"
        await ctx.compensate(f"undo_{what}", {"what": what})
        await ctx.tool(what, {"what": what})
        if what == "flight":
            await ctx.sleep(3600)
        part = asyncio.ensure_future(ctx.spawn("part"))
        try:
            await ctx.sleep(60)
            return await ctx.tool("pay")
        finally:
            if is_given_up:
                part.cancel()
                await asyncio.wait({part})

    program = replace(saga_with(), main=agent)
    store, calls = MemoryStore(), ScriptedCalls(script=without_pay())
    store.submit("t1", "go")
    assert await run(store, program, calls) is RunOutcome.SUSPENDED
    task, part = store.tasks.values()
    assert await run(store, program, calls, part.id) is RunOutcome.SUSPENDED
    store.now_ms += 60_000
    assert await run(store, program, calls) is RunOutcome.HANDED_OVER
    assert await run(store, program, calls) is RunOutcome.SUSPENDED
    assert [call.target for call in calls.asked] == ["hotel", "flight", "pay"]
    assert await run(store, program, calls, part.id) is RunOutcome.HANDED_OVER
    assert await run(store, program, calls, part.id) is RunOutcome.ENDED
    assert await run(store, program, calls) is RunOutcome.ENDED
    assert [call.target for call in calls.asked][3:] == ["undo_flight", "undo_hotel"]
    assert [one.finish.reason for one in (task, part) if one.finish] == [
        EndReason.TOOL_FAILED,
        EndReason.CANCELLED,
    ]


async def test_an_agent_that_has_killed_its_workers_does_not_run_again_but_its_task_is_undone() -> None:
    story = Story(saga_with(), without_pay())
    story.crash_at(8)
    await story.one_run()
    made = list(story.calls.made)
    story.crash_at(None)
    story.task.attempts = 3
    await story.to_the_end()
    assert end_of(story)[1] is EndReason.INFRASTRUCTURE
    assert [name for name in story.calls.made[len(made) :] if "#compensation" not in name] == []
    assert undone(story)[-1] == "undo_hotel"
    assert [entry.attempt for entry in story.task.entries if isinstance(entry, Claimed)][1] == 4


async def test_a_result_that_finds_no_room_is_undone() -> None:
    class Full(MemoryStore):
        async def finish(self, claim: Any, finish: Finish) -> None:
            if finish.unwinds:
                raise NoRoomError("there is no room for the result")
            await super().finish(claim, finish)

    story = Story(saga_with(), usual)
    story.store = Full()
    story.store.submit("t1", "go")
    await story.to_the_end()
    told = (TaskStatus.FAILED, EndReason.INFRASTRUCTURE, "there is no room for the result")
    assert end_of(story) == told
    assert undone(story) == ["undo_flight", "undo_hotel"]


@pytest.mark.holds(
    "agent-code.md",
    "An Unsafe compensation without an answer, and one that needs approval, wait for somebody",
)
async def test_an_unsafe_one_that_nobody_answers_waits_for_somebody_also_when_cancelled() -> None:
    def silent(call: Call) -> Reply:
        return Reply(outcome=CallOutcome.TIMED_OUT, problem="no answer", certainty=Certainty.UNKNOWN)

    story = Story(saga_with(Effect.UNSAFE), without_pay(silent))
    await story.one_run()
    await story.one_run()
    task: Stored = story.task
    assert task.status is TaskStatus.SUSPENDED
    task.cancel_requested = True
    await story.one_run()
    assert task.status is TaskStatus.SUSPENDED, "a cancellation does not make it run round and round"
    story.store.resolve("t1", "compensate/undo_flight#compensation", happened=True)
    await story.to_the_end()
    assert undone(story) == ["undo_flight", "undo_hotel"]
    _, reason, message = end_of(story)
    assert reason is EndReason.COMPENSATION_FAILED
    assert "undo_flight" not in message
    assert "undo_hotel (compensate/undo_hotel): it is not known whether" in message


@pytest.mark.holds(
    "agent-code.md",
    "An Unsafe compensation without an answer, and one that needs approval, wait for somebody",
)
async def test_a_compensation_that_somebody_must_approve_waits_for_that() -> None:
    story = Story(saga_with(approval=Approval.ALWAYS), without_pay())
    await story.one_run()
    await story.one_run()
    call = "compensate/undo_flight#compensation#approval"
    assert story.store.decide("t1", call, approved=False, comment="keep it")
    await story.one_run()
    assert story.store.decide("t1", "compensate/undo_hotel#compensation#approval")
    await story.to_the_end()
    assert undone(story) == ["undo_hotel"]
    assert "boss refused it: keep it" in end_of(story)[2]


@pytest.mark.holds(
    "agent-code.md",
    "At most 100 compensations, and such that could not be called are refused when they are registered",
)
@pytest.mark.parametrize(
    ("tool", "arguments", "problem"),
    [
        ("nothing", {}, "there is no tool nothing"),
        ("undo", {"what": 7}, "what"),
        ("undo", {"what": "x" * 20_000}, "at most 16384 are stored"),
    ],
)
async def test_one_that_could_not_be_called_is_refused_at_once(
    tool: str, arguments: dict[str, Any], problem: str
) -> None:
    async def agent(ctx: Context, _task: Task) -> str:
        try:
            await ctx.compensate(tool, arguments)
        except ToolFailedError as refused:
            return refused.problem
        return "registered"

    schema = {"type": "object", "properties": {"what": {"type": "string"}}}
    program = program_of(agent, tool_of("undo", Effect.IDEMPOTENT, schema))
    assert problem in (await Story(program, usual).to_the_end()).result


@pytest.mark.holds(
    "agent-code.md",
    "At most 100 compensations, and such that could not be called are refused when they are registered",
)
async def test_a_task_may_register_so_many() -> None:
    async def agent(ctx: Context, _task: Task) -> None:
        for _ in range(compensations.MOST_REGISTERED + 1):
            await ctx.compensate("undo_hotel")

    program = program_of(agent, tool_of("undo_hotel", Effect.PURE))
    story = await Story(program, usual).to_the_end()
    assert "a task may register 100 compensations at most" in end_of(story)[2]
    assert len(undone(story)) == compensations.MOST_REGISTERED


@pytest.mark.holds("agent-code.md", "A replay keeps nothing of what was undone")
async def test_a_replay_keeps_nothing_of_what_was_undone() -> None:
    story = await Story(saga_with(), without_pay()).to_the_end()
    replay = replay_of(story.task.entries)
    assert replay.kept == ()
    assert [intent.call for intent in replay.effects] == ["tool/hotel", "tool/flight", "tool/pay"]


async def test_a_replay_of_a_task_that_undid_nothing_keeps_what_it_registered() -> None:
    story = await Story(saga_with(), usual).to_the_end()
    kept = [getattr(entry, "call", "") for entry in replay_of(story.task.entries, "tool/pay").kept][::2]
    assert kept == ["compensate/undo_hotel", "tool/hotel", "compensate/undo_flight", "tool/flight"]


@pytest.mark.parametrize(
    ("before", "failed", "reason", "message"),
    [
        pytest.param(EndReason.CANCELLED, [], EndReason.CANCELLED, "so", id="cancelled"),
        pytest.param(EndReason.TIMEOUT, [], EndReason.TIMEOUT, "so", id="failed"),
        pytest.param(
            EndReason.CANCELLED,
            ["undo (compensate/undo): closed"],
            EndReason.COMPENSATION_FAILED,
            "not compensated: undo (compensate/undo): closed; the task had come to Cancelled: so",
            id="one of them failed",
        ),
    ],
)
def test_how_a_task_ends_after_its_compensations(
    before: EndReason, failed: list[str], reason: EndReason, message: str
) -> None:
    end = compensations.with_failures(Ending.without_result(before, "so"), failed)
    assert (end.reason, end.message) == (reason, message)
    assert (end.status is TaskStatus.CANCELLED) == (reason is EndReason.CANCELLED)
