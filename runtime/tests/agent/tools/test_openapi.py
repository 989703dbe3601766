"""The arguments of an OpenAPI document's operation, and the requests that they make; no server."""

from typing import Any

import pytest

from agent_support.openapi import DOCUMENT, document
from flotilla_runtime.agent.tools.declarations import DeclarationError, declared_check
from flotilla_runtime.agent.tools.openapi import read_operation
from flotilla_runtime.agent.tools.operations import ArgumentError, Operation, request_of
from flotilla_runtime.contract import HttpMethod, ToolTrouble

AT = "https://trips.example/openapi.json"


def operation(told: Any = DOCUMENT, operation_id: str = "bookRoom", base_url: str | None = None) -> Operation:
    return read_operation(told, operation_id, document_url=AT, base_url=base_url)


def with_operation(**fields: Any) -> dict[str, Any]:
    """A document with one operation, `op`, under GET /x."""
    return document(paths={"/x": {"get": {"operationId": "op", **fields}}}, servers=[])


def test_an_operation_is_a_tool_with_one_object_of_arguments() -> None:
    read = operation()
    assert (read.method, read.url) == (HttpMethod.POST, "https://trips.example/api/cities/{city}/rooms")
    assert read.description == "Books a room.\nOnly where one is free."
    properties = read.schema["properties"]
    assert list(properties) == ["city", "lang", "notify", "tags", "box", "raw", "X-Trip", "body"]
    assert read.schema["required"] == ["city", "body"]
    assert properties["body"] == {"$ref": "#/$defs/Booking"}


def test_schemas_of_version_3_0_become_json_schema() -> None:
    booking = operation().schema["$defs"]["Booking"]["properties"]
    assert booking["nights"] == {"type": "integer", "exclusiveMinimum": 0}
    assert booking["note"]["anyOf"][1] == {"type": "null"}
    assert booking["example"] == {"type": "string"}  # a property, and no example
    guest = operation().schema["$defs"]["Guest"]
    assert guest == {"type": "object", "properties": {"friend": {"$ref": "#/$defs/Guest"}}}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param({"city": "Faro", "body": {"nights": 2, "note": None}}, None, id="what fits"),
        pytest.param({"city": "Faro", "body": {"nights": 0}}, "minimum of 0", id="a limit that is excluded"),
        pytest.param({"city": "Faro"}, "'body' is a required property", id="no body"),
        pytest.param({"city": "Faro", "body": {"nights": 1}, "x": 1}, "'x' was unexpected", id="too much"),
        pytest.param(
            {"city": "Faro", "body": {"nights": 1, "guests": [{"friend": {"friend": 1}}]}},
            "1 is not of type 'object'",
            id="deep in a schema that refers to itself",
        ),
    ],
)
def test_arguments_are_checked_by_the_schema(arguments: dict[str, Any], says: str | None) -> None:
    problem = declared_check(operation().schema)(arguments)
    assert problem is None if says is None else says in (problem or "")


@pytest.mark.holds("tools.md", "No pattern of a declared schema is run")
@pytest.mark.attack("A schema that a server declares has a pattern that takes years")
@pytest.mark.timeout(5)
def test_a_pattern_that_somebody_declares_is_not_run() -> None:
    note = "a" * 60 + "!"
    assert declared_check(operation().schema)({"city": "F", "body": {"nights": 1, "note": note}}) is None
    schema = {"type": "object", "additionalProperties": False, "patternProperties": {"^(a+)+$": {}}}
    assert "was unexpected" in (declared_check(schema)({note: 1}) or "")


DRAFT_7 = "http://json-schema.org/draft-07/schema#"
YEARS: dict[str, Any] = {"pattern": "^(a+)+$"}
MANY = range(40)


def nested(levels: int) -> dict[str, Any]:
    """Each level is checked twice: by `allOf`, and by what asks what `allOf` has checked."""
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"unevaluatedProperties": True, "allOf": [inner]}
    return inner


@pytest.mark.holds("tools.md", "No pattern of a declared schema is run")
@pytest.mark.attack("A schema that a server declares has a pattern that takes years")
@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(
            {"$schema": DRAFT_7, "properties": {"note": {"items": [YEARS]}}}, id="of the items one by one"
        ),
        pytest.param(
            {"$schema": DRAFT_7, "dependencies": {"other": {"properties": {"other": YEARS}}}}, id="old"
        ),
        pytest.param({"x-own": YEARS, "properties": {"other": {"$ref": "#/x-own"}}}, id="of no keyword"),
        pytest.param({"default": YEARS, "properties": {"other": {"$ref": "#/default"}}}, id="of a default"),
        pytest.param(
            {
                "$defs": {"patternProperties": {"^(a+)+$": {}}},
                "properties": {"map": {"$ref": "#/$defs"}},
            },
            id="of all definitions as one schema",
        ),
        pytest.param(
            {"properties": {"other": {"$schema": DRAFT_7, "allOf": [YEARS]}}}, id="of another dialect within"
        ),
    ],
)
def test_no_pattern_is_run_wherever_it_stands(schema: dict[str, Any]) -> None:
    text = "a" * 60 + "!"
    assert declared_check(schema)({"note": [text], "other": text, "map": {text: 1}}) is None


