"""What is generated: up to date, and of a form that the API server takes.

That the API server does take it is shown in test_install.py; here the habits are checked that it would not
insist on, or only with a message that nobody understands.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api import generate
from flotilla_operator.api.generate import CHART_CRDS, CRDS, generated, main, stale, write
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.reference import kind_page
from flotilla_operator.api.schema import definition, not_yet, structural

CLIENT_SIDE_APPLY_LIMIT_BYTES = 256 * 1024
REFUSED_BY_THE_API_SERVER = ("$ref", "$defs", "uniqueItems", "prefixItems", "const", "propertyNames", "title")

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def texts() -> Mapping[Path, str]:
    """Everything that is generated, by its place in the repository."""
    return generated()


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from schemas(field, f"{path}.{name}" if path else name)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key], f"{path}[]")


def fields(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    root = structural(kind)["properties"]
    return [entry for part in ("spec", "status") for entry in schemas(root[part], part)]


def test_the_files_in_the_repository_are_what_the_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert (main(["--check"]), capsys.readouterr().err) == (0, ""), "run make generate"


def test_the_command_checks_without_writing(
    texts: dict[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "generated", lambda: texts)
    assert main(["--check"]) == 1
    assert f"{CRDS}/flotilla.dev_agentfleets.yaml is stale; run make generate" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_a_file_that_was_edited_is_stale_and_so_is_one_that_nothing_writes(
    texts: dict[Path, str], tmp_path: Path
) -> None:
    write(tmp_path, texts)
    assert stale(tmp_path, texts) == []
    edited, leftover = CRDS / "flotilla.dev_agentfleets.yaml", CRDS / "flotilla.dev_old.yaml"
    (tmp_path / edited).write_text("edited")
    (tmp_path / leftover).write_text("left over")
    assert stale(tmp_path, texts) == [edited, leftover]


def test_the_chart_carries_the_same_definitions(texts: dict[Path, str]) -> None:
    for kind in KINDS:
        name = f"flotilla.dev_{kind.plural}.yaml"
        assert texts[CRDS / name] == texts[CHART_CRDS / name]
        assert len(texts[CRDS / name].encode()) < CLIENT_SIDE_APPLY_LIMIT_BYTES


def test_generating_twice_gives_the_same_bytes(texts: dict[Path, str]) -> None:
    assert generated() == texts


@by_kind
def test_nothing_that_a_structural_schema_may_not_have(kind: Kind) -> None:
    for path, field in fields(kind):
        assert not [word for word in REFUSED_BY_THE_API_SERVER if word in field], path
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            assert field.get(bound, True) is True, path
        if "properties" in field:
            assert "additionalProperties" not in field, path
        if "anyOf" in field:
            assert field.get("x-kubernetes-int-or-string"), path
        assert not [key for key in field if key.startswith("x-flotilla")], path


@by_kind
def test_everything_is_bounded(kind: Kind) -> None:
    for path, field in fields(kind):
        if field.get("type") == "string" and "enum" not in field:
            assert "maxLength" in field, path
        if field.get("type") == "array":
            assert "maxItems" in field, path
        if isinstance(field.get("additionalProperties"), dict):
            assert "maxProperties" in field, path


@by_kind
def test_every_field_says_what_it_is(kind: Kind) -> None:
    silent = [
        path
        for path, field in fields(kind)
        if not path.endswith(("[]", "volumes[].name", "volumeMounts[].mountPath"))
        and not field.get("description")
    ]
    assert silent == []


@by_kind
def test_lists_of_objects_say_what_tells_their_items_apart(kind: Kind) -> None:
    for path, field in fields(kind):
        keys = field.get("x-kubernetes-list-map-keys")
        if field.get("type") == "array" and field["items"].get("type") == "object":
            without = (
                "tolerations",
                "lastDecisions",
            )  # atomic: core/v1 has no key for one, the other is a log
            assert keys or path.endswith(without), path
        if keys:
            assert field["x-kubernetes-list-type"] == "map", path
            assert set(keys) <= set(field["items"]["required"]), path


@by_kind
def test_a_field_that_does_not_act_has_no_default_and_a_refusal(kind: Kind) -> None:
    known = dict(fields(kind))
    for unacted in not_yet(kind):
        if unacted.values:
            continue
        parent, _, name = unacted.path.rpartition(".")
        assert "default" not in known[unacted.path], unacted.path
        refusals = {rule["rule"]: rule["message"] for rule in known[parent]["x-kubernetes-validations"]}
        assert refusals[f"!has(self.{name})"] == (
            f"{unacted.path} is not acted on by this release of Flotilla; remove it"
        )


@by_kind
def test_a_default_never_holds_a_field_that_does_not_act(kind: Kind) -> None:
    refused = {unacted.path for unacted in not_yet(kind) if not unacted.values}
    for path, field in fields(kind):
        default = field.get("default")
        if isinstance(default, dict):
            assert not {f"{path}.{name}" for name in default} & refused, path


@by_kind
def test_a_status_has_no_defaults(kind: Kind) -> None:
    assert [path for path, field in fields(kind) if path.startswith("status") and "default" in field] == []


@by_kind
def test_columns_show_fields_of_their_type(kind: Kind) -> None:
    known = dict(fields(kind))
    (version,) = definition(kind)["spec"]["versions"]
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"].removeprefix(".")
        if path.startswith(("metadata", "status.conditions")):
            continue
        assert known[path]["type"] == column["type"], column["name"]


@by_kind
def test_the_reference_tells_no_rule_of_what_is_refused_anyway(kind: Kind) -> None:
    _, told = kind_page(kind).split("## Refused when applied")
    assert "not acted on" not in told
    assert [field.path for field in not_yet(kind) if not field.values and f"{field.path}." in told] == []
