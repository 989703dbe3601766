"""The built-in agent and validators: its model is told why its answer was refused, and answers once more."""

from collections.abc import Sequence
from typing import Any

import pytest

from agent_support.lives import Story, crashed_everywhere
from agent_support.memory import MemoryStore
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
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.journal import CallKind, CallOutcome, EndReason
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Finish, Reply
from flotilla_runtime.contract import Effect, ValidatorConfig

NO = {"accepted": False, "reason": "it names no source"}
YES = {"accepted": True}


def program(*tools: Any, indexes: tuple[str, ...] = ()) -> Program:
    validators = (ValidatorConfig(name="cites", python="m:f"),)
    return program_of(built_in, *tools, config=config_of(indexes=indexes, validators=validators))


def scripted(turns: Sequence[Any], verdicts: Sequence[Any]) -> Any:
    left, told = list(turns), list(verdicts)

    def script(call: Call) -> Reply:
        match call.kind:
            case CallKind.MODEL:
                turn = left.pop(0)
                return turn if isinstance(turn, Reply) else said(turn)
            case CallKind.RETRIEVE:
                return found(PASSAGE)
            case _ if call.target == "validator:cites":
                return Reply(outcome=CallOutcome.SUCCEEDED, value=told.pop(0))
        return Reply(outcome=CallOutcome.SUCCEEDED, value="looked up")

    return script


async def answered(
    used: Program, turns: Sequence[Any], verdicts: Sequence[Any]
) -> tuple[Finish, ScriptedCalls]:
    store, calls = MemoryStore(), ScriptedCalls(script=scripted(turns, verdicts))
    store.submit("t1", "Is it so?")
    await run(store, used, calls)
    finish = store.tasks["t1"].finish
    assert finish is not None
    return finish, calls


WAYS = [
    pytest.param(program(indexes=("docs",)), id="from passages"),
    pytest.param(program(), id="from its prompt alone"),
    pytest.param(program(tool_of("look", Effect.PURE)), id="in turns"),
]


@pytest.mark.holds(
    "agents.md", "The built-in agent writes an answer anew once; one that is refused twice is rejected"
)
@pytest.mark.parametrize("used", WAYS)
async def test_an_answer_that_was_refused_is_written_anew(used: Program) -> None:
    finish, calls = await answered(used, ["It is.", "It is [1]."], [NO, YES])
    assert finish.result is not None
    assert finish.result["answer"] == "It is [1]."
    *_, repair = (call for call in calls.asked if call.kind is CallKind.MODEL)
    *_, answer, refusal = repair.request.messages
    assert (answer["role"], answer["content"]) == ("assistant", "It is.")
    assert (refusal["role"], "- cites: it names no source" in refusal["content"]) == ("user", True)


@pytest.mark.holds(
    "agents.md", "The built-in agent writes an answer anew once; one that is refused twice is rejected"
)
@pytest.mark.parametrize("used", WAYS)
async def test_an_answer_that_is_refused_twice_is_rejected(used: Program) -> None:
    finish, calls = await answered(used, ["It is.", "It is!"], [NO, {**NO, "reason": "still none"}])
    assert (finish.reason, finish.result) == (EndReason.REJECTED, None)
    assert finish.message == "the result was refused: cites: still none"
    assert len([call for call in calls.asked if call.kind is CallKind.MODEL]) == 2, "one repair"
    assert "It is" not in str(finish.partial)


@pytest.mark.holds(
    "agents.md",
    "An agent repairs its result once by `ctx.validate`; two results are checked at most, and none twice",
)
@pytest.mark.parametrize("used", WAYS)
async def test_the_same_answer_again_needs_no_second_verdict(used: Program) -> None:
    finish, calls = await answered(used, ["It is.", "It is."], [NO])
    assert finish.message == "the result was refused: cites: it names no source"
    assert len([call for call in calls.asked if call.target == "validator:cites"]) == 1


@pytest.mark.holds(
    "agents.md", "The built-in agent writes an answer anew once; one that is refused twice is rejected"
)
async def test_a_model_that_repairs_nothing_leaves_the_refusal() -> None:
    too_long = failed("no room", CallOutcome.PROMPT_TOO_LONG)
    finish, _ = await answered(program(indexes=("docs",)), ["It is.", too_long], [NO])
    assert (finish.reason, finish.message) == (
        EndReason.REJECTED,
        "the result was refused: cites: it names no source",
    )


@pytest.mark.holds(
    "agents.md", "With validators no text is streamed as an answer, and a cut one is not handed out"
)
@pytest.mark.holds(
    "security.md",
    "A sub-agent has nothing that it was not given; only a verdict accepts a result; a result "
    "cannot leave the place of what is judged",
)
@pytest.mark.parametrize("used", WAYS)
@pytest.mark.attack("A result that was refused is read in `partial`, or in the stream of a front end")
async def test_an_answer_that_was_cut_off_is_not_handed_out_unchecked(used: Program) -> None:
    cut = {"text": "It is", "isCut": True}
    finish, calls = await answered(used, [cut, *[{"text": "", "isCut": True}] * 9], [])
    assert finish.reason is EndReason.MAX_TOKENS
    assert "It is" not in str(finish.partial)
    assert "validator:cites" not in [call.target for call in calls.asked]


@pytest.mark.holds(
    "agents.md", "With validators no text is streamed as an answer, and a cut one is not handed out"
)
@pytest.mark.parametrize("used", WAYS)
@pytest.mark.attack("A result that was refused is read in `partial`, or in the stream of a front end")
async def test_no_text_is_streamed_as_an_answer_before_it_is_accepted(used: Program) -> None:
    _, calls = await answered(used, ["It is."], [YES])
    assert not any(call.request.answers for call in calls.asked if call.kind is CallKind.MODEL)


@pytest.mark.holds(
    "agents.md",
    "After a crash at any point no finished check is repeated, and no other result takes its verdict",
)
@pytest.mark.parametrize("used", WAYS)
async def test_after_a_crash_at_any_point_no_finished_call_is_repeated(used: Program) -> None:
    def script(call: Call) -> Reply:
        match call.kind:
            case CallKind.MODEL:
                return said(
                    "It is [1]."
                    if call.request.messages[-1]["role"] == "user"
                    and "refused" in str(call.request.messages[-1]["content"])
                    else "It is."
                )
            case CallKind.RETRIEVE:
                return found(PASSAGE)
        assert call.target == "validator:cites"
        good = call.request["result"]["answer"] == "It is [1]."
        return Reply(outcome=CallOutcome.SUCCEEDED, value=YES if good else NO)

    stories = await crashed_everywhere(lambda: Story(used, script))
    assert {story.result["answer"] for story in stories} == {"It is [1]."}
