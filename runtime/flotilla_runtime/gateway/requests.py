"""Parses and checks the requests of callers before anything is stored; a refusal names each wrong field."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from flotilla_runtime.contract import Priority, TaskLimits
from flotilla_runtime.gateway.problems import FieldProblem, ProblemError

SHOWN_PROBLEMS: Final = 10

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=63)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class _Request(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=False, validate_by_alias=True, extra="forbid", frozen=True
    )


class LimitsRequest(_Request):
    """The most that this task may use; no value may be above the fleet's own limit."""

    max_steps: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_wall_seconds: float | None = Field(default=None, gt=0)

    def within(self, fleet: TaskLimits) -> TaskLimits:
        """The task's limits, with the fleet's limit where none is given; a higher one is refused."""
        asked = self.model_dump(exclude_none=True)
        above = [
            FieldProblem(
                field=f"limits.{to_camel(name)}", problem=f"{value:g} is above the fleet's limit of {most:g}"
            )
            for name, value in asked.items()
            if value > (most := getattr(fleet, name))
        ]
        if above:
            raise refused(above)
        return fleet.model_copy(update=asked)


class SubmitRequest(_Request):
    """The body of POST /v1/tasks."""

    input: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    priority: Priority = Priority.INTERACTIVE
    limits: LimitsRequest = LimitsRequest()
    metadata: Annotated[Mapping[MetadataKey, MetadataValue], Field(max_length=32)] = Field(
        default_factory=dict
    )


def parse_submission(body: bytes) -> SubmitRequest:
    """The submission in a body. Raises a problem that names every wrong field."""
    try:
        return SubmitRequest.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if found[0]["type"] == "json_invalid":
            raise ProblemError(
                HTTPStatus.BAD_REQUEST,
                "not-json",
                f"the body is not JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}; send an object "
                'such as {"input": "your question"}',
            ) from None
        raise refused(
            [
                FieldProblem(
                    field=".".join(map(str, each["loc"])) or "(body)",
                    problem=_said(each["type"], each["msg"]),
                )
                for each in found[:SHOWN_PROBLEMS]
            ]
        ) from None


def refused(problems: list[FieldProblem]) -> ProblemError:
    """The problem for a request with wrong fields."""
    told = "; ".join(f"{each.field}: {each.problem}" for each in problems)
    return ProblemError(HTTPStatus.BAD_REQUEST, "invalid-request", told, fields=problems)


def _said(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    return message[:1].lower() + message[1:]