@pytest.mark.attack("A schema that a server declares takes years to check")
@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(
            {
                "$defs": {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in MANY}
                | {f"a{len(MANY)}": {}},
                "$ref": "#/$defs/a0",
            },
            id="each refers twice to the next",
        ),
        pytest.param(nested(60), id="each is checked twice"),
        pytest.param(
            {
                "unevaluatedProperties": False,
                "$defs": {
                    f"a{n}": {"dependentSchemas": {key: {"$ref": f"#/$defs/a{n + 1}"} for key in "xy"}}
                    for n in MANY
                }
                | {f"a{len(MANY)}": {}},
                "$ref": "#/$defs/a0",
            },
            id="what is left over is looked for",
        ),
    ],
)
def test_a_check_that_takes_long_is_left_to_the_server(schema: dict[str, Any]) -> None:
    check = declared_check({**schema, "required": ["x"]})
    assert check({"x": 1, "y": 1}) is None


@pytest.mark.parametrize("reference", ["#/required", "#/properties", "#/title"])
def test_a_reference_to_what_is_no_schema_is_left_to_the_server(reference: str) -> None:
    schema = {
        "title": "t",
        "required": ["pattern"],
        "properties": {"pattern": {"type": "string"}, "x": {"$ref": reference}},
    }
    check = declared_check(schema)
    assert check({"pattern": "a", "x": "b"}) is None
    assert "'pattern' is a required property" in (check({}) or "")
    assert "is not of type 'string'" in (check({"pattern": 1}) or "")


def test_a_schema_that_leads_nowhere_is_left_to_the_server() -> None:
    assert declared_check({"$ref": "#"})({}) is None
    assert declared_check({"$ref": "http://169.254.169.254/"})({}) is None


ARGUMENTS: dict[str, Any] = {
    "city": "São Brás/1?#",
    "lang": "pt",
    "notify": ["a", "b"],
    "tags": ["x", "y"],
    "box": {"w": 1},
    "raw": {"a": [1]},
    "X-Trip": "7",
    "body": {"nights": 2},
}


@pytest.mark.holds(
    "tools.md", "An OpenAPI operation is called with the arguments in their places, at its own host alone"
)
def test_arguments_make_the_request() -> None:
    request = request_of(operation(), ARGUMENTS)
    assert request.url == "https://trips.example/api/cities/S%C3%A3o%20Br%C3%A1s%2F1%3F%23/rooms"
    assert request.query == (
        ("lang", "pt"),
        ("notify", "a"),
        ("notify", "b"),
        ("tags", "x,y"),
        ("box[w]", "1"),
        ("raw", '{"a": [1]}'),
    )
    assert (request.headers, request.body, request.has_body) == ({"X-Trip": "7"}, {"nights": 2}, True)


@pytest.mark.parametrize(
    ("parameter", "value", "query"),
    [
        pytest.param({"style": "spaceDelimited"}, ["a", 1], (("q", "a 1"),), id="by spaces"),
        pytest.param({"style": "pipeDelimited"}, ["a", 1], (("q", "a|1"),), id="by pipes"),
        pytest.param({}, {"a": 1, "b": "c"}, (("a", "1"), ("b", "c")), id="an object, exploded"),
        pytest.param({"explode": False}, {"a": 1}, (("q", "a,1"),), id="an object in one"),
        pytest.param({}, True, (("q", "true"),), id="a truth"),
        pytest.param({}, None, (), id="nothing"),
    ],
)
def test_a_query_is_written_in_its_style(
    parameter: dict[str, Any], value: Any, query: tuple[tuple[str, str], ...]
) -> None:
    told = with_operation(parameters=[{"name": "q", "in": "query", "schema": {}, **parameter}])
    assert request_of(operation(told, "op"), {"q": value}).query == query


def test_arguments_with_one_name_get_the_names_of_their_places() -> None:
    told = document(paths={"/x/{id}": {"put": {
        "operationId": "op",
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": {}},
            {"name": "id", "in": "query", "schema": {}},
            {"name": "body", "in": "query", "schema": {}},
        ],
        "requestBody": {"content": {"application/merge+json": {"schema": {"type": "object"}}}},
    }}})  # fmt: skip
    read = operation(told, "op")
    assert list(read.schema["properties"]) == ["id", "id_query", "body", "request_body"]
    request = request_of(read, {"id": 1, "id_query": 2, "body": "b", "request_body": {}})
    assert (request.url, request.query) == ("https://trips.example/api/x/1", (("id", "2"), ("body", "b")))
    assert (request.body, request.has_body) == ({}, True)


@pytest.mark.attack("An argument leads an operation to another path, or into another header")
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        pytest.param("city", "..", id="the folder above"),
        pytest.param("city", ".", id="the folder itself"),
        pytest.param("city", "", id="nothing"),
        pytest.param("X-Trip", "1\r\nHost: evil", id="a second header"),
    ],
)
def test_an_argument_that_would_lead_elsewhere_is_refused(argument: str, value: str) -> None:
    with pytest.raises(ArgumentError, match=argument):
        request_of(operation(), {**ARGUMENTS, argument: value})


