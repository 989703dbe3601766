"""The parts of the gateway's answers that this command line reads. Pure.

An answer that has not this form comes from something else than a gateway, such as a proxy's login page. What
is only printed may be anything, and what is not read may be missing, so gateways of other versions are read
too.
"""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


def _aware(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("the time has no offset")
    return text


Moment = Annotated[str, AfterValidator(_aware)]


class _Form(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, strict=True, frozen=True)


class Wait(_Form):
    """The call or signal for which a suspended task waits."""

    kind: str
    call: str


class Receipt(_Form):
    """The answer to whatever changes a task."""

    id: str
    status: str


class Summary(Receipt):
    """A task in a list, or one that is asked for its end."""

    waits_for: Wait | None = None
    reason: str | None = None
    message: str | None = None


class Page(_Form):
    """A page of tasks."""

    tasks: list[Summary]


class Approval(_Form):
    """A call that somebody may decide on."""

    call: str
    target: str
    destination: str | None = None


class Event(_Form):
    """An event of a timeline."""

    at: Moment
    event: str
    call: str | None = None
    seconds: float | None = None
    waits_for: Wait | None = None


class Step(_Form):
    """A step of a critical path."""

    kind: str
    seconds: float
    call: str | None = None


class Usage(_Form):
    """The steps, tokens and cost of a task."""

    steps: int
    tokens: int
    cost_usd: float | None = Field(default=None, alias="costUSD")


class Task(Summary):
    """A task with all details."""

    approvals: list[Approval] | None = None
    timeline: list[Event] | None = None
    critical_path: list[Step] | None = None
    usage: Usage | None = None
    time: dict[str, float] | None = None


class Citation(_Form):
    """A source of an answer."""

    document: str
    page: int | None = None


class Cited(_Form):
    """The result of an agent that cites. An agent of one's own may give any other JSON."""

    answer: str
    citations: list[Citation] | None = None


def has_form(form: type[BaseModel], value: Any) -> bool:
    """Whether a JSON value has this form."""
    try:
        form.model_validate(value)
    except ValueError:
        return False
    return True
