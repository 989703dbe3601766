"""Parses and checks the requests of callers before anything is stored; a refusal names each wrong field."""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from flotilla_runtime.contract import HEADER_TENANT, Priority, TaskLimits
from flotilla_runtime.gateway.numbers import number_problems
from flotilla_runtime.gateway.problems import FieldProblem, ProblemError

SHOWN_PROBLEMS: Final = 10
TENANT: Final = re.compile(r"[!-~]{1,253}")  # it goes on as a header
CONVERSATION: Final = re.compile(r"[!-~]{1,128}")
CONVERSATION_RULE: Final = "the id of a conversation has 1 to 128 visible ASCII characters"
TENANT_RULE: Final = "a tenant has 1 to 253 visible ASCII characters"

Tenant = Annotated[str, StringConstraints(pattern=rf"^{TENANT.pattern}$")]
ConversationId = Annotated[str, StringConstraints(pattern=rf"^{CONVERSATION.pattern}$")]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=256)]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=63)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class _Request(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=False, validate_by_alias=True, extra="forbid", frozen=True
    )


Request = TypeVar("Request", bound=_Request)


class LimitsRequest(_Request):
    """The most that this task and those that it spawns may use, none above the fleet's own limit."""

    max_steps: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_cost_usd: float | None = Field(default=None, gt=0, allow_inf_nan=False, alias="maxCostUSD")
    max_wall_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_depth: int | None = Field(default=None, ge=0)
    max_fan_out: int | None = Field(default=None, ge=1)

    def within(self, fleet: TaskLimits, unpriced_models: Sequence[str] = ()) -> TaskLimits:
        """The task's limits, with the fleet's limit where none is given; a higher one is refused.

        So is a limit of money that cannot be counted, because the price of a model is unknown.
        """
        asked = self.model_dump(exclude_none=True)
        problems = [
            FieldProblem(
                field=f"limits.{type(self).model_fields[name].alias}",
                problem=f"{value:g} is above the fleet's limit of {most:g}",
            )
            for name, value in asked.items()
            if (most := getattr(fleet, name)) is not None and value > most
        ]
        if unpriced_models and "max_cost_usd" in asked:
            unknown = f"the price of {', '.join(unpriced_models)} is unknown, so nobody can count the cost"
            fix = "leave the limit out, or have the model's pricing set"
            problems.append(FieldProblem(field="limits.maxCostUSD", problem=f"{unknown}; {fix}"))
        if problems:
            raise refused(problems)
        return fleet.model_copy(update=asked)


class SubmitRequest(_Request):
    """The body of POST /v1/tasks."""

    input: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    idempotency_key: IdempotencyKey | None = None
    priority: Priority = Priority.INTERACTIVE
    limits: LimitsRequest = LimitsRequest()
    metadata: Annotated[Mapping[MetadataKey, MetadataValue], Field(max_length=32)] = Field(
        default_factory=dict
    )
    tenant: Tenant | None = None
    agent: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = None
    conversation_id: ConversationId | None = None


class EffectOutcome(StrEnum):
    """Whether an Unsafe call happened."""

    HAPPENED = "Happened"
    NOT_HAPPENED = "NotHappened"


class ResolveRequest(_Request):
    """The body of POST /v1/tasks/{id}/resolve; `result` is what the call gave, if it happened."""

    call: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    outcome: EffectOutcome
    result: Any = None


class ApproveRequest(_Request):
    """The body of POST /v1/tasks/{id}/approve. Who reads the task reads `comment`, and its agent does."""

    call: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    approved: StrictBool
    comment: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)] | None = None


class SignalRequest(_Request):
    """The body of POST /v1/tasks/{id}/signal."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    value: Any = None


class ReplayRequest(_Request):
    """The body of POST /v1/tasks/{id}/replay: from which call on, and whether effects may happen again."""

    from_: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = Field(
        default=None, alias="from"
    )
    repeat_effects: StrictBool = False
    idempotency_key: IdempotencyKey | None = None


def parse_replay(body: bytes) -> ReplayRequest:
    """Read a replay; an empty body is a request without fields. Raises a problem that names wrong ones."""
    return _parsed(ReplayRequest, body or b"{}", 'such as {"from": "turn/2/model"}')


def parse_approval(body: bytes) -> ApproveRequest:
    """Read a decision on a call. Raises a problem that names every wrong field."""
    return _parsed(ApproveRequest, body, 'such as {"call": "turn/1/tool/pay#approval", "approved": true}')


def parse_signal(body: bytes) -> SignalRequest:
    """A signal. Raises a problem that names every wrong field."""
    return _parsed(SignalRequest, body, 'such as {"name": "paid", "value": {"receipt": 17}}')


def parse_submission(body: bytes) -> SubmitRequest:
    """The submission in a body. Raises a problem that names every wrong field."""
    return _parsed(SubmitRequest, body, 'such as {"input": "your question"}')


def submission_of(fields: Mapping[str, Any]) -> SubmitRequest:
    """The submission with these fields. Raises a problem that names every wrong field."""
    try:
        return SubmitRequest.model_validate(fields)
    except ValidationError as error:
        raise _refused(error) from None


def parse_resolution(body: bytes) -> ResolveRequest:
    """Read somebody's word on an Unsafe call. Raises a problem that names every wrong field."""
    request = _parsed(ResolveRequest, body, 'such as {"call": "turn/1/tool/pay", "outcome": "Happened"}')
    if request.outcome is EffectOutcome.NOT_HAPPENED and request.result is not None:
        raise refused(
            [FieldProblem(field="result", problem="a call that did not happen has none; leave it out")]
        )
    return request


def named_agent(name: str | None, known: Sequence[str]) -> str:
    """The agent that a submission names; empty for the fleet's own. Raises a problem for an unknown one."""
    if name is None or name in known:
        return name or ""
    others = f"the agents are {', '.join(known)}" if known else "the fleet has none beside its own"
    problem = f"there is no agent {name[:100]!r}; {others}; leave it out for the fleet's own"
    raise ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "unknown-agent",
        f"agent: {problem}",
        fields=[FieldProblem(field="agent", problem=problem)],
    )


def named_tenant(field: str | None, header: str | None) -> str | None:
    """The tenant that a submission names, in body or header. Raises a problem for two that differ."""
    if header is None:
        return field
    if not TENANT.fullmatch(header):
        raise refused([FieldProblem(field=HEADER_TENANT, problem=TENANT_RULE)])
    if field is not None and field != header:
        raise refused(
            [
                FieldProblem(
                    field="tenant", problem=f"differs from the header {HEADER_TENANT}; name one tenant"
                )
            ]
        )
    return header


def _parsed(model: type[Request], body: bytes, example: str) -> Request:
    if problems := number_problems(body):
        raise refused(problems)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                "not-json",
                f"the body is not JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}; send an object "
                f"{example}",
            ) from None
        raise _refused(error) from None


def _refused(error: ValidationError) -> ProblemError:
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return refused(
        [
            FieldProblem(
                field=".".join(map(str, each["loc"])) or "(body)",
                problem=_said(each["type"], each["msg"]),
            )
            for each in found[:SHOWN_PROBLEMS]
        ]
    )


def refused(problems: list[FieldProblem]) -> ProblemError:
    """The problem for a request with wrong fields."""
    told = "; ".join(f"{each.field}: {each.problem}" for each in problems)
    return ProblemError(HTTPStatus.BAD_REQUEST, "invalid-request", told, fields=problems)


def _said(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    return message[:1].lower() + message[1:]
