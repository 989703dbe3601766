"""The history that the built-in agents give their model, and the messages that a task adds to it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, config_of, failed, program_of, said, tool_of
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.builtin.prompts import (
    answer_tokens,
    compose,
    latest_messages,
    messages_tokens,
)
from flotilla_runtime.agent.conversations import Message, Role
from flotilla_runtime.agent.engine.run import Clock, Means, TaskRun
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import Call, Finish, Reply
from flotilla_runtime.contract import Effect, ModelConnection

QUESTION = "And in winter?"


def messages(*texts: str) -> tuple[Message, ...]:
    roles = (Role.USER, Role.ASSISTANT)
    return tuple(Message(role=roles[place % 2], text=text) for place, text in enumerate(texts))


async def ran(
    history: tuple[Message, ...], *tools: Any, script: Any = None, context_tokens: int = 8192
) -> tuple[list[list[dict[str, Any]]], Finish]:
    """The messages that the model was sent, and how the task ended."""
    store = MemoryStore()
    store.submit("t1", QUESTION)
    claim, task = store.claim("t1", "w")
    task = replace(task, history=history, record=replace(task.record, conversation="talk"))
    model = ModelConnection(
        role="Default", name="m", url="http://m/v1", model="m", context_tokens=context_tokens
    )
    program = program_of(built_in, *tools, config=config_of(models=(model,)))
    calls = ScriptedCalls(script=script) if script else ScriptedCalls()
    clock = Clock(monotonic_seconds=lambda: store.now_ms / 1000)
    await TaskRun(claim, task, program, Means(worker="w", journal=store, calls=calls, clock=clock)).run()
    finish = store.tasks["t1"].finish
    assert finish is not None
    sent = [list(call.request.messages) for call in calls.asked if call.kind is CallKind.MODEL]
    return sent, finish


@pytest.mark.holds(
    "tasks.md",
    "The built-in agent shows its model the latest of a conversation, in a quarter of its context; "
    "an agent finds it in `task.history`",
)
@pytest.mark.parametrize(
    "tools", [pytest.param((), id="passages"), pytest.param((tool_of("weather", Effect.PURE),), id="acting")]
)
async def test_the_model_is_told_what_was_said_before_the_question(tools: tuple[Any, ...]) -> None:
    [sent], finish = await ran(messages("Where to?", "To Lisbon."), *tools)
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert [message["content"] for message in sent[1:]] == ["Where to?", "To Lisbon.", QUESTION]
    assert finish.said == messages(QUESTION, "So it is.")


@pytest.mark.holds(
    "tasks.md",
    "The built-in agent shows its model the latest of a conversation, in a quarter of its context; "
    "an agent finds it in `task.history`",
)
@pytest.mark.parametrize(
    "tools", [pytest.param((), id="passages"), pytest.param((tool_of("weather", Effect.PURE),), id="acting")]
)
async def test_a_history_that_is_too_long_is_shown_from_its_end(tools: tuple[Any, ...]) -> None:
    history = messages(*[f"{number} {'x' * 400}" for number in range(40)])
    [sent], _ = await ran(history, *tools, context_tokens=4096)
    shown = [message["content"] for message in sent[1:-1]]
    assert 0 < len(shown) < len(history)
    assert shown == [message.text for message in history[-len(shown) :]]
    assert sent[1]["role"] == "user"


async def test_a_model_that_finds_the_prompt_too_long_is_told_less_of_it() -> None:
    history = messages(*["x" * 900] * 8)

    def once_too_long(call: Call) -> Reply:
        is_first = call.id.endswith("answer/1")
        return failed("too long", outcome=CallOutcome.PROMPT_TOO_LONG) if is_first else said("So it is.")

    sent, _ = await ran(history, script=once_too_long)
    assert len(sent[1]) < len(sent[0])


async def test_a_task_without_a_result_adds_nothing() -> None:
    _, finish = await ran((), script=lambda call: failed("no"))
    assert finish.said == ()


@pytest.mark.holds(
    "tasks.md",
    "The built-in agent shows its model the latest of a conversation, in a quarter of its context; "
    "an agent finds it in `task.history`",
)
@given(
    st.lists(st.text(max_size=400), max_size=20),
    st.sampled_from([1024, 2048, 8192]),
    st.integers(0, 4),
)
def test_a_prompt_with_a_history_leaves_room_for_the_answer(
    texts: list[str], context_tokens: int, shrinks: int
) -> None:
    history = [message.document for message in messages(*texts)]
    prompt = compose(
        instructions="Answer.",
        question=QUESTION,
        sources=[],
        context_tokens=context_tokens,
        shrinks=shrinks,
        retrieves=False,
        history=history,
    )
    used = prompt.tokens + messages_tokens(prompt.history) + answer_tokens(context_tokens)
    assert used <= context_tokens
    assert list(prompt.history) == history[len(history) - len(prompt.history) :]


def test_what_is_shown_begins_with_a_question() -> None:
    history = [message.document for message in messages("q1", "a1", "q2", "a2")]
    most = messages_tokens(history[1:])
    assert latest_messages(history, most) == tuple(history[2:])
    assert latest_messages(history, 0) == ()
