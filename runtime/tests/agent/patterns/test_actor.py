"""Actors: each message handled once and in order through a crash anywhere, state, children, supervision.

What the store refuses and in which order it hands messages out is tested on a real Redis in
store/test_store_actors.py.
"""

import asyncio
import json
from typing import Any

import pytest

from agent_support.postal import Village, village_crashed_everywhere
from agent_support.running import failed, program_of, tool_of, usual
from flotilla_runtime.agent import actors
from flotilla_runtime.agent.actors import (
    Policy,
    address_of,
    failures_within,
    must_end,
    reference_of,
)
from flotilla_runtime.agent.engine.state import KEY
from flotilla_runtime.agent.journal import EndReason, Suspended, TaskStatus
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import (
    ActorEnded,
    ChildFailedError,
    Context,
    LimitReachedError,
    MessageRefusal,
    MessageRefusedError,
    Task,
    TaskFailedError,
    Turn,
)
from flotilla_runtime.contract import Effect, TaskLimits

PRINT = tool_of("print", Effect.IDEMPOTENT)


async def counter(ctx: Context, state: list[Any] | None, message: Any) -> Turn:
    """Keeps all that it was told, and prints it."""
    seen = [*(state or []), message]
    if message == "bad":
        raise TaskFailedError(EndReason.TOOL_FAILED, "no such message")
    if message == "stop":
        return Turn(state=seen, answer="stopped", ends=True)
    await ctx.tool("print", {"seen": seen})
    return Turn(state=seen, answer=len(seen))


class Parent:
    """Has a counter as a child, and keeps what it hears of its end."""

    async def receive(self, ctx: Context, state: Any, message: Any) -> Turn:
        if isinstance(message, ActorEnded):
            heard = [message.address, str(message.reason), message.message]
            return Turn(state=heard)
        child = ctx.actor("child", counter, child=True)
        if message == "heard":
            return Turn(state=state, answer=state)
        return Turn(state=state, answer=await child.tell(message))


def printed(village: Village) -> list[Any]:
    """The lines that were printed: a call that is made again has the same key."""
    by_key = {call.key: call.request["seen"] for call in village.calls.asked if call.target == "print"}
    return list(by_key.values())


async def teller(ctx: Context, _task: Task) -> Any:
    one = ctx.actor("one", counter)
    for number in range(3):
        await one.tell(number)
    return await one.ask("last")


@pytest.mark.holds(
    "patterns.md",
    "Each message of an actor is handled once and in order, wherever workers are lost, and no "
    "finished call is repeated",
)
async def test_messages_are_handled_once_and_in_order_through_a_crash_anywhere() -> None:
    villages = await village_crashed_everywhere(lambda: Village(program_of(teller, PRINT), usual))
    assert len(villages) > 60
    for village in villages:
        assert village.result == 4
        assert printed(village) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, "last"]]
        assert len(village.messages("one")) == 4, "no message is sent twice"
        assert '"state":[0,1,2,"last"]' in (village.kept("actor/one") or "")


@pytest.mark.holds(
    "patterns.md", "An actor keeps its state between tasks; that of another tenant or agent is another one"
)
async def test_an_actor_keeps_its_state_between_tasks() -> None:
    village = await Village(program_of(teller, PRINT), usual).to_the_end()
    village.store.submit("01jd0000000000000000000002", "go", TaskLimits())
    await village.to_the_end()
    finish = village.store.tasks["01jd0000000000000000000002"].finish
    assert finish is not None
    assert finish.result == 8


@pytest.mark.holds(
    "patterns.md",
    "A message that fails leaves the state, and the actor goes on; one that is cancelled does not count",
)
async def test_a_message_that_fails_leaves_the_state_and_the_actor_goes_on() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        one = ctx.actor("one", counter)
        await one.tell(1)
        try:
            await one.ask("bad")
        except ChildFailedError as problem:
            return [str(problem.end.reason), await one.ask(2)]

    for village in await village_crashed_everywhere(lambda: Village(program_of(agent, PRINT), usual)):
        assert village.result == ["ToolFailed", 2]
        assert printed(village) == [[1], [1, 2]]


async def fails_too_often(ctx: Context, _task: Task) -> Any:
    parent = ctx.actor("house", Parent)
    for message in ("a", "bad", "bad", "bad", "bad"):
        await parent.ask(message)
    try:
        await ctx.actor("house/child", counter).ask("c")
    except MessageRefusedError as refused:
        return [str(refused.refusal), refused.problem, await parent.ask("heard")]


