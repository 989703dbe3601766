"""The built-in loop as a function: a story and the task in, what to do next out.

Plan, act, observe: a turn is planned from the journal alone, its calls are made at once, their results join
the journal, and the next turn is planned from there. Nothing here knows the clock, the network or Redis, so
every state a crash can leave behind can be handed in by a test.

Two turns do the work: ask every index, then answer from what they gave. An index that fails is left out and
named in the result; only when all of them fail the task ends, with what is known so far.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from flotilla_runtime.agent import prompts
from flotilla_runtime.agent.citations import citation, cite
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, EndReason, TaskStatus
from flotilla_runtime.agent.prompts import Source
from flotilla_runtime.agent.story import Story
from flotilla_runtime.contract import Passage, TaskLimits

MOST_SHRINKS: Final = 4  # a sixteenth of the room for passages; a prompt that is still too long will stay so


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What is to be done, as it was when the task was submitted and the fleet configured."""

    question: str
    instructions: str
    indexes: tuple[str, ...]
    model: str
    context_tokens: int
    limits: TaskLimits
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the journal does not say: the time the task has run, and whether somebody wants it to end."""

    elapsed_seconds: float
    cancel_requested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveCall:
    """Ask one index."""

    id: str
    target: str
    query: str
    kind: CallKind = CallKind.RETRIEVE
    reserved_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """Ask the model; `reserved_tokens` is the most it can spend."""

    id: str
    target: str
    messages: list[dict[str, str]]
    max_tokens: int
    reserved_tokens: int
    kind: CallKind = CallKind.MODEL


Call = RetrieveCall | ModelCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Make these calls, all at once."""

    step: int
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The task is over; `partial` is what was found where there is no result."""

    status: TaskStatus
    reason: EndReason
    message: str = ""
    result: dict[str, Any] | None = None
    partial: dict[str, Any] | None = field(default=None)


Action = Act | End


def next_action(story: Story, brief: Brief, situation: Situation) -> Action:
    """What to do now."""
    for check in ENDS_WHEN:
        if (end := check(story, brief, situation)) is not None:
            return end
    unasked = [index for index in brief.indexes if retrieve_id(index) not in story.results]
    if unasked:
        calls = tuple(
            RetrieveCall(id=retrieve_id(index), target=index, query=brief.question) for index in unasked
        )
        return _turn(story, brief, calls)
    return _no_answer_to_come(story, brief) or _answer(story, brief)


def retrieve_id(index: str) -> str:
    """The id of the one call that asks this index."""
    return f"retrieve/{index}"


def answer_id(number: int) -> str:
    """The id of the model call that answers; a new number only for a shorter prompt."""
    return f"answer/{number}"


def _answered(story: Story, brief: Brief, situation: Situation) -> End | None:
    """Before anything else: an answer in the journal is the result, however late its worker was lost."""
    answers = story.results_of(CallKind.MODEL)
    if not answers or answers[-1].outcome is not CallOutcome.SUCCEEDED:
        return None
    return _completed(story, brief, str(answers[-1].value), shrinks=len(answers) - 1)


def _cancelled(story: Story, brief: Brief, situation: Situation) -> End | None:
    if not situation.cancel_requested:
        return None
    return End(
        status=TaskStatus.CANCELLED,
        reason=EndReason.CANCELLED,
        message="cancelled by the caller",
        partial=_partial(story, brief),
    )


def _given_up(story: Story, brief: Brief, situation: Situation) -> End | None:
    if story.attempts <= brief.max_attempts:
        return None
    message = f"{brief.max_attempts} workers were lost while they ran this task"
    return _failed(story, brief, EndReason.INFRASTRUCTURE, message)


def _question_too_long(story: Story, brief: Brief, situation: Situation) -> End | None:
    room = brief.context_tokens - prompts.answer_tokens(brief.context_tokens)
    bare = prompts.compose(
        instructions=brief.instructions,
        question=brief.question,
        sources=(),
        context_tokens=brief.context_tokens,
        retrieves=bool(brief.indexes),
    )
    if bare.tokens <= room:
        return None
    message = (
        f"the question takes about {bare.tokens} tokens with the fleet's prompt, and the model's context has "
        f"room for {room}; ask a shorter one"
    )
    return _failed(story, brief, EndReason.INVALID, message)


def _out_of_time(story: Story, brief: Brief, situation: Situation) -> End | None:
    limit = brief.limits.max_wall_seconds
    if situation.elapsed_seconds < limit:
        return None
    return _failed(story, brief, EndReason.TIMEOUT, f"not done after maxWallSeconds ({limit:g} s)")


def _no_index_answered(story: Story, brief: Brief, situation: Situation) -> End | None:
    missing = _missing(story, brief)
    if not brief.indexes or len(missing) < len(brief.indexes):
        return None
    problems = "; ".join(f"{index}: {problem}" for index, problem in missing.items())
    return _failed(story, brief, EndReason.TOOL_FAILED, f"no index answered: {problems}")


ENDS_WHEN: Final[tuple[Callable[[Story, Brief, Situation], End | None], ...]] = (
    _answered,
    _cancelled,
    _given_up,
    _question_too_long,
    _out_of_time,
    _no_index_answered,
)


def _no_answer_to_come(story: Story, brief: Brief) -> End | None:
    answers = story.results_of(CallKind.MODEL)
    if not answers:
        return None
    last = answers[-1]
    if last.outcome is CallOutcome.PROMPT_TOO_LONG and len(answers) <= MOST_SHRINKS:
        return None
    return _failed(story, brief, EndReason.MODEL_FAILED, f"model {brief.model}: {last.problem}")


def _answer(story: Story, brief: Brief) -> Action:
    shrinks = len(story.results_of(CallKind.MODEL))
    prompt = _prompt(story, brief, shrinks)
    call_id = answer_id(shrinks + 1)
    affordable = brief.limits.max_tokens - story.committed_tokens - prompt.tokens
    if affordable < prompts.LEAST_ANSWER_TOKENS:
        message = (
            f"the answer needs about {prompt.tokens} tokens of prompt, {story.committed_tokens} are spent, "
            f"and maxTokens ({brief.limits.max_tokens}) leaves no room for it"
        )
        return _failed(story, brief, EndReason.MAX_TOKENS, message)
    max_tokens = min(affordable, prompts.answer_tokens(brief.context_tokens))
    call = ModelCall(
        id=call_id,
        target=brief.model,
        messages=prompt.messages,
        max_tokens=max_tokens,
        reserved_tokens=prompt.tokens + max_tokens,
    )
    return _turn(story, brief, (call,))


def _turn(story: Story, brief: Brief, calls: tuple[Call, ...]) -> Action:
    """These calls as the next turn, or as the turn that was begun before a crash."""
    begun = [intent.step for call, intent in story.intents.items() if _same_turn(call, calls)]
    step = max(begun, default=story.steps + 1)
    if step > brief.limits.max_steps:
        message = f"not done after maxSteps ({brief.limits.max_steps})"
        return _failed(story, brief, EndReason.MAX_STEPS, message)
    return Act(step=step, calls=calls)


def _same_turn(call: str, calls: tuple[Call, ...]) -> bool:
    is_retrieval = all(planned.kind is CallKind.RETRIEVE for planned in calls)
    return call.startswith("retrieve/") if is_retrieval else call == calls[0].id


def _completed(story: Story, brief: Brief, answer: str, shrinks: int) -> End:
    cited = cite(answer, _prompt(story, brief, shrinks).sources)
    missing = _missing(story, brief)
    result = {
        "answer": answer.strip(),
        "citations": cited.documents(),
        "citedBy": str(cited.by),
        "complete": not missing,
        "missing": missing,
    }
    return End(status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, result=result)


def _failed(story: Story, brief: Brief, reason: EndReason, message: str) -> End:
    return End(status=TaskStatus.FAILED, reason=reason, message=message, partial=_partial(story, brief))


def _partial(story: Story, brief: Brief) -> dict[str, Any] | None:
    """What was found, where something was: the passages by rank and the indexes that gave none."""
    if not story.results:
        return None
    passages = [citation(number, source) for number, source in enumerate(_sources(story, brief), start=1)]
    return {"passages": passages, "missing": _missing(story, brief)}


def _prompt(story: Story, brief: Brief, shrinks: int) -> prompts.Prompt:
    return prompts.compose(
        instructions=brief.instructions,
        question=brief.question,
        sources=_sources(story, brief),
        context_tokens=brief.context_tokens,
        shrinks=shrinks,
        retrieves=bool(brief.indexes),
    )


def _sources(story: Story, brief: Brief) -> list[Source]:
    """Every passage found, in the order of the fleet's indexes and not in that of their answers."""
    return prompts.interleaved(
        _sources_of(index, story.results[retrieve_id(index)])
        for index in brief.indexes
        if retrieve_id(index) in story.results
    )


def _sources_of(index: str, done: Done) -> list[Source]:
    generation = done.generation or ""
    return [
        Source(index=index, generation=generation, passage=Passage.model_validate(passage))
        for passage in done.value or ()
    ]


def _missing(story: Story, brief: Brief) -> dict[str, str]:
    """The indexes that were asked and gave no answer, each with the reason."""
    return {
        index: done.problem or str(done.outcome)
        for index in brief.indexes
        if (done := story.results.get(retrieve_id(index))) is not None
        and done.outcome is not CallOutcome.SUCCEEDED
    }
