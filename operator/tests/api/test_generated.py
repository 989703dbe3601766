"""The generated files are up to date, and the schemas have the form that the API server wants.

test_install.py shows that the API server takes them. Here are rules that it does not enforce, or whose breach
it reports in a way that is hard to understand. The texts are in test_descriptions.py.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api import generate, schema
from flotilla_operator.api.generate import CHART_CRDS, CRDS, generated, main, stale, write
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.reference import kind_page, not_yet_page
from flotilla_operator.api.schema import definition, not_reported, not_yet
from tests.support.schemas import fields

CLIENT_SIDE_APPLY_LIMIT_BYTES = 256 * 1024
REFUSED_BY_THE_API_SERVER = ("$ref", "$defs", "uniqueItems", "prefixItems", "const", "propertyNames", "title")

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
by_incomplete_kind = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if not_yet(kind)], ids=lambda kind: kind.name
)


def inside(path: str, value: Any) -> Iterator[str]:
    """The paths of all that an object holds, at any depth."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield f"{path}.{name}"
        yield from inside(f"{path}.{name}", inner)


@pytest.fixture(scope="module")
def texts() -> Mapping[Path, str]:
    """Everything that is generated, by its place in the repository."""
    return generated()


@pytest.mark.holds("README.md", "The list of fields that do not act is generated and true")
@pytest.mark.holds("architecture.md", "The API reference and the definitions are generated from the models")
@pytest.mark.holds("api/README.md", "The pages are what the models say")
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


@pytest.mark.holds("architecture.md", "The API reference and the definitions are generated from the models")
def test_the_chart_carries_the_same_definitions(texts: dict[Path, str]) -> None:
    for kind in KINDS:
        name = f"flotilla.dev_{kind.plural}.yaml"
        assert texts[CRDS / name] == texts[CHART_CRDS / name]
        assert len(texts[CRDS / name].encode()) < CLIENT_SIDE_APPLY_LIMIT_BYTES


def test_generating_twice_gives_the_same_bytes(texts: dict[Path, str]) -> None:
    schema._inlined.cache_clear()
    assert generated() == texts


@by_kind
def test_a_kind_has_the_many_fields_that_the_tests_below_go_through(kind: Kind) -> None:
    assert len(fields(kind)) > 100


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


def dropped(path: str, value: Any) -> Iterator[str]:
    """The paths of what an API server leaves out when it stores a definition; a default it keeps as it is."""
    if path.endswith(".default"):
        return
    if value in (None, "", [], {}) or value is False:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for name, inner in items:
        yield from dropped(f"{path}.{name}", inner)


@pytest.mark.holds(
    "argocd.md", "A definition holds nothing that an API server drops, so Argo CD sees no difference in it"
)
@by_kind
def test_a_definition_holds_nothing_that_an_api_server_drops(kind: Kind) -> None:
    """Or Argo CD sees a difference, and applies the definition again, for ever."""
    kept_empty = ".spec.versions.0.subresources.status"
    assert list(dropped("", definition(kind))) == [kept_empty]


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
def test_lists_of_objects_say_what_tells_their_items_apart(kind: Kind) -> None:
    for path, field in fields(kind):
        keys = field.get("x-kubernetes-list-map-keys")
        if field.get("type") == "array" and field["items"].get("type") == "object":
            # Atomic: core/v1 has no key for these, or the list is a log.
            without = ("tolerations", "DuringExecution", "lastDecisions")
            assert keys or path.endswith(without), path
        if keys:
            assert field["x-kubernetes-list-type"] == "map", path
            assert set(keys) <= set(field["items"]["required"]), path


@by_incomplete_kind
def test_a_field_that_is_not_supported_has_no_default_and_a_refusal(kind: Kind) -> None:
    known = dict(fields(kind))
    for refused in (field for field in not_yet(kind) if not field.values):
        parent, _, name = refused.path.rpartition(".")
        assert "default" not in known[refused.path], refused.path
        refusals = {rule["rule"]: rule["message"] for rule in known[parent]["x-kubernetes-validations"]}
        assert refusals[f"!has(self.{name})"] == refused.message
        assert re.fullmatch(rf"{re.escape(refused.path)} is not yet supported; .+", refused.message)


@by_kind
def test_a_default_never_holds_a_field_that_is_not_supported(kind: Kind) -> None:
    refused = {field.path for field in not_yet(kind) if not field.values}
    held = {inner for path, field in fields(kind) for inner in inside(path, field.get("default"))}
    assert held
    assert held & refused == set()


@by_kind
def test_a_status_has_no_defaults(kind: Kind) -> None:
    assert [path for path, field in fields(kind) if path.startswith("status") and "default" in field] == []


@pytest.mark.holds("placement.md", "The columns of `kubectl get -o wide` are filled from the status")
@by_kind
def test_columns_show_fields_of_their_type(kind: Kind) -> None:
    known = dict(fields(kind))
    (version,) = definition(kind)["spec"]["versions"]
    shown = {
        path: column["type"]
        for column in version["additionalPrinterColumns"]
        if not (path := column["jsonPath"].removeprefix(".")).startswith(("metadata", "status.conditions"))
    }
    assert len(shown) > 4
    assert {path: known[path]["type"] for path in shown} == shown


@by_kind
def test_the_page_of_a_kind_leaves_out_what_is_not_supported_or_not_reported(kind: Kind) -> None:
    page = kind_page(kind)
    left_out = [field.path for field in not_yet(kind) if not field.values]
    left_out += [field.path for field in not_reported(kind)]
    assert [path for path in left_out if f"| `{path}" in page] == []
    _, told = page.split("## Refused when applied")
    assert [path for path in left_out if f"{path}." in told] == []
    assert [field.message for field in not_yet(kind) if field.message in told] == []


@by_incomplete_kind
def test_the_page_of_what_is_not_yet_there_lists_it(kind: Kind) -> None:
    page = not_yet_page([kind])
    told = [(field.path, field.promise) for field in not_yet(kind)]
    told += [(field.path, field.promise) for field in not_reported(kind)]
    assert [path for path, promise in told if f"| `{path}`" not in page or promise not in page] == []