@pytest.mark.holds(
    "patterns.md",
    "An actor that fails more often than it may within its window ends, and its parent is told once",
)
async def test_an_actor_that_fails_too_often_ends_and_its_parent_is_told() -> None:
    villages = await village_crashed_everywhere(
        lambda: Village(program_of(fails_too_often, PRINT), usual), every=6
    )
    for village in villages:
        refusal, problem, heard = village.result
        assert refusal == MessageRefusal.ACTOR_ENDED
        assert "ended" in problem
        if heard is not None:  # the notice may come after the question
            assert heard[:2] == ["house/child", "ToolFailed"]
            assert "it failed 4 times within 60 s, and may be restarted 3 times" in heard[2]
        ends = [str(one.finish.reason) for one in village.messages("house/child") if one.finish]
        assert ends[:5] == ["Completed", *["ToolFailed"] * 4]
        assert set(ends[5:]) <= {"ActorEnded"}
        assert sum(one.post.delivery.is_notice for one in village.messages("house") if one.post) == 1
        assert village.kept("actor/house/child") is None
        assert '"house/child"' in (village.kept("actor/house") or "")


@pytest.mark.holds(
    "patterns.md",
    "A message to an actor that has ended, or whose parent has, is refused; one that waited ends "
    "as ActorEnded",
)
async def test_an_actor_that_ends_by_itself_answers_first_and_then_refuses() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        one = ctx.actor("one", counter)
        stopped = await one.ask("stop")
        try:
            await one.tell("more")
        except MessageRefusedError as refused:
            return [stopped, str(refused.refusal), str(refused.outcome)]

    for village in await village_crashed_everywhere(lambda: Village(program_of(agent, PRINT), usual)):
        assert village.result == ["stopped", "actorEnded", "Refused"]
        assert len(village.messages("one")) == 1


@pytest.mark.holds(
    "patterns.md",
    "A message to an actor that has ended, or whose parent has, is refused; one that waited ends "
    "as ActorEnded",
)
@pytest.mark.parametrize(
    ("first", "reason"),
    [
        pytest.param("stop", EndReason.ACTOR_ENDED, id="the actor has ended"),
        pytest.param("bad", EndReason.COMPLETED, id="the message before has failed"),
    ],
)
async def test_how_a_message_ends_that_has_waited_behind_another_one(first: str, reason: EndReason) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        one = ctx.actor("one", counter)
        await one.tell(first)
        try:
            return await one.ask("late")
        except MessageRefusedError as refused:
            return refused.problem

    village = await Village(program_of(agent, PRINT), usual).to_the_end()
    late = village.messages("one")[1].finish
    assert late is not None
    assert late.reason is reason
    if reason is EndReason.ACTOR_ENDED:
        assert late.status is TaskStatus.FAILED
        assert village.result == late.message == "the actor one has ended as Completed: it ended by itself"


@pytest.mark.holds(
    "patterns.md",
    "A message to an actor that has ended, or whose parent has, is refused; one that waited ends "
    "as ActorEnded",
)
async def test_the_children_of_an_actor_that_has_ended_take_no_messages() -> None:
    class_of_child = counter

    async def agent(ctx: Context, _task: Task) -> Any:
        await ctx.actor("one", counter).ask("stop")
        try:
            await ctx.actor("one/child", class_of_child).tell(1)
        except MessageRefusedError as refused:
            return str(refused.refusal)

    assert (await Village(program_of(agent, PRINT), usual).to_the_end()).result == "actorEnded"


async def slow(ctx: Context, state: Any, message: Any) -> Turn:
    """Sleeps, and then does as it was told."""
    if message == "first":
        return Turn(state="kept")
    await ctx.sleep(60)
    if message == "fail":
        raise TaskFailedError(EndReason.TOOL_FAILED, "no")
    return Turn(state="late", answer="answered", ends=message == "end")


class House:
    """Has children, which it leaves to themselves when it ends."""

    async def receive(self, ctx: Context, state: Any, message: Any) -> Turn:
        if message == "end":
            return Turn(ends=True)
        for name, told in message.items():
            await ctx.actor(name, slow, child=True).tell(told)
        return Turn(state=[*(state or []), *message])


def kept_keys(village: Village) -> set[str]:
    return {key for _, key in village.store.state_of}


@pytest.mark.holds(
    "patterns.md",
    "When an actor ends, what is kept below it goes with its bytes, also what is written at that time",
)
async def test_what_is_kept_of_children_goes_when_their_parent_ends() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        house = ctx.actor("house", House)
        await house.ask({"one": "first", "two": "first"})
        for name in ("house/one", "house/two", "house.other"):
            await ctx.actor(name, slow).ask("first")
        await house.ask("end")

    villages = await village_crashed_everywhere(lambda: Village(program_of(agent), usual), every=3)
    for village in villages:
        assert kept_keys(village) == {"ended/house", "actor/house.other"}


