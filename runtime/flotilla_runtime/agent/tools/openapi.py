"""Reads one operation of an OpenAPI document: what it takes, and where it is called. Pure.

The arguments are one object: a property for each parameter of path, query and header, and `body` for the JSON
of the request. Secrets go to the host of the document, or to `http.url`: a document that names another host
is refused.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from yarl import URL

from flotilla_runtime.agent.tools.declarations import DeclarationError
from flotilla_runtime.agent.tools.header_files import OURS
from flotilla_runtime.agent.tools.operations import DEEP_OBJECT, DELIMITERS, Operation, Parameter, Place
from flotilla_runtime.agent.tools.schemas import Schema, changed
from flotilla_runtime.contract import HttpMethod, ToolTrouble

MOST_HOPS: Final = 16  # of references that lead to references
MOST_SCHEMA_BYTES: Final = 64 * 1024
MOST_DEFINITIONS: Final = 1000
MOST_DESCRIPTION: Final = 4096
BODY: Final = "body"
METHODS: Final = {method.lower(): method for method in HttpMethod}
NOT_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization", *OURS})  # of headers
DROPPED: Final = frozenset({"xml", "externalDocs", "discriminator", "example", "nullable"})
DEFINITIONS: Final = "#/$defs/"
SIMPLE: Final = "simple"


def read_operation(document: Any, operation_id: str, *, document_url: str, base_url: str | None) -> Operation:
    """The operation with this id. Raises DeclarationError."""
    try:
        return _Reader(document, document_url, base_url).operation(operation_id)
    except RecursionError:
        raise DeclarationError(ToolTrouble.UNUSABLE, "the document is nested too deeply") from None


class _Reader:
    """Reads one operation of one document."""

    def __init__(self, document: Any, document_url: str, base_url: str | None) -> None:
        version = document.get("openapi") if isinstance(document, Mapping) else None
        if not isinstance(version, str) or not version.startswith("3."):
            raise _unusable("is no OpenAPI document of version 3: its field `openapi` must begin with 3.")
        self._document: Mapping[str, Any] = document
        self._document_url = URL(document_url)
        self._base_url = base_url
        self._defs: dict[str, Any] = {}
        self._names: dict[str, str] = {}  # of the definitions, by their references

    def operation(self, operation_id: str) -> Operation:
        path, method, item, told = self._found(operation_id)
        schema: Schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
        parameters = tuple(self._parameters(item, told, schema))
        body = self._body(told, schema)
        if self._defs:
            schema["$defs"] = self._defs
        size = len(json.dumps(schema))
        if size > MOST_SCHEMA_BYTES:
            raise _unusable(f"describes arguments in {size} bytes, and at most {MOST_SCHEMA_BYTES} are shown")
        words = [told.get("summary"), told.get("description")]
        return Operation(
            method=METHODS[method],
            url=self._url(path, self._base(item, told), parameters),
            description="\n".join(filter(None, map(_text, words)))[:MOST_DESCRIPTION],
            schema=schema,
            parameters=parameters,
            body=body,
        )

    def _found(self, operation_id: str) -> tuple[str, str, Mapping[str, Any], Mapping[str, Any]]:
        known: list[str] = []
        for path, item in _entries(self._document.get("paths")):
            followed = self._followed(item)
            for method, told in _entries(followed):
                if not isinstance(told, Mapping) or not isinstance(told.get("operationId"), str):
                    continue
                known.append(told["operationId"])
                if told["operationId"] != operation_id:
                    continue
                if method not in METHODS:
                    raise _unusable(f"has the operation under the method {method}, which no tool can have")
                return path, method, followed, told
        there = f"there are {', '.join(sorted(known)[:20])}" if known else "no operation has one"
        message = f"has no operationId {operation_id}; {there}"
        raise DeclarationError(ToolTrouble.MISSING, f"the document {message}"[:1000])

    def _url(self, path: str, base: str, parameters: tuple[Parameter, ...]) -> str:
        plain = path
        for parameter in parameters:
            if parameter.place is Place.PATH:
                plain = plain.replace(f"{{{parameter.name}}}", "x")
        if not path.startswith("/") or any(mark in plain for mark in "{}?# \t\r\n\\"):
            raise _unusable(
                f"has the path {path[:200]!r}, which is none, or has a parameter that is not described"
            )
        return f"{base.rstrip('/')}{path}"

    def _base(self, item: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        """The server's URL: `http.url`, or what the document says, which must be on its own host."""
        if self._base_url is not None:
            return self._base_url
        lists = (one.get("servers") for one in (told, item, self._document))
        servers = next(filter(None, lists), [{"url": "/"}])
        first = servers[0] if isinstance(servers, list) and isinstance(servers[0], Mapping) else {}
        named = _text(first.get("url"))
        for name, variable in _entries(first.get("variables")):
            default = variable.get("default") if isinstance(variable, Mapping) else None
            named = named.replace(f"{{{name}}}", _text(default))
        try:
            base = self._document_url.join(URL(named))
            is_own = origin_of(base) == origin_of(self._document_url)
        except ValueError:
            raise _unusable(f"names a server that has no URL: {named[:100]!r}; set http.url") from None
        if not is_own or base.query_string or base.user is not None:
            raise _unusable(f"names the server {str(base)[:200]}, which is not its own host; set http.url")
        return str(base)

    def _parameters(
        self, item: Mapping[str, Any], told: Mapping[str, Any], schema: Schema
    ) -> Iterator[Parameter]:
        found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for listed in (item.get("parameters"), told.get("parameters")):
            for one in listed if isinstance(listed, list) else []:
                followed = self._followed(one)
                found[_text(followed.get("name")), _text(followed.get("in"))] = followed
        for (name, place), one in found.items():
            required = one.get("required") is True or place == Place.PATH
            if place == Place.HEADER and name.lower() in NOT_PARAMETERS:
                continue
            if place not in list(Place) or not name:
                if required:
                    raise _unusable(f"wants the parameter {name!r} in {place!r}, where tools send nothing")
                continue
            argument = name if name not in schema["properties"] else f"{name}_{place}"
            yield self._parameter(argument, name, Place(place), one, schema)
            if required:
                schema["required"].append(argument)

    def _parameter(
        self, argument: str, name: str, place: Place, one: Mapping[str, Any], schema: Schema
    ) -> Parameter:
        content = next((media for _, media in _entries(one.get("content"))), None)
        of = one.get("schema") if content is None else content.get("schema")
        told = self._schema(of if of is not None else {})
        if one.get("description") and isinstance(told, dict) and "$ref" not in told:
            told = {"description": _text(one["description"])[:MOST_DESCRIPTION], **told}
        schema["properties"][argument] = told
        style = _text(one.get("style")) or ("form" if place is Place.QUERY else SIMPLE)
        if place is not Place.QUERY and style != SIMPLE:
            raise _unusable(f"writes the parameter {name!r} in the style {style}, which tools do not know")
        if place is Place.QUERY and style not in {*DELIMITERS, DEEP_OBJECT}:
            raise _unusable(f"writes the parameter {name!r} in the style {style}, which tools do not know")
        return Parameter(
            argument=argument,
            name=name,
            place=place,
            style=style,
            explode=one.get("explode") is True or ("explode" not in one and style == "form"),
            is_json=content is not None,
        )

    def _body(self, told: Mapping[str, Any], schema: Schema) -> str | None:
        if told.get("requestBody") is None:
            return None
        body = self._followed(told["requestBody"])
        kinds = dict(_entries(body.get("content")))
        media = next((kinds[kind] for kind in kinds if _is_json(kind)), None)
        required = body.get("required") is True
        if not isinstance(media, Mapping):
            if required:
                raise _unusable(f"wants a body of {', '.join(kinds) or 'no kind'}; tools send JSON")
            return None
        argument = BODY if BODY not in schema["properties"] else f"request_{BODY}"
        schema["properties"][argument] = self._schema(media.get("schema", {}))
        if required:
            schema["required"].append(argument)
        return argument

    # References and schemas

    def _followed(self, node: Any) -> Mapping[str, Any]:
        for _ in range(MOST_HOPS):
            if not isinstance(node, Mapping):
                break
            if not isinstance(node.get("$ref"), str):
                return node
            node = self._at(node["$ref"])
        raise _unusable("has a reference that leads to nothing that it should lead to")

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise _unusable(f"refers to {reference[:100]!r}; references must stay in the document")
        node: Any = self._document
        for token in reference[2:].split("/"):
            key = unquote(token).replace("~1", "/").replace("~0", "~")
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def _schema(self, schema: Any) -> Any:
        """The schema as one of JSON Schema, whose references lead to `$defs`."""
        return changed(schema, self._plain)

    def _plain(self, one: Mapping[str, Any]) -> Mapping[str, Any]:
        told = {key: value for key, value in one.items() if key not in DROPPED}
        for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            # Version 3.0 says by true or false whether the limit itself is excluded.
            if isinstance(told.get(exclusive), bool) and told.pop(exclusive) and limit in told:
                told[exclusive] = told.pop(limit)
        if isinstance(told.get("$ref"), str) and not told["$ref"].startswith(DEFINITIONS):
            told = {"$ref": f"{DEFINITIONS}{self._definition(told['$ref'])}"}
        if one.get("nullable") is not True:
            return told
        return {"anyOf": [told, {"type": "null"}]}

    def _definition(self, reference: str) -> str:
        if reference not in self._names:
            name = "".join(letter if letter.isalnum() else "_" for letter in reference.rpartition("/")[2])
            while name in self._defs or not name:
                name += "_"
            self._names[reference] = name
            self._defs[name] = True  # the schema may refer to itself
            if len(self._defs) > MOST_DEFINITIONS:
                raise _unusable("describes arguments with too many schemas")
            self._defs[name] = self._schema(self._at(reference))
        return self._names[reference]


def origin_of(url: URL) -> tuple[str, str | None, int | None]:
    """The part of a URL that decides which server it leads to."""
    return url.scheme, url.host, url.port


def _is_json(kind: str) -> bool:
    plain = kind.partition(";")[0].strip().lower()
    return plain == "application/json" or plain.endswith("+json")


def _entries(told: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in told.items()] if isinstance(told, Mapping) else []


def _text(told: Any) -> str:
    return told if isinstance(told, str) else ""


def _unusable(problem: str) -> DeclarationError:
    return DeclarationError(ToolTrouble.UNUSABLE, f"the document {problem}")
