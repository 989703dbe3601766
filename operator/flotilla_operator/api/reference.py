"""The API reference in Markdown, written from the same schema as the CRDs: a page a kind, a row a field.

Fields that this release refuses stand on a page of their own, so that the other pages hold only what acts.
"""

import json
from collections.abc import Iterable, Iterator

from flotilla_operator.api.base import VALIDATIONS
from flotilla_operator.api.kinds import GROUP, VERSION, Kind
from flotilla_operator.api.schema import JsonSchema, not_yet, structural

NOT_ACTED_ON = "not acted on by this release"
GENERATED = "Written by `make generate` from the models in `operator/flotilla_operator/api`."


def kind_page(kind: Kind) -> str:
    """The reference of one kind."""
    schema = structural(kind)
    refused = {field.path for field in not_yet(kind) if not field.values}
    lines = [
        f"# {kind.name}",
        "",
        schema["description"],
        "",
        f"`{GROUP}/{VERSION}`, `kubectl get {kind.short_name}`. {GENERATED}",
    ]
    for part in ("spec", "status"):
        lines += ["", f"## {part}", "", "| field | type | default | |", "|---|---|---|---|"]
        lines += _rows(schema["properties"][part], part, refused)
    lines += ["", "## Refused when applied", ""]
    lines += [f"- {message}" for message in dict.fromkeys(_messages(schema, refused))]
    return "\n".join(lines) + "\n"


def index_page(kinds: Iterable[Kind]) -> str:
    """Where everything is."""
    lines = ["# API reference", "", GENERATED, ""]
    lines += [f"- [{kind.name}]({kind.name.lower()}.md): {structural(kind)['description']}" for kind in kinds]
    lines += ["- [Not yet](not-yet.md): fields that are part of the API and not yet acted on.", ""]
    return "\n".join(lines)


def not_yet_page(kinds: Iterable[Kind]) -> str:
    """Every field and value that the API has and this release refuses."""
    lines = [
        "# Not yet",
        "",
        "These fields are part of the API, and nothing acts on them in this release. They have no default,",
        "and an object that sets one is refused with a message that says so: nothing is silently ignored.",
        "",
        GENERATED,
    ]
    for kind in kinds:
        lines += ["", f"## {kind.name}", "", "| field | what it will do |", "|---|---|"]
        for field in not_yet(kind):
            values = f" with {', '.join(f'`{value}`' for value in field.values)}" if field.values else ""
            lines.append(f"| `{field.path}`{values} | {field.promise} |")
    return "\n".join(lines) + "\n"


def _rows(schema: JsonSchema, path: str, refused: set[str]) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if here in refused:
            continue
        shown = "default" in field and not isinstance(field["default"], dict)
        default = f"`{json.dumps(field['default'])}`" if shown else ""
        words = field.get("description", "").replace("|", "\\|")
        must = " **Required.**" if name in required else ""
        yield f"| `{here}` | {_type(field)} | {default} | {words}{must} |"
        yield from _rows(field, here, refused)
        yield from _rows(field.get("items", {}), f"{here}[]", refused)


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


def _messages(schema: JsonSchema, refused: set[str], path: str = "") -> Iterator[str]:
    """The rules' sentences, but for those about what does not act yet: that has a page of its own."""
    about_refused = tuple(f"{field}." for field in refused)
    for message in (rule["message"] for rule in schema.get(VALIDATIONS, ())):
        if NOT_ACTED_ON not in message and not message.startswith(about_refused):
            yield message
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        if here not in refused:
            yield from _messages(field, refused, here)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from _messages(schema[key], refused, f"{path}[]")
