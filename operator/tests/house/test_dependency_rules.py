"""The arrows of the architecture page hold: held by import-linter, with proof that it can fail."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")
RUFF = Path(sys.executable).with_name("ruff")


@pytest.mark.holds("architecture.md", "The packages import each other as the table says")
def test_every_dependency_rule_holds() -> None:
    done = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.holds("architecture.md", "The packages import each other as the table says")
@pytest.mark.parametrize(
    ("package", "module", "line"),
    [
        pytest.param(
            "flotilla_runtime",
            "contract/__init__",
            "import flotilla_operator.api",
            id="the runtime imports the operator",
        ),
        pytest.param(
            "flotilla_operator", "workloads/__init__", "import kopf", id="a pure package imports kopf"
        ),
        pytest.param(
            "flotilla_operator",
            "api/__init__",
            "import flotilla_operator.workloads",
            id="the API imports upwards",
        ),
        pytest.param(
            "flotilla_operator",
            "replicas/__init__",
            "import flotilla_operator.workloads",
            id="a policy imports what makes manifests",
        ),
        pytest.param(
            "flotilla_operator", "replicas/__init__", "import time", id="a policy imports the clock's module"
        ),
        pytest.param(
            "flotilla_operator",
            "placement/__init__",
            "import flotilla_operator.replicas",
            id="placement imports a policy",
        ),
    ],
)
def test_a_broken_rule_is_seen(tmp_path: Path, package: str, module: str, line: str) -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert config["tool"]["importlinter"]["contracts"]
    for folder, name in (
        ("operator", "flotilla_operator"),
        ("runtime", "flotilla_runtime"),
        ("cli", "flotilla_cli"),
    ):
        subprocess.run(["cp", "-r", ROOT / folder / name, tmp_path / name], check=True)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    broken = tmp_path / package / f"{module}.py"
    broken.write_text(f"{broken.read_text()}\n{line}\n")
    done = subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 1, done.stdout


@pytest.mark.parametrize("package", ["replicas", "placement", "autoscaling", "capacity", "workloads"])
def test_a_pure_package_that_reads_a_clock_is_seen(package: str) -> None:
    code = "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n"
    name = f"operator/flotilla_operator/{package}/clock.py"
    done = subprocess.run(
        [RUFF, "check", "--no-cache", "--select", "TID251", "--stdin-filename", name, "-"],
        cwd=ROOT,
        input=code,
        capture_output=True,
        text=True,
    )
    assert "Pure packages take the time as an argument" in done.stdout, done.stderr
