"""Sub-agents as tools of the built-in agent: what each may use, what comes back, and how trees end.

With real workers and a real Redis: test_sub_agents.py of the worker.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import (
    PASSAGE,
    ScriptedCalls,
    config_of,
    failed,
    found,
    program_of,
    run,
    said,
    tool_of,
)
from flotilla_runtime.agent.builtin.delegating import found_by_agent
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, EndReason, Intended, TaskStatus
from flotilla_runtime.agent.models import ModelRequest
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Finish, Reply
from flotilla_runtime.contract import (
    Effect,
    ModelConnection,
    Retrieval,
    SubAgentConfig,
    TaskLimits,
    ValidatorConfig,
)

RESEARCHER = SubAgentConfig(
    name="researcher",
    description="Knows the weather.",
    prompt="You research.",
    role="Routine",
    tools=("weather", "tickets"),
    indexes=("handbook",),
)
WRITER = SubAgentConfig(name="writer", description="Writes well.", prompt="You write.")

Script = Callable[[Call], Reply | Awaitable[Reply]]


def wants(*calls: tuple[str, dict[str, Any]]) -> Reply:
    """A turn of a model that makes these calls."""
    told = [
        {"id": f"c{place}", "name": name, "arguments": json.dumps(arguments)}
        for place, (name, arguments) in enumerate(calls)
    ]
    return said({"text": "", "toolCalls": told})


def program(main: Any = built_in, *tools: Any, **fields: Any) -> Program:
    models = tuple(
        ModelConnection(role=role, name=name, url="http://m/v1", model=name)
        for role, name in (("Default", "large"), ("Routine", "small"))
    )
    config = config_of(
        **{
            "indexes": ("handbook", "secrets"),
            "models": models,
            "agents": (RESEARCHER, WRITER),
            "retrieval": Retrieval.TOOL,
            **fields,
        }
    )
    made = program_of(main, *(tools or (tool_of("weather", Effect.PURE), tool_of("pay"))), config=config)
    return replace(made, built_in=built_in)


class Models:
    """The fleet's own agent answers by turns; others by `child`."""

    def __init__(self, *turns: Reply, child: Script | None = None) -> None:
        self.turns = list(turns)
        self.child = child or (lambda call: said("It is warm."))
        self.own: list[ModelRequest] = []
        self.others: list[Call] = []

    def __call__(self, call: Call) -> Reply | Awaitable[Reply]:
        if call.kind is CallKind.RETRIEVE:
            return found(PASSAGE)
        if call.kind is not CallKind.MODEL:
            return Reply(outcome=CallOutcome.SUCCEEDED, value="21°")
        if "You answer questions" in call.request.messages[0]["content"]:
            self.own.append(call.request)
            return self.turns.pop(0)
        self.others.append(call)
        return self.child(call)


async def one_place(store: MemoryStore, used: Program, calls: ScriptedCalls) -> None:
    """Run all tasks with a single place: always the oldest one that waits, until none does."""
    for _ in range(50):
        waiting = [name for name, task in store.tasks.items() if task.status is TaskStatus.WAITING]
        if not waiting:
            return
        await run(store, used, calls, waiting[0])
    raise AssertionError("the tree does not end")


async def tree(models: Models, used: Program | None = None, **limits: Any) -> tuple[Finish, MemoryStore]:
    store, calls = MemoryStore(), ScriptedCalls(script=models)
    store.submit("t1", "Where is it warm?", TaskLimits(**limits))
    await one_place(store, used or program(), calls)
    finish = store.tasks["t1"].finish
    assert finish is not None
    return finish, store


def seen(models: Models) -> list[str]:
    """The results of calls that the fleet's agent was last told."""
    return [str(one["content"]) for one in models.own[-1].messages if one["role"] == "tool"]


ASK = wants(("researcher", {"task": "Find the warmest city."}))