@pytest.mark.holds(
    "patterns.md",
    "When an actor ends, what is kept below it goes with its bytes, also what is written at that time",
)
@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("go on", EndReason.ACTOR_ENDED),
        ("fail", EndReason.TOOL_FAILED),
        ("end", EndReason.COMPLETED),
    ],
)
async def test_a_child_that_handles_a_message_while_its_parent_ends_keeps_nothing(
    message: str, reason: EndReason, is_new: bool
) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        house = ctx.actor("house", House)
        if not is_new:
            await house.ask({"one": "first"})
        await house.ask({"one": message})
        await ctx.sleep(30)
        await house.ask("end")

    village = await Village(program_of(agent), usual).to_the_end()
    last = village.messages("house/one")[-1].finish
    assert last is not None
    assert last.reason is reason
    if reason is EndReason.ACTOR_ENDED:
        assert last.message == "the actor house has ended as Completed: it ended by itself"
    assert kept_keys(village) == {"ended/house"}


async def narrow(ctx: Context, state: Any, message: Any) -> Turn:
    return Turn(state=message)


narrow.mailbox = 2  # type: ignore[attr-defined]


@pytest.mark.holds(
    "patterns.md",
    "A full mailbox and a large message are refused with the bound; an actor that would ask one "
    "that waits for it is told so",
)
async def test_a_full_mailbox_refuses_with_its_bound() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        one = ctx.actor("one", narrow)
        try:
            for number in range(5):
                await one.tell(number)
        except MessageRefusedError as refused:
            return [number, str(refused.refusal), refused.problem]

    village = await Village(program_of(agent), usual).to_the_end()
    assert village.result == [
        2,
        "mailbox",
        "the mailbox of the actor one has 2 messages, and may have 2 (mailbox); send again later",
    ]


async def echo(ctx: Context, state: Any, message: Any) -> Turn:
    """Asks the next actor of the message, as long as there is one."""
    if not message:
        return Turn(answer="end")
    try:
        return Turn(answer=await ctx.actor(message[0], echo).ask(message[1:]))
    except MessageRefusedError as refused:
        return Turn(answer=str(refused.refusal))


@pytest.mark.holds(
    "patterns.md",
    "A full mailbox and a large message are refused with the bound; an actor that would ask one "
    "that waits for it is told so",
)
async def test_an_actor_that_asks_itself_through_others_is_told_so_and_waits_for_nothing() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return [await ctx.actor("a", echo).ask([*path]) for path in ("a", "ba", "bc")]

    village = await Village(program_of(agent), usual).to_the_end()
    assert village.result == ["asksItself", "asksItself", "end"]


class Polite:
    """Greets whoever asks it. Otherwise it greets another one, itself or by a task that it spawns."""

    mailbox = 10

    async def receive(self, ctx: Context, state: Any, message: Any) -> Turn:
        if message == "hello":
            return Turn(state=state, answer="hello to you")
        if message["spawns"]:
            return Turn(state=await ctx.spawn(message["greets"]))
        return Turn(state=await greeted(ctx, message["greets"]))


async def greeted(ctx: Context, whom: str) -> str:
    """The answer of an actor, or why it takes no message."""
    try:
        return str(await ctx.actor(whom, Polite).ask("hello"))
    except MessageRefusedError as refused:
        return str(refused.refusal)


def who_greets(*greetings: str, spawn: str = "") -> Village:
    """Actors that each greet the next one of a greeting, all at the same time; `spawn` have it done."""

    async def agent(ctx: Context, task: Task) -> Any:
        if task.input != "go":
            return await greeted(ctx, task.input)
        for greeting in greetings:
            who, whom = greeting[0], greeting[1]
            await ctx.actor(who, Polite).tell({"greets": whom, "spawns": who in spawn})
        return None

    return Village(program_of(agent), usual)


def answers_of(village: Village) -> dict[str, Any]:
    return {
        key.removeprefix("actor/"): json.loads(text)["state"]
        for (_, key), text in village.store.state_of.items()
    }


