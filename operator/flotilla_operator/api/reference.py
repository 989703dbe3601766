"""The API reference in Markdown, generated from the same schema as the CRDs: a page for each kind.

Fields that are not supported or not reported yet are on a page of their own. The pages of the kinds hold only
what works in this release.
"""

from collections.abc import Iterable, Iterator

from flotilla_operator.api.base import VALIDATIONS
from flotilla_operator.api.kinds import GROUP, VERSION, Column, Kind
from flotilla_operator.api.schema import JsonSchema, Unsupported, not_reported, not_yet, structural

GENERATED = (
    "This page is generated from the Python classes in `operator/flotilla_operator/api` by `make generate`."
)


def kind_page(kind: Kind) -> str:
    """The reference of one kind."""
    schema = structural(kind)
    left_out = _left_out(kind)
    lines = [
        f"# {kind.name}",
        "",
        f"{kind.use} ([example](../../examples/{kind.example})).",
        "",
        schema["description"],
        "",
        f"`apiVersion: {GROUP}/{VERSION}`. `kubectl get {kind.short_name}` lists the objects, and",
        f"`kubectl explain {kind.short_name}.spec` shows these descriptions in a terminal.",
        GENERATED,
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", "| field | type | description |", "|---|---|---|"]
        lines += _rows(schema["properties"][part], part, left_out)
    lines += ["", "## Columns of kubectl get", "", "| column | field |", "|---|---|"]
    lines += [_column(column) for column in kind.columns]
    lines += ["", "## Refused when applied", "", "An object that breaks one of these rules is refused:", ""]
    lines += [f"- {message}" for message in dict.fromkeys(_messages(kind))]
    return "\n".join(lines) + "\n"


def index_page(kinds: Iterable[Kind]) -> str:
    """The page that lists the other pages."""
    lines = [
        "# API reference",
        "",
        "These pages explain every field of the three kinds: what it does, its unit and its default.",
        "",
    ]
    lines += [f"- [{kind.name}]({kind.name.lower()}.md): {structural(kind)['description']}" for kind in kinds]
    lines += [
        "- [Not yet](not-yet.md): the fields that this release does not support or does not report.",
        "",
        GENERATED,
        "",
    ]
    return "\n".join(lines)


def not_yet_page(kinds: Iterable[Kind]) -> str:
    """The page of the fields and values that this release refuses, and of the status fields that it leaves
    empty.
    """
    lines = [
        "# Not yet",
        "",
        "Look here for fields that are part of the API but not supported in this release. If an object sets",
        "one of the spec fields, or a field below it, the API server refuses the object. Its message names",
        "the field and says what to do instead. The status fields are always absent.",
        "",
        "A few other fields accept only some values so far: `spec.autoscaling.minReplicas` of a",
        "ModelReplicaSet, for example, accepts only 0. Their descriptions say so.",
        "",
        GENERATED,
    ]
    for kind in kinds:
        refused = [f"| `{field.path}`{_values(field)} | {_cell(field.promise)} |" for field in not_yet(kind)]
        absent = [f"| `{field.path}` | {_cell(field.promise)} |" for field in not_reported(kind)]
        if refused or absent:
            lines += ["", f"## {kind.name}"]
            lines += _table("spec field, not yet supported", refused)
            lines += _table("status field, not yet reported", absent)
    return "\n".join(lines) + "\n"


def _values(field: Unsupported) -> str:
    return f" with {', '.join(f'`{value}`' for value in field.values)}" if field.values else ""


def _table(head: str, rows: list[str]) -> list[str]:
    return ["", f"| {head} | what it is for |", "|---|---|", *rows] if rows else []


def _left_out(kind: Kind) -> frozenset[str]:
    refused = {field.path for field in not_yet(kind) if not field.values}
    return frozenset(refused | {field.path for field in not_reported(kind)})


def _rows(schema: JsonSchema, path: str, left_out: frozenset[str]) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if here in left_out:
            continue
        must = "**Required.** " if name in required and path.startswith("spec") else ""
        yield f"| `{here}` | {_type(field)} | {must}{_cell(field.get('description', ''))} |"
        yield from _rows(field, here, left_out)
        yield from _rows(field.get("items", {}), f"{here}[]", left_out)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _column(column: Column) -> str:
    wide = " (with `-o wide`)" if column.wide else ""
    return f"| {column.name}{wide} | `{column.path.removeprefix('.')}` |"


def _type(field: JsonSchema) -> str:
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    return f"{field.get('type', 'object')}{_bounds(field)}"


def _bounds(field: JsonSchema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return ""
    if high is None:
        return f" {'>' if field.get('exclusiveMinimum') else '≥'} {low}"
    opening = "(" if field.get("exclusiveMinimum") else "["
    closing = ")" if field.get("exclusiveMaximum") else "]"
    return f" {opening}{low}, {high}{closing}"


def _messages(kind: Kind) -> Iterator[str]:
    """The messages of the rules, without those about fields that are not supported yet."""
    left_out = _left_out(kind)
    refusals = {field.message for field in not_yet(kind)}
    about = tuple(f"{path}{end}" for path in left_out for end in (".", " "))
    for message in _messages_in(structural(kind), "", left_out):
        if message not in refusals and not message.startswith(about):
            yield message


def _messages_in(schema: JsonSchema, path: str, left_out: frozenset[str]) -> Iterator[str]:
    yield from (rule["message"] for rule in schema.get(VALIDATIONS, ()))
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        if here not in left_out:
            yield from _messages_in(field, here, left_out)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _messages_in(schema[key], f"{path}[]", left_out)