@pytest.mark.holds(
    "agents.md",
    "The calls of another agent are tasks of its own, on the same limits, for the same tenant and caller",
)
async def test_an_agent_is_a_tool_whose_calls_are_tasks_of_its_own() -> None:
    models = Models(ASK, said("Lisbon."))
    finish, store = await tree(models)
    assert finish.result is not None
    assert finish.result["answer"] == "Lisbon."
    assert seen(models) == ["It is warm."]
    (child,) = (task for task in store.tasks.values() if task.parent == "t1")
    assert (child.agent, child.input, child.tree) == (
        "researcher",
        "Find the warmest city.",
        store.tasks["t1"].tree,
    )
    (intent,) = [one for one in store.tasks["t1"].entries if isinstance(one, Intended) and one.child]
    assert (intent.call, intent.target) == ("turn/1/agent/researcher", "researcher")


async def test_the_model_is_told_of_each_agent_and_of_what_it_takes() -> None:
    models = Models(said("Lisbon."))
    await tree(models)
    told = {tool.name: tool for tool in models.own[0].tools}
    assert told["researcher"].description == "Knows the weather."
    assert told["researcher"].parameters["required"] == ["task"]
    assert set(told) == {"weather", "pay", "search_handbook", "search_secrets", "researcher", "writer"}


@pytest.mark.holds(
    "agents.md", "It has its own prompt and model, and the tools and indexes that it names alone"
)
async def test_an_agent_has_its_own_prompt_model_tools_and_indexes_alone() -> None:
    models = Models(ASK, said("Lisbon."))
    await tree(models)
    (asked,) = models.others
    assert asked.target == "small", "the model with the role Routine"
    assert asked.request.messages[0]["content"].startswith("You research.")
    assert [tool.name for tool in asked.request.tools] == ["weather", "search_handbook"]


@pytest.mark.holds(
    "agents.md", "It has its own prompt and model, and the tools and indexes that it names alone"
)
async def test_an_agent_that_names_nothing_has_nothing() -> None:
    models = Models(wants(("writer", {"task": "Write."})), said("Done."))
    await tree(models)
    (asked,) = models.others
    assert (asked.target, asked.request.tools) == ("large", ())


@pytest.mark.holds(
    "agents.md", "It has its own prompt and model, and the tools and indexes that it names alone"
)
@pytest.mark.holds(
    "security.md",
    "A sub-agent has nothing that it was not given; only a verdict accepts a result; a result "
    "cannot leave the place of what is judged",
)
@pytest.mark.attack("A sub-agent calls a tool that was not given to it")
async def test_a_tool_that_an_agent_was_not_given_is_not_called_for_it() -> None:
    turns = [
        wants(("pay", {"euro": 5}), ("search_secrets", {"query": "x"}), ("writer", {"task": "y"})),
        said("No."),
    ]
    models = Models(ASK, said("Lisbon."), child=lambda call: turns.pop(0))
    _, store = await tree(models)
    observed = [str(one["content"]) for one in models.others[-1].request.messages if one["role"] == "tool"]
    assert len(observed) == 3
    assert all("there is no tool" in one for one in observed), observed
    assert len(store.tasks) == 2


@pytest.mark.holds(
    "agents.md", "It has its own prompt and model, and the tools and indexes that it names alone"
)
async def test_a_tool_of_a_server_belongs_to_its_entry() -> None:
    tools = (replace(tool_of("tickets_search", Effect.PURE), entry="tickets"), tool_of("pay"))
    models = Models(ASK, said("Lisbon."))
    await tree(models, program(built_in, *tools))
    assert [tool.name for tool in models.others[0].request.tools] == ["tickets_search", "search_handbook"]


@pytest.mark.holds("agents.md", "A worker with one place comes to the end of any tree, within its width")
async def test_agents_of_one_turn_work_at_the_same_time_within_the_width() -> None:
    both = wants(("researcher", {"task": "a"}), ("writer", {"task": "b"}), ("researcher", {"task": "c"}))
    models = Models(both, said("Lisbon."))
    finish, store = await tree(models, max_fan_out=1)
    assert finish.status is TaskStatus.SUCCEEDED
    assert seen(models) == ["It is warm."] * 3
    assert len(store.tasks) == 4


