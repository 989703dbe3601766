"""The arrows of the architecture page hold: held by import-linter, with proof that it can fail."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def test_every_dependency_rule_holds() -> None:
    done = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


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