def test_what_is_written_as_an_object_must_be_one() -> None:
    told = with_operation(parameters=[{"name": "box", "in": "query", "style": "deepObject", "schema": {}}])
    with pytest.raises(ArgumentError, match="box: must be an object"):
        request_of(operation(told, "op"), {"box": ["text"]})


@pytest.mark.parametrize("value", ["../admin", "..%2Fadmin", "a?b=c#d", "{lang}", "//evil.example"])
def test_an_argument_of_the_path_stays_one_part_of_it(value: str) -> None:
    url = request_of(operation(), {**ARGUMENTS, "city": value}).url
    assert url.startswith("https://trips.example/api/cities/")
    assert url.removeprefix("https://").count("/") == 4
    assert not any(mark in url for mark in "?#{}")


@pytest.mark.parametrize(
    ("servers", "base_url", "url"),
    [
        pytest.param([], None, "https://trips.example/x", id="no server"),
        pytest.param([{"url": "v1/"}], None, "https://trips.example/v1/x", id="one below the document"),
        pytest.param([{"url": "https://trips.example:443/"}], None, "https://trips.example/x", id="its own"),
        pytest.param([{"url": "https://b.example"}], "http://c.test/v2", "http://c.test/v2/x", id="http.url"),
    ],
)
def test_the_server_is_the_documents_own_unless_http_url_names_one(
    servers: list[Any], base_url: str | None, url: str
) -> None:
    told = with_operation() | {"servers": servers}
    assert operation(told, "op", base_url).url == url


def served_by(url: str) -> dict[str, Any]:
    return with_operation() | {"servers": [{"url": url}]}


def under(path: str, method: str = "get") -> dict[str, Any]:
    return document(paths={path: {method: {"operationId": "op"}}})


COOKIE = {"name": "c", "in": "cookie", "required": True, "schema": {}}
FORM = {"required": True, "content": {"application/x-www-form-urlencoded": {}}}


@pytest.mark.holds("tools.md", "A document that cannot be used stops no task, and the model is told why")
@pytest.mark.attack("An OpenAPI document names another host, which would get the tool's secret")
@pytest.mark.parametrize(
    ("told", "says"),
    [
        pytest.param(served_by("https://evil.example"), "set http.url", id="host"),
        pytest.param(served_by("http://trips.example"), "set http.url", id="scheme"),
        pytest.param(
            with_operation(servers=[{"url": "//evil.example"}]), "set http.url", id="an operation's"
        ),
        pytest.param(served_by("https://u@trips.example"), "http.url", id="user"),
        pytest.param(served_by("http://[x"), "set http.url", id="no URL"),
        pytest.param(under("@evil.example/x"), "has the path", id="path"),
        pytest.param(under("/{x}"), "not described", id="no words"),
        pytest.param([], "is no OpenAPI document of version 3", id="a list"),
        pytest.param({"swagger": "2.0"}, "is no OpenAPI document of version 3", id="version 2"),
        pytest.param(under("/x", "head"), "under the method head", id="head"),
        pytest.param(with_operation(parameters=[COOKIE]), "the parameter 'c' in 'cookie'", id="a cookie"),
        pytest.param(with_operation(requestBody=FORM), "tools send JSON", id="a form"),
        pytest.param(
            with_operation(parameters=[{"name": "q", "in": "query", "style": "wild", "schema": {}}]),
            "the style wild",
            id="a style",
        ),
        pytest.param(
            with_operation(parameters=[{"$ref": "http://169.254.169.254/x"}]), "must stay", id="ref"
        ),
        pytest.param(with_operation(requestBody={"$ref": "#/a/b"}), "leads to nothing", id="dead"),
        pytest.param(
            with_operation(parameters=[{"name": "q", "in": "query", "schema": {"title": "x" * 70_000}}]),
            "at most 65536 are shown",
            id="too large",
        ),
    ],
)
def test_a_document_that_cannot_be_used_says_why(told: Any, says: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        operation(told, "op")
    assert raised.value.trouble is ToolTrouble.UNUSABLE
    assert says in raised.value.problem


def test_a_reference_to_itself_ends() -> None:
    loop = document(components={"parameters": {"a": {"$ref": "#/components/parameters/a"}}})
    loop["paths"] = {
        "/x": {"get": {"operationId": "op", "parameters": [{"$ref": "#/components/parameters/a"}]}}
    }
    with pytest.raises(DeclarationError, match="leads to nothing"):
        operation(loop, "op")


@pytest.mark.holds("tools.md", "An `operationId` that is not there is named with those that are")
def test_an_operation_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(DeclarationError) as raised:
        operation(operation_id="payRoom")
    assert raised.value.trouble is ToolTrouble.MISSING
    assert raised.value.problem == "the document has no operationId payRoom; there are bookRoom, listRooms"


def test_a_schema_that_is_none_is_a_declaration_that_cannot_be_used() -> None:
    with pytest.raises(DeclarationError, match="no JSON Schema"):
        declared_check({"type": "sentence"})