@pytest.mark.holds(
    "patterns.md",
    "Of actors that ask in a circle, one is refused; who asks without a circle is not; a question "
    "may have a time-out",
)
@pytest.mark.parametrize("greetings", [("ab", "ba"), ("ab", "bc", "ca")])
@pytest.mark.parametrize("spawn", ["", "a", "b"])
async def test_of_actors_that_ask_in_a_circle_one_is_refused(greetings: tuple[str, ...], spawn: str) -> None:
    villages = await village_crashed_everywhere(lambda: who_greets(*greetings, spawn=spawn), every=7)
    refused = [[*answers_of(village).values()].count("asksItself") for village in villages]
    assert refused[0] == 1
    assert set(refused) <= {0, 1}, "where one is late, no circle closes"
    for village, is_refused in zip(villages, refused, strict=True):
        answered = [*answers_of(village).values()].count("hello to you")
        assert answered == len(greetings) - is_refused


@pytest.mark.holds(
    "patterns.md",
    "Of actors that ask in a circle, one is refused; who asks without a circle is not; a question "
    "may have a time-out",
)
async def test_actors_that_ask_one_that_waits_for_another_are_not_refused() -> None:
    village = await who_greets("cd", "ac", "bc", "ea").to_the_end()
    assert answers_of(village) == {**dict.fromkeys("abce", "hello to you"), "d": None}


@pytest.mark.holds(
    "patterns.md",
    "Of actors that ask in a circle, one is refused; who asks without a circle is not; a question "
    "may have a time-out",
)
async def test_a_question_may_have_a_time_out() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        late = ctx.actor("one", slow)
        asked = await ctx.fan_out({"other": lambda: late.ask("wait")}, timeout_seconds=30)
        return asked.document["results"]

    assert (await Village(program_of(agent), usual).to_the_end()).result == {"other": None}


async def chatty(ctx: Context, state: Any, message: Any) -> Turn:
    await ctx.actor("pong" if ctx.address == "ping" else "ping", chatty).tell(message + 1)
    return Turn(state=message)


@pytest.mark.holds(
    "patterns.md",
    "Messages use the budget of the task from which they came, also after its end; a told one "
    "outlives its sender",
)
async def test_actors_that_tell_each_other_for_ever_end_with_the_steps_of_the_task() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return bool(await ctx.actor("ping", chatty).tell(0))

    village = await Village(program_of(agent), usual, max_steps=20).to_the_end()
    assert village.result is True
    assert village.task.tree.used.steps == 20
    last = list(village.store.tasks.values())[-1].finish
    assert last is not None
    assert last.reason is EndReason.MAX_STEPS


async def test_a_task_without_steps_sends_nothing() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        try:
            await ctx.actor("one", counter).tell(0)
        except LimitReachedError as problem:
            return str(problem.limit)

    village = Village(program_of(agent), usual, max_steps=0)
    assert (await village.to_the_end()).result == "maxSteps"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        pytest.param(("", counter, {}), "is no address", id="no name"),
        pytest.param(("a b", counter, {}), "is no address", id="a space"),
        pytest.param(("a/../b", counter, {}), "is no address", id="a way up"),
        pytest.param(("x" * (actors.LONGEST_ADDRESS + 1), counter, {}), "is no address", id="too long"),
        pytest.param(("a", counter, {"child": True}), "only of an actor", id="a child of a task"),
        pytest.param(("a", printed, {}), "handles no messages", id="a plain function"),
        pytest.param(("a", Policy, {}), "handles no messages", id="a class without receive"),
    ],
)
async def test_what_is_no_actor_is_refused(given: Any, problem: str) -> None:
    name, handler, fields = given

    async def agent(ctx: Context, _task: Task) -> Any:
        try:
            ctx.actor(name, handler, **fields)
        except ValueError as refused:
            return str(refused)

    assert problem in (await Village(program_of(agent), usual).to_the_end()).result


@pytest.mark.holds(
    "patterns.md",
    "A full mailbox and a large message are refused with the bound; an actor that would ask one "
    "that waits for it is told so",
)
async def test_a_message_over_its_bound_is_refused_with_it() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        try:
            await ctx.actor("one", counter).tell("x" * actors.MOST_MESSAGE_BYTES)
        except ValueError as refused:
            return str(refused)

    village = await Village(program_of(agent), usual).to_the_end()
    assert village.result == "the message to the actor one has 49154 bytes, and at most 49152 are stored"


async def large(ctx: Context, state: Any, message: Any) -> Turn:
    return Turn(state="x" * 50_000)


async def careless(ctx: Context, state: Any, message: Any) -> Any:
    return state


