"""Our Python programs start isolated: no variable, folder or file beside them brings them code.

The commands of the pod templates and of the images run here as real processes, in an environment that a user
of the kinds would choose.
"""

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.generate import ROOT
from flotilla_operator.api.model_replica_set import Task
from flotilla_operator.workloads.agent_fleet.pods import RUNTIME_COMMAND
from flotilla_operator.workloads.engine_checks import lifecycle, probes
from flotilla_runtime import contract

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
ENTRYPOINTS = [json.loads(found) for found in re.findall(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)]
UNINSTALL = yaml.safe_load(
    re.findall(r"command: (\[python3.*\])", (ROOT / "charts/flotilla/templates/uninstall.yaml").read_text())[
        0
    ]
)
MODULE = "module_of_ours"


@pytest.fixture
def tempting(tmp_path: Path) -> Mapping[str, str]:
    """Variables by which a Python that is not isolated runs code of somebody else, which leaves a mark."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    mark = f"open({str(tmp_path / 'mark')!r}, 'w')\n"
    for name in ("sitecustomize", "usercustomize", "platform", "json", "urllib"):
        (theirs / f"{name}.py").write_text(mark)
    shell = theirs / "browser"
    shell.write_text(f"#!/bin/sh\ntouch {tmp_path / 'mark'}\n")
    shell.chmod(0o755)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(theirs),
        "PYTHONUSERBASE": str(theirs),
        "PYTHONSTARTUP": str(theirs / "json.py"),
        "PYTHONWARNINGS": "ignore::antigravity.x",
        "BROWSER": f"{shell} %s",
    }


def marked(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> bool:
    """Whether code of somebody else ran when a command was started in the folder with that code."""
    subprocess.run(
        [sys.executable, *command[1:]],
        env=dict(environment),
        cwd=folder / "theirs",
        capture_output=True,
        check=False,
        timeout=60,
    )
    return (folder / "mark").exists()


def commands() -> Iterator[Any]:
    """Every command of ours that starts Python, with harmless arguments."""
    for entrypoint in ENTRYPOINTS:
        *python, last = entrypoint
        yield pytest.param(entrypoint if last != "-m" else [*python, "-m", "this"], id=f"image {last}")
    yield pytest.param(UNINSTALL, id="after an uninstall")
    yield pytest.param([*RUNTIME_COMMAND, "this"], id="an image of the fleet's own")
    engine = probes(Task.GENERATE, start_within_seconds=60)["startupProbe"]["exec"]["command"]
    yield pytest.param(engine, id="an engine's probe")
    yield pytest.param(lifecycle()["preStop"]["exec"]["command"], id="an engine's end")


@pytest.mark.holds(
    "security.md", "Our programs start isolated; images find our code, also older ones of a fleet's own"
)
@pytest.mark.attack(
    "A variable, or a file beside a program of ours, brings it code (`PYTHONWARNINGS` with `BROWSER`)"
)
@pytest.mark.parametrize("command", list(commands()))
def test_no_code_of_somebody_else_runs(
    command: Sequence[str], tempting: Mapping[str, str], tmp_path: Path
) -> None:
    assert command[0] == "python3"
    assert not marked(command, tempting, tmp_path)


@pytest.mark.holds(
    "security.md", "Our programs start isolated; images find our code, also older ones of a fleet's own"
)
@pytest.mark.parametrize("variable", ["PYTHONPATH", "PYTHONWARNINGS"])
def test_a_program_that_is_not_isolated_would_run_it(
    variable: str, tempting: Mapping[str, str], tmp_path: Path
) -> None:
    """So the test above means something."""
    alone = {name: tempting[name] for name in ("PATH", "BROWSER", variable)}
    assert marked(["python3", "-m", "this"], alone, tmp_path)


def test_the_images_have_two_entrypoints_and_no_other_way_to_our_code() -> None:
    assert [entrypoint[:2] for entrypoint in ENTRYPOINTS] == [["python3", "-I"]] * 2
    assert "PYTHONPATH" not in DOCKERFILE
    assert f"{contract.CODE_DIRECTORY} " in DOCKERFILE


@pytest.mark.holds(
    "security.md", "Our programs start isolated; images find our code, also older ones of a fleet's own"
)
def test_isolated_programs_find_our_code_in_the_image(tmp_path: Path) -> None:
    """By the file that the Dockerfile writes, and before packages of the same name."""
    venv.create(tmp_path / "venv", with_pip=False)
    code = tmp_path / "app"
    code.mkdir()
    (code / f"{MODULE}.py").write_text("import sys; print('ours', sys.flags.isolated, sys.argv[1:])")
    (written,) = {*re.findall(r'&& (/opt/flotilla/bin/python3 -c "import sysconfig.*") \\\n', DOCKERFILE)}
    python = str(tmp_path / "venv" / "bin" / "python3")
    here = written.replace("/opt/flotilla/bin/python3", python).replace(contract.CODE_DIRECTORY, str(code))
    subprocess.run(["sh", "-c", here], check=True)
    ran = subprocess.run([python, "-I", "-m", MODULE, "x"], capture_output=True, text=True, check=True)
    assert ran.stdout == "ours 1 ['x']\n"


@pytest.mark.holds(
    "security.md", "Our programs start isolated; images find our code, also older ones of a fleet's own"
)
def test_an_older_image_of_the_fleets_own_runs_too(tmp_path: Path) -> None:
    """It finds our code by PYTHONPATH alone, which an isolated program does not read."""
    (tmp_path / f"{MODULE}.py").write_text(
        "import sys\nif __name__ == '__main__': print(sys.flags.isolated, sys.argv[1:], __spec__.name)"
    )
    *python, program = RUNTIME_COMMAND
    program = program.replace(contract.CODE_DIRECTORY, str(tmp_path))
    command = [sys.executable, *python[1:], program, MODULE, "--config", "x"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == f"1 ['--config', 'x'] {MODULE}\n"
