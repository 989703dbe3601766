"""The health check on the Argo CD page, run as Argo CD runs it: the script sees the object as `obj`."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import LuaRuntime

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "argocd.md"


def script() -> str:
    """The Lua code of the ConfigMap on the page."""
    block = PAGE.read_text().split("```yaml\n", 1)[1].split("```", 1)[0]
    (code,) = yaml.safe_load(block)["data"].values()
    assert isinstance(code, str)
    return code


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
    health = lua.execute(script())
    assert (health["status"], health["message"]) == (status, message)
