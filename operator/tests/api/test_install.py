"""The definitions on a real API server, and every file of examples/ on it.

The newest that is supported: test_newest_kubernetes.py.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.generate import CHART_CRDS, CRDS, ROOT
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.schema import structural
from local_cluster import definitions
from local_cluster.control_plane import ControlPlane

EXAMPLES = sorted([*(ROOT / "examples").glob("*.yaml"), *(ROOT / "examples" / "models").glob("*.yaml")])


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
def test_the_definitions_install_without_a_warning(control_plane: ControlPlane) -> None:
    for path in sorted((ROOT / CRDS).glob("*.yaml")):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        conditions = {
            condition["type"]: condition["status"]
            for condition in control_plane.client.get(f"{definitions.PATH}/{name}")["status"]["conditions"]
        }
        assert conditions["Established"] == conditions["NamesAccepted"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


def unlike(wanted: Any, live: Any, path: str = "") -> Iterator[str]:
    """The paths at which the API server has not what it was given."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for name, inner in wanted.items():
            yield from unlike(inner, live.get(name, "nothing"), f"{path}.{name}")
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for number, (inner, found) in enumerate(zip(wanted, live, strict=True)):
            yield from unlike(inner, found, f"{path}.{number}")
    elif wanted != live:
        yield path


@pytest.mark.holds(
    "argocd.md", "A definition holds nothing that an API server drops, so Argo CD sees no difference in it"
)
@pytest.mark.apiserver
@pytest.mark.parametrize("path", sorted((ROOT / CRDS).glob("*.yaml")), ids=lambda path: path.stem)
def test_the_api_server_keeps_a_definition_as_it_is(control_plane: ControlPlane, path: Path) -> None:
    wanted = yaml.safe_load(path.read_text())
    live = control_plane.client.get(f"{definitions.PATH}/{wanted['metadata']['name']}")
    assert list(unlike(wanted, live)) == []


@pytest.mark.apiserver
def test_client_side_apply_works_too(control_plane: ControlPlane) -> None:
    out = control_plane.kubectl("apply", f"--filename={ROOT / CHART_CRDS}", "--dry-run=server")
    assert out.count("customresourcedefinition") == len(KINDS)


@pytest.mark.holds("README.md", "The presets apply")
@pytest.mark.holds("README.md", "Every file of examples/ is applied in a test")
@pytest.mark.holds(
    "start/kind.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.holds(
    "start/eks.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.holds(
    "start/gke.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.holds(
    "start/aks.md", "The file that it applies is valid, and needs nothing that it does not make"
)
@pytest.mark.apiserver
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_apply(control_plane: ControlPlane, namespace: str, path: Path) -> None:
    objects = list(yaml.safe_load_all(path.read_text()))
    arguments = (f"--filename={path}", f"--namespace={namespace}")
    out = control_plane.kubectl("apply", *arguments, "--validate=strict")
    assert out.count("created") == len(objects)
    again = control_plane.kubectl("apply", *arguments, "--server-side", "--force-conflicts")
    assert again.count("serverside-applied") == len(objects)


@pytest.mark.holds("README.md", "`kubectl get flotilla` lists all three kinds")
@pytest.mark.apiserver
def test_the_category_lists_all_kinds(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("apply", f"--filename={ROOT}/examples/agentfleet.yaml", f"--namespace={namespace}")
    shown = control_plane.kubectl("get", "flotilla", "--output=name", f"--namespace={namespace}")
    assert {line.split(".")[0] for line in shown.split()} == {kind.name.lower() for kind in KINDS}


@pytest.mark.holds("placement.md", "The columns of `kubectl get -o wide` are filled from the status")
@pytest.mark.apiserver
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_whole_status_is_kept_and_fills_every_column(
    control_plane: ControlPlane, namespace: str, kind: Kind
) -> None:
    control_plane.kubectl("apply", f"--filename={ROOT}/examples/agentfleet.yaml", f"--namespace={namespace}")
    folder = f"/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{kind.plural}"
    name = control_plane.client.get(folder)["items"][0]["metadata"]["name"]
    status = status_of(kind)
    conditions = [
        {**condition, "type": condition_type}
        for condition in status["conditions"]  # type: ignore[attr-defined]
        for condition_type in ("Placed", "Ready")
    ]
    status = {**status, "conditions": conditions}
    written = control_plane.client.merge(f"{folder}/{name}/status", {"status": status})
    assert written["status"] == status
    table = control_plane.kubectl("get", kind.short_name, name, "--output=wide", f"--namespace={namespace}")
    header, line = table.splitlines()
    assert header.split() == ["NAME", *(column.name for column in kind.columns)]
    assert len(line.split()) == len(header.split()), table