async def picky(ctx: Context, state: Any, message: Any) -> Any:
    await ctx.tool("print", {"seen": 1})
    raise TaskFailedError(EndReason.TOOL_FAILED, "no")


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (large, "the state of the actor one has 50002 bytes, and at most 49152 are stored"),
        (careless, "receive returned NoneType; it must return a Turn"),
        (picky, "no"),
    ],
)
async def test_what_a_handler_does_wrong_fails_its_message(handler: Any, problem: str) -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        try:
            return await ctx.actor("one", handler).ask(1)
        except ChildFailedError as refused:
            return refused.end.message

    assert problem in (await Village(program_of(agent, PRINT), usual).to_the_end()).result


@pytest.mark.holds(
    "patterns.md",
    "A task that asks more actors at once than `maxFanOut` is suspended until it may ask the next",
)
async def test_a_task_that_asks_more_than_it_may_at_once_is_suspended_until_it_may() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        async def asked(name: str) -> Any:
            with ctx.scope(name):
                return await ctx.actor(name, counter).ask(name)

        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(asked(name)) for name in "abc"]
        return [answer.result() for answer in answers]

    village = Village(program_of(agent, PRINT), usual)
    village.task.limits = TaskLimits(max_fan_out=1)
    async with asyncio.timeout(20):
        await village.to_the_end()
    assert village.result == [1, 1, 1]
    suspended = [entry for entry in village.task.entries if isinstance(entry, Suspended)]
    assert len(suspended) == 3


@pytest.mark.holds(
    "patterns.md",
    "A message that fails leaves the state, and the actor goes on; one that is cancelled does not count",
)
async def test_a_cancelled_message_is_no_failure_of_its_actor() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.actor("one", counter).tell(1)

    village = Village(program_of(agent, PRINT), usual)
    await village.one_run(village.task)
    (message,) = village.messages("one")
    message.cancel_requested = True
    await village.to_the_end()
    assert message.finish is not None
    assert message.finish.status is TaskStatus.CANCELLED
    assert village.kept("actor/one") is None


async def saga(ctx: Context, state: Any, message: Any) -> Turn:
    await ctx.compensate("print", {"seen": "undone"})
    await ctx.tool("pay")
    return Turn(state="paid")


@pytest.mark.holds("patterns.md", "A handler's compensations are made")
async def test_a_handler_may_compensate() -> None:
    async def agent(ctx: Context, _task: Task) -> Any:
        return await ctx.actor("one", saga).tell(1)

    def script(call: Call) -> Reply:
        return failed("no money") if call.target == "pay" else usual(call)

    program = program_of(agent, PRINT, tool_of("pay", Effect.IDEMPOTENT))
    for village in await village_crashed_everywhere(lambda: Village(program, script)):
        assert printed(village) == ["undone"]
        assert '"failures":[1000000]' in (village.kept("actor/one") or "")


@pytest.mark.holds(
    "patterns.md",
    "An actor that fails more often than it may within its window ends, and its parent is told once",
)
@pytest.mark.parametrize(
    ("failures", "at", "kept", "ends"),
    [
        ((), 100_000, (100_000,), False),
        ((10_000, 20_000), 30_000, (10_000, 20_000, 30_000), False),
        ((10_000, 20_000, 30_000), 40_000, (10_000, 20_000, 30_000, 40_000), True),
        ((10_000, 20_000, 30_000), 80_000, (30_000, 80_000), False),
    ],
)
def test_only_failures_within_the_window_count(
    failures: tuple[int, ...], at: int, kept: tuple[int, ...], ends: bool
) -> None:
    counted = failures_within(failures, at, Policy())
    assert (counted, must_end(counted, Policy())) == (kept, ends)


@pytest.mark.parametrize(
    ("name", "value"),
    [("mailbox", 0), ("mailbox", 1001), ("mailbox", "many"), ("restarts", -1), ("restart_seconds", 0)],
)
def test_a_handler_with_impossible_bounds_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} of the actor is {value!r}"):
        Policy.of(type("Odd", (), {name: value}))


def test_a_handler_within_a_function_is_found_by_no_worker() -> None:
    async def inner(ctx: Context, state: Any, message: Any) -> Turn:
        return Turn()

    with pytest.raises(ValueError, match="must stand at the top of a module"):
        reference_of(inner)
    assert reference_of(Parent).endswith(":Parent")
    assert address_of("audit", "account/7") == "account/7/audit"


@pytest.mark.parametrize("key_of", [actors.kept_key, actors.ended_key])
def test_the_keys_of_the_longest_address_may_be_written(key_of: Any) -> None:
    assert KEY.fullmatch(key_of(address_of("x/" * (actors.LONGEST_ADDRESS // 2 - 1) + "xx")))
