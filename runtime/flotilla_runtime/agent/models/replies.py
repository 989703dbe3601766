"""Makes the reply of a call from how its last try ended. Pure."""

from dataclasses import replace
from typing import Final

from flotilla_runtime.agent.models.failures import outcome_of
from flotilla_runtime.agent.models.streaming import TryEnd
from flotilla_runtime.agent.models.structured import structured_value
from flotilla_runtime.agent.models.values import (
    FinishReason,
    ModelProblem,
    ModelProblemReason,
    ModelReply,
    ModelRequest,
    Usage,
    shown,
)

REPAIRED: Final = frozenset({ModelProblemReason.NOT_JSON, ModelProblemReason.SCHEMA_VIOLATED})


def reply_of(request: ModelRequest, ended: TryEnd, tries: int, used: Usage) -> ModelReply:
    """The reply; a whole answer is checked against the request's schema."""
    if ended.answer is None:
        problem = ended.failure.problem if ended.failure is not None else None
        if problem is not None and tries > 1:
            problem = replace(problem, message=f"{problem.message} ({tries} tries)")
        return ModelReply(
            outcome=outcome_of(problem), tries=tries, usage=used, problem=problem, replica=ended.replica
        )
    answer = ended.answer
    reply = ModelReply(
        outcome=outcome_of(problem := _refusal("".join(answer.refusal), answer.finish_reason)),
        tries=tries,
        usage=used,
        text=answer.text,
        tool_calls=answer.tool_calls,
        finish_reason=answer.finish_reason,
        first_token_ms=ended.first_token_ms,
        problem=problem,
        replica=ended.replica,
    )
    return _checked(request, reply)


def wants_repair(reply: ModelReply) -> ModelProblem | None:
    """The problem that the model is to correct in its answer, None unless that is all that is wrong."""
    problem = reply.problem
    return problem if problem is not None and problem.reason in REPAIRED else None


def _checked(request: ModelRequest, reply: ModelReply) -> ModelReply:
    is_whole = reply.finish_reason is not FinishReason.LENGTH and not reply.tool_calls
    if request.response_schema is None or reply.problem is not None or not is_whole:
        return reply
    found = structured_value(request.response_schema, reply.text)
    return replace(reply, outcome=outcome_of(found.problem), value=found.value, problem=found.problem)


def _refusal(said: str, finish_reason: FinishReason | None) -> ModelProblem | None:
    """Why an answer is none although it ended in good order."""
    if said:
        message = f"the model refuses to answer: {shown(said)}"
        return ModelProblem(reason=ModelProblemReason.MODEL_REFUSED, message=message)
    if finish_reason is FinishReason.CONTENT_FILTER:
        message = "the endpoint's content filter ended the answer"
        return ModelProblem(reason=ModelProblemReason.CONTENT_FILTERED, message=message)
    return None