@pytest.mark.holds("agents.md", "A worker with one place comes to the end of any tree, within its width")
async def test_a_tree_ends_with_one_place_whatever_else_is_called() -> None:
    mixed = wants(("researcher", {"task": "a"}), ("weather", {"city": "Faro"}), ("writer", {"task": "b"}))
    finish, _ = await tree(Models(mixed, mixed, said("Lisbon.")))
    assert finish.status is TaskStatus.SUCCEEDED


@pytest.mark.holds("agents.md", "What it could not do, and calls without a task, are told to the model")
@pytest.mark.parametrize(
    ("child", "limits", "says"),
    [
        pytest.param(
            lambda call: failed("overloaded"),
            {},
            "Failed: the task ended as ModelFailed: the model small gave no answer: overloaded",
            id="its model gives no answer",
        ),
        pytest.param(
            lambda call: wants(("weather", {"city": "Faro"})),
            {"max_steps": 5},
            "Failed: the task ended as MaxSteps",
            id="it has no end",
        ),
        pytest.param(None, {"max_depth": 0}, "not called: limits.maxDepth (0)", id="no level is left"),
    ],
)
async def test_what_an_agent_could_not_do_is_an_observation(child: Any, limits: Any, says: str) -> None:
    models = Models(ASK, said("I could not find out."), child=child)
    finish, store = await tree(models, **limits)
    told = [one for one in store.tasks["t1"].entries if isinstance(one, Done) and "agent/" in one.call]
    assert told, "the call has a result"
    if finish.status is TaskStatus.SUCCEEDED:
        assert seen(models)[0].startswith(says)
    else:
        assert finish.reason is EndReason.MAX_STEPS, "its parent shares the budget that it has used up"


@pytest.mark.holds("agents.md", "What it could not do, and calls without a task, are told to the model")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param({}, "not called: task must be a text", id="no task"),
        pytest.param({"task": 7}, "not called: task must be a text", id="no text"),
        pytest.param({"task": " "}, "not called: task must be a text", id="nothing in it"),
    ],
)
async def test_a_call_without_a_task_is_not_made(arguments: dict[str, Any], says: str) -> None:
    models = Models(wants(("researcher", arguments)), said("Lisbon."))
    _, store = await tree(models)
    assert seen(models)[0].startswith(says)
    assert len(store.tasks) == 1


async def test_an_agent_with_the_name_of_a_servers_tool_gets_another_name() -> None:
    models = Models(wants(("writer_agent", {"task": "Write."})), said("Done."))
    finish, _ = await tree(models, program(built_in, tool_of("writer")))
    assert (finish.status, seen(models)) == (TaskStatus.SUCCEEDED, ["It is warm."])


@pytest.mark.holds("agents.md", "The numbers of its passages become their titles")
def test_the_passages_of_an_agent_are_named_since_its_numbers_are_not_those_of_the_parent() -> None:
    citations = [{"number": 2, "title": "Handbook", "heading": "Heat"}, {"number": 3, "document": "a.html"}]
    result = {"answer": "Warm [2] and dry [2; 3], x[9].", "citations": citations, "missing": {"news": "late"}}
    assert found_by_agent(result) == (
        "Warm (Handbook, Heat) and dry (Handbook, Heat; a.html), x(9).\n\nNot searched: news."
    )
    assert found_by_agent({"other": 1}) == '{"other": 1}'


# Entrypoints, and tasks that name an agent


async def boss(ctx: Context, task: Task) -> Any:
    return (await ctx.spawn(task.input, agent="researcher"))["answer"]


@pytest.mark.holds("agents.md", "`ctx.spawn` names an agent; one that there is not is an error")
async def test_the_code_of_an_image_gives_tasks_to_agents_too() -> None:
    finish, _ = await tree(Models(), program(boss))
    assert finish.result == "It is warm."


@pytest.mark.holds("agents.md", "`ctx.spawn` names an agent; one that there is not is an error")
async def test_an_agent_that_there_is_not_is_an_error_of_the_code() -> None:
    async def lost(ctx: Context, task: Task) -> Any:
        return await ctx.spawn("?", agent="nobody")

    finish, _ = await tree(Models(), program(lost))
    assert (finish.reason, finish.message) == (
        EndReason.INVALID,
        "the agent raised ValueError: there is no agent nobody; there are: researcher, writer",
    )


