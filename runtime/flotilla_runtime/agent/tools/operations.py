"""An operation of an OpenAPI document as a tool calls it, and the request that its arguments make. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote

from flotilla_runtime.agent.tools.schemas import Schema
from flotilla_runtime.contract import HttpMethod

DELIMITERS: Final = {"form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
DEEP_OBJECT: Final = "deepObject"


class ArgumentError(Exception):
    """An argument cannot be sent."""


class Place(StrEnum):
    """Where a parameter goes."""

    PATH = "path"
    QUERY = "query"
    HEADER = "header"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter: the argument with its value, its name in the request, and how it is written there."""

    argument: str
    name: str
    place: Place
    style: str
    explode: bool
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation. `url` has a `{name}` for each parameter of the path; `body` names an argument."""

    method: HttpMethod
    url: str
    description: str
    schema: Schema
    parameters: tuple[Parameter, ...]
    body: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequest:
    """A request. `url` is encoded; without `has_body`, `body` means nothing."""

    method: HttpMethod
    url: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    has_body: bool = False


def request_of(operation: Operation, arguments: Mapping[str, Any]) -> OperationRequest:
    """The request for arguments that fit the operation's schema. Raises ArgumentError."""
    url = operation.url
    query: list[tuple[str, str]] = []
    headers: dict[str, str] = {}
    for parameter in operation.parameters:
        value = arguments.get(parameter.argument)
        if value is None:
            continue
        match parameter.place:
            case Place.PATH:
                url = url.replace(f"{{{parameter.name}}}", _in_path(parameter, value))
            case Place.QUERY:
                query += _in_query(parameter, value)
            case Place.HEADER:
                headers[parameter.name] = _in_header(parameter, value)
    has_body = operation.body is not None and operation.body in arguments
    return OperationRequest(
        method=operation.method,
        url=url,
        query=tuple(query),
        headers=headers,
        body=arguments[operation.body] if has_body and operation.body is not None else None,
        has_body=has_body,
    )


def _in_path(parameter: Parameter, value: Any) -> str:
    text = _joined(parameter, value, ",")
    if text in ("", ".", ".."):
        raise ArgumentError(f"{parameter.argument}: {text!r} cannot be a part of a path")
    return quote(text, safe="")


def _in_header(parameter: Parameter, value: Any) -> str:
    text = _joined(parameter, value, ",")
    if not (text.isascii() and text.isprintable()):
        raise ArgumentError(f"{parameter.argument}: a header takes printable ASCII characters only")
    return text


def _in_query(parameter: Parameter, value: Any) -> list[tuple[str, str]]:
    name = parameter.name
    if parameter.is_json or not isinstance(value, list | dict):
        return [(name, _joined(parameter, value, ","))]
    if parameter.style == DEEP_OBJECT:
        if not isinstance(value, dict):
            raise ArgumentError(f"{parameter.argument}: must be an object")
        return [(f"{name}[{key}]", _written(one)) for key, one in value.items()]
    if parameter.explode:
        pairs = value.items() if isinstance(value, dict) else ((name, one) for one in value)
        return [(str(key), _written(one)) for key, one in pairs]
    return [(name, _joined(parameter, value, DELIMITERS[parameter.style]))]


def _joined(parameter: Parameter, value: Any, delimiter: str) -> str:
    if parameter.is_json:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return delimiter.join(map(_written, value))
    if isinstance(value, dict):
        if parameter.explode:
            return delimiter.join(f"{key}={_written(one)}" for key, one in value.items())
        return delimiter.join(_written(part) for pair in value.items() for part in pair)
    return _written(value)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
