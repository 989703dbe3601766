"""The definitions on real API servers, newest and oldest, and every file of examples/ on them."""

from pathlib import Path

import pytest
import yaml

from flotilla_operator.api.generate import CHART_CRDS, CRDS, ROOT
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.schema import structural
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.pytest_plugin import StartControlPlane, create_namespace
from tests.support.kinds import CRD_PATH, install_kinds

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def status_of(kind: Kind) -> dict[str, object]:
    """A status with every field, made from the schema."""
    schema = structural(kind)["properties"]["status"]
    status = filled(schema)
    assert isinstance(status, dict)
    return status


def filled(schema: dict[str, object]) -> object:
    """A value with every field that the schema has."""
    if "enum" in schema:
        return schema["enum"][0]  # type: ignore[index]
    kind = schema["type"]
    if kind == "object":
        return {name: filled(field) for name, field in schema["properties"].items()}  # type: ignore[attr-defined]
    if kind == "array":
        return [filled(schema["items"])]  # type: ignore[arg-type]
    if schema.get("format") == "date-time":
        return "2026-01-02T03:04:05Z"
    return {"string": "text", "integer": 7, "number": 0.5, "boolean": True}[str(kind)]


@pytest.mark.apiserver
def test_the_definitions_install_without_a_warning(kinds_installed: ControlPlane) -> None:
    for path in sorted((ROOT / CRDS).glob("*.yaml")):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        conditions = {
            condition["type"]: condition["status"]
            for condition in kinds_installed.client.get(f"{CRD_PATH}/{name}")["status"]["conditions"]
        }
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.apiserver
def test_client_side_apply_works_too(kinds_installed: ControlPlane) -> None:
    out = kinds_installed.kubectl("apply", f"--filename={ROOT / CHART_CRDS}", "--dry-run=server")
    assert out.count("customresourcedefinition") == len(KINDS)


@pytest.mark.apiserver
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_apply(kinds_installed: ControlPlane, namespace: str, path: Path) -> None:
    objects = list(yaml.safe_load_all(path.read_text()))
    arguments = (f"--filename={path}", f"--namespace={namespace}")
    out = kinds_installed.kubectl("apply", *arguments, "--validate=strict")
    assert out.count("created") == len(objects)
    again = kinds_installed.kubectl("apply", *arguments, "--server-side", "--force-conflicts")
    assert again.count("serverside-applied") == len(objects)


@pytest.mark.apiserver
def test_the_category_lists_all_kinds(kinds_installed: ControlPlane, namespace: str) -> None:
    kinds_installed.kubectl(
        "apply", f"--filename={ROOT}/examples/agentfleet.yaml", f"--namespace={namespace}"
    )
    shown = kinds_installed.kubectl("get", "flotilla", "--output=name", f"--namespace={namespace}")
    assert {line.split(".")[0] for line in shown.split()} == {kind.name.lower() for kind in KINDS}


@pytest.mark.apiserver
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_whole_status_is_kept_and_fills_every_column(
    kinds_installed: ControlPlane, namespace: str, kind: Kind
) -> None:
    kinds_installed.kubectl(
        "apply", f"--filename={ROOT}/examples/agentfleet.yaml", f"--namespace={namespace}"
    )
    folder = f"/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{kind.plural}"
    name = kinds_installed.client.get(folder)["items"][0]["metadata"]["name"]
    status = status_of(kind)
    conditions = [
        {**condition, "type": condition_type}
        for condition in status["conditions"]  # type: ignore[attr-defined]
        for condition_type in ("Placed", "Ready")
    ]
    status = {**status, "conditions": conditions}
    written = kinds_installed.client.merge(f"{folder}/{name}/status", {"status": status})
    assert written["status"] == status
    table = kinds_installed.kubectl("get", kind.short_name, name, "--output=wide", f"--namespace={namespace}")
    header, line = table.splitlines()
    assert header.split() == ["NAME", *(column.name for column in kind.columns)]
    assert len(line.split()) == len(header.split()), table


@pytest.mark.apiserver
@pytest.mark.timeout(1800)  # where nobody ran `make prerequisites`, it builds the oldest API server first
def test_the_oldest_kubernetes_takes_definitions_and_examples(
    start_control_plane: StartControlPlane,
) -> None:
    plane = start_control_plane(Options(oldest=True))
    install_kinds(plane)
    for path in EXAMPLES:
        namespace = create_namespace(plane)
        plane.kubectl("apply", f"--filename={path}", f"--namespace={namespace}", "--validate=strict")