@pytest.mark.holds(
    "agents.md", "Results of spawned tasks are not checked, those of tasks that name an agent are"
)
async def test_a_task_that_names_an_agent_is_done_by_it() -> None:
    store, models = MemoryStore(), Models()
    store.submit("t1", "Where?", agent="researcher")
    checks = (ValidatorConfig(name="cites", python="m:f"),)
    calls = ScriptedCalls(script=models)
    await run(store, program(boss, validators=checks), calls)
    assert [call.target for call in models.others] == ["small"]
    assert "validator:cites" in [call.target for call in calls.asked], "what leaves the fleet is checked"


@pytest.mark.holds(
    "tasks.md",
    "A task goes to the agent that it names, replays too; a name that there is not is refused with "
    "those that there are",
)
async def test_an_agent_that_the_fleet_no_longer_has_ends_its_tasks() -> None:
    store = MemoryStore()
    store.submit("t1", "Where?", agent="gone")
    assert await run(store, program(), ScriptedCalls()) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.message == "the fleet has no agent gone any more"


@pytest.mark.holds("agents.md", "Each agent has a state of its own")
async def test_each_agent_has_a_state_of_its_own() -> None:
    async def counts(ctx: Context, task: Task) -> Any:
        await ctx.state.put("k", task.input)
        return await ctx.state.get("k")

    store, used = MemoryStore(), replace(program(counts), built_in=counts)
    for name, agent in (("t1", ""), ("t2", "researcher")):
        store.submit(name, name, agent=agent)
        await run(store, used, ScriptedCalls(), name)
    assert store.state_of == {("", "k"): '"t1"', ("researcher", "k"): '"t2"'}


# Crashes


def answers_by_state(call: Call) -> Reply:
    """The fleet's agent asks once and then answers, whichever run asks."""
    if call.kind is not CallKind.MODEL:
        return Reply(outcome=CallOutcome.SUCCEEDED, value="21°")
    messages = call.request.messages
    has_observed = any(one["role"] == "tool" for one in messages)
    if "You answer questions" in messages[0]["content"]:
        return said("Lisbon.") if has_observed else ASK
    return said("It is warm.") if has_observed else wants(("weather", {"city": "Faro"}))


async def lived(crash_at: int | None) -> tuple[MemoryStore, int, list[str]]:
    """A tree with a crash at one point of the parent or of the child; nothing finished is made again."""
    points = CrashPoints(crash_at=crash_at)
    store, calls = MemoryStore(points), ScriptedCalls(script=answers_by_state, points=points)
    store.submit("t1", "Where is it warm?")
    used, made = program(), 0
    for _ in range(50):
        waiting = [
            name
            for name, task in store.tasks.items()
            if task.status in (TaskStatus.WAITING, TaskStatus.RUNNING)
        ]
        if not waiting:
            return store, len(points.passed), points.passed
        done = {
            (name, one.call)
            for name, task in store.tasks.items()
            for one in task.entries
            if isinstance(one, Done)
        }
        try:
            await run(store, used, calls, waiting[-1])
        except* CrashError:
            store.points = calls.points = CrashPoints()
        again = {(waiting[-1], call) for call in calls.made[made:]} & done
        assert not again, again
        made = len(calls.made)
    raise AssertionError("the tree does not end")


@pytest.mark.holds("agents.md", "After a crash at any point of a tree no finished call is repeated")
async def test_after_a_crash_at_any_point_of_the_tree_no_finished_call_is_repeated() -> None:
    _, points, passed = await lived(None)
    assert any("spawn" in point for point in passed)
    for point in range(points):
        store, _, _ = await lived(point)
        assert len(store.tasks) == 2, passed[point]
        for task in store.tasks.values():
            assert task.finish is not None
            assert task.finish.status is TaskStatus.SUCCEEDED, passed[point]
            held = task.tree.reserved
            assert (held.steps, held.tokens) == (0, 0), passed[point]
