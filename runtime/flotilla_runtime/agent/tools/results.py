"""Results of tools as JSON within their limits, and the problem of an Unsafe call without one. Pure."""

import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_jsonable_python

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.protocols import Reply
from flotilla_runtime.contract import Effect

KIB: Final = 1024
PERHAPS: Final = "; it is not known whether it happened"
IT_HAPPENED: Final = "; the call itself has happened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A value as JSON, or what is wrong with it."""

    value: Any = None
    problem: str | None = None


def document_of(value: Any, most_bytes: int) -> Document:
    """The value as JSON; pydantic models, dataclasses and times are written as pydantic does."""
    try:
        plain = to_jsonable_python(value, by_alias=True)
        size = len(json.dumps(plain, ensure_ascii=False, allow_nan=False).encode())
    except (PydanticSerializationError, TypeError, ValueError, RecursionError) as problem:
        return Document(problem=f"cannot be written as JSON: {problem}")
    if size > most_bytes:
        return Document(problem=f"has {size} bytes, and at most {most_bytes} are stored")
    return Document(value=plain)


def reply_of(value: Any, most_kib: int, effect: Effect) -> Reply:
    """The reply of a call that gave this value."""
    document = document_of(value, most_kib * KIB)
    if document.problem is None:
        return Reply(outcome=CallOutcome.SUCCEEDED, value=document.value)
    happened = IT_HAPPENED if effect is Effect.UNSAFE else ""
    problem = f"the result {document.problem} (maxResultKiB is {most_kib}){happened}"
    return Reply(outcome=CallOutcome.FAILED, problem=problem)
