"""The health check of examples/argocd, run as Argo CD runs it: the script sees the object as `obj`."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import LuaRuntime

from flotilla_operator.api.kinds import KINDS
from local_cluster.control_plane import ControlPlane
from tests.builders.api_objects import changed, smallest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "argocd.md"
PATCH = ROOT / "examples" / "argocd" / "health.yaml"
APPLICATIONS = ROOT / "examples" / "argocd" / "applications.yaml"
KEY = "resource.customizations.health.flotilla.dev_"


def scripts() -> dict[str, str]:
    """The Lua code for each key of the ConfigMap."""
    data: dict[str, str] = yaml.safe_load(PATCH.read_text())["data"]
    return data


def command() -> list[str]:
    """The page's command that changes Argo CD's ConfigMap."""
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith("kubectl patch")]
    return shlex.split(line)[1:]


def fleet(*conditions: tuple[str, str, str], seen: int = 2, paused: bool = False) -> dict[str, Any]:
    """A fleet of generation 2 whose status was written for generation `seen`."""
    return {
        "metadata": {"generation": 2},
        "spec": {"paused": paused},
        "status": {
            "observedGeneration": seen,
            "conditions": [{"type": t, "status": s, "message": m} for t, s, m in conditions],
        },
    }


@pytest.mark.holds(
    "argocd.md", "The health check makes Healthy, Progressing, Degraded and Suspended of our conditions"
)
@pytest.mark.parametrize(
    ("manifest", "status", "message"),
    [
        pytest.param(
            {"metadata": {"generation": 1}}, "Progressing", "Waiting for the operator", id="no status yet"
        ),
        pytest.param(fleet(("Ready", "True", "")), "Healthy", "", id="ready"),
        pytest.param(
            fleet(("Ready", "True", ""), seen=1),
            "Progressing",
            "Waiting for the operator to see the newest change",
            id="ready, but for an older generation",
        ),
        pytest.param(
            fleet(("Ready", "False", "waits for GPUs"), ("Stalled", "False", "")),
            "Progressing",
            "waits for GPUs",
            id="time will mend it",
        ),
        pytest.param(
            fleet(("Ready", "False", "x"), ("Stalled", "True", "secret k is missing")),
            "Degraded",
            "secret k is missing",
            id="a person must mend it",
        ),
        pytest.param(
            fleet(("Ready", "True", ""), paused=True), "Suspended", "spec.paused is true", id="paused"
        ),
    ],
)
def test_argo_cd_reads_the_conditions(manifest: dict[str, Any], status: str, message: str) -> None:
    lua = LuaRuntime()
    lua.globals()["obj"] = lua.table_from(manifest, recursive=True)
    (script,) = set(scripts().values())
    health = lua.execute(script)
    assert (health["status"], health["message"]) == (status, message)


@pytest.mark.holds(
    "argocd.md", "The patch adds a health check for each kind, and leaves what Argo CD has in its ConfigMap"
)
def test_each_kind_has_the_health_check() -> None:
    assert list(scripts()) == sorted(f"{KEY}{kind.name}" for kind in KINDS)


@pytest.mark.holds(
    "argocd.md", "The patch adds a health check for each kind, and leaves what Argo CD has in its ConfigMap"
)
@pytest.mark.apiserver
def test_the_patch_leaves_what_argo_cd_has_in_its_configuration(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Applied as a ConfigMap it removed Argo CD's own keys, and Argo CD ended."""
    theirs = {"resource.exclusions": "- kinds: [Endpoints]", "resource.customizations": "'*/*': {}"}
    metadata = {"name": "argocd-cm", "labels": {"app.kubernetes.io/part-of": "argocd"}}
    folder = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.client.create(folder, {"metadata": metadata, "data": theirs})
    here = {"argocd": namespace, str(PATCH.relative_to(ROOT)): str(PATCH)}
    control_plane.kubectl(*(here.get(word, word) for word in command()))
    found = control_plane.client.get(f"{folder}/argocd-cm")
    assert found["data"] == {**theirs, **scripts()}
    assert found["metadata"]["labels"] == metadata["labels"]


@pytest.mark.holds(
    "argocd.md", "An apply on the server refuses a field that the API server does not know, with its name"
)
@pytest.mark.apiserver
def test_an_apply_on_the_server_names_a_field_that_is_not_known(
    control_plane: ControlPlane, namespace: str
) -> None:
    fleet = changed(smallest("AgentFleet", namespace=namespace), spec__shiny=True)
    arguments = ("apply", "--server-side", "--validate=false", "--filename=-")
    refusal = control_plane.kubectl(*arguments, manifest=yaml.safe_dump(fleet), check=False)
    assert ".spec.shiny: field not declared in schema" in refusal


@pytest.mark.holds("argocd.md", "The example's Applications are applied on the server")
def test_the_applications_are_applied_on_the_server_and_deleted_with_what_they_made() -> None:
    chart, objects = yaml.safe_load_all(APPLICATIONS.read_text())
    for application in (chart, objects):
        assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
        assert application["metadata"]["finalizers"] == ["resources-finalizer.argocd.argoproj.io"]
    assert chart["spec"]["source"]["path"] == "charts/flotilla"
