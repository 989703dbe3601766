"""The built-in loop as a pure function: from a task and its summed-up journal to the next action.

Each turn is planned from the journal alone. Its calls are made at the same time, their results are written to
the journal, and the next turn is planned from there. The function uses no clock, network or Redis, so a test
can call it with every state that a crash can leave behind.

There are two turns: search every index, then let the model answer from the passages found. An index that
fails is left out and named in the result. The task fails only when all indexes fail; what is known is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from flotilla_runtime.agent import prompts
from flotilla_runtime.agent.citations import citation, cite
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, EndReason, Intended, TaskStatus
from flotilla_runtime.agent.prompts import Source
from flotilla_runtime.agent.story import Story
from flotilla_runtime.contract import Passage, TaskLimits

MOST_SHRINKS: Final = 4  # after four halvings a sixteenth of the room for passages is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """The task's question and limits, and the fleet's configuration."""

    question: str
    instructions: str
    indexes: tuple[str, ...]
    model: str
    context_tokens: int
    limits: TaskLimits
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the journal does not contain: how long the task has run, and whether it is to be cancelled."""

    elapsed_seconds: float
    cancel_requested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveCall:
    """A search in one index."""

    id: str
    target: str
    query: str
    kind: CallKind = CallKind.RETRIEVE
    reserved_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A call of the model; `reserved_tokens` is the most that it can use."""

    id: str
    target: str
    messages: list[dict[str, str]]
    max_tokens: int
    reserved_tokens: int
    kind: CallKind = CallKind.MODEL


Call = RetrieveCall | ModelCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Make these calls at the same time."""

    step: int
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End the task; `partial` holds what was found when there is no result."""

    status: TaskStatus
    reason: EndReason
    message: str = ""
    result: dict[str, Any] | None = None
    partial: dict[str, Any] | None = field(default=None)


Action = Act | End


def next_action(story: Story, brief: Brief, situation: Situation) -> Action:
    """The next action."""
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
    """The id of the call that searches this index."""
    return f"retrieve/{index}"


def answer_id(number: int) -> str:
    """The id of the model call that answers; each shorter prompt gets the next number."""
    return f"answer/{number}"


def _answered(story: Story, brief: Brief, situation: Situation) -> End | None:
    """Checked first: an answer in the journal is the result, even if its worker was lost right after it."""
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
    message = f"the task was given up, because {brief.max_attempts} workers were lost while they ran it"
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
        f"the question and the fleet's prompt have about {bare.tokens} tokens, and the model's context has "
        f"room for {room}; ask a shorter question"
    )
    return _failed(story, brief, EndReason.INVALID, message)


def _out_of_time(story: Story, brief: Brief, situation: Situation) -> End | None:
    limit = brief.limits.max_wall_seconds
    if situation.elapsed_seconds < limit:
        return None
    message = f"the task did not end within limits.maxWallSeconds ({limit:g} s)"
    return _failed(story, brief, EndReason.TIMEOUT, message)


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
    message = f"the model {brief.model} gave no answer: {last.problem}"
    return _failed(story, brief, EndReason.MODEL_FAILED, message)


def _answer(story: Story, brief: Brief) -> Action:
    shrinks = len(story.results_of(CallKind.MODEL))
    prompt = _prompt(story, brief, shrinks)
    call_id = answer_id(shrinks + 1)
    affordable = brief.limits.max_tokens - story.committed_tokens - prompt.tokens
    if affordable < prompts.LEAST_ANSWER_TOKENS:
        message = (
            f"the prompt has about {prompt.tokens} tokens and {story.committed_tokens} tokens are already "
            f"used, so limits.maxTokens ({brief.limits.max_tokens}) leaves no room for an answer"
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
    """These calls as the next turn, or as the turn that had begun before a crash."""
    begun = [intent.step for intent in story.intents.values() if _same_turn(intent, calls)]
    step = max(begun, default=story.steps + 1)
    if step > brief.limits.max_steps:
        message = f"the task did not end within limits.maxSteps ({brief.limits.max_steps})"
        return _failed(story, brief, EndReason.MAX_STEPS, message)
    return Act(step=step, calls=calls)


def _same_turn(intent: Intended, calls: tuple[Call, ...]) -> bool:
    """All searches are one turn, and each model call is a turn of its own."""
    is_retrieval = all(planned.kind is CallKind.RETRIEVE for planned in calls)
    return intent.kind is CallKind.RETRIEVE if is_retrieval else intent.call == calls[0].id


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
    """The passages found, by rank, and the indexes that failed; None when there is no result of any call."""
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
    """All passages found, by rank and in the order of the fleet's indexes, whichever answered first."""
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
    """The indexes whose search failed, each with the reason."""
    return {
        index: done.problem or str(done.outcome)
        for index in brief.indexes
        if (done := story.results.get(retrieve_id(index))) is not None
        and done.outcome is not CallOutcome.SUCCEEDED
    }
