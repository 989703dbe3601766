"""A worker whose image lacks a function of the spec: how it ends, as its pod's status shows it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flotilla_runtime import contract


@pytest.mark.holds(
    "tasks.md",
    "A worker whose image lacks a function ends with words that name the field, and `ToolsReady` has them",
)
def test_a_worker_without_its_function_ends_with_words_that_name_the_field(tmp_path: Path) -> None:
    config = contract.WorkerConfig(
        queue=contract.QueueConfig(fleet="default/support", url="redis://127.0.0.1:1/0"),
        entrypoint="no_such_module:main",
        models=(),
    )
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "flotilla_runtime.agent", "--config", str(tmp_path / "config.json")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == contract.EXIT_PERMANENT
    last = (ended.stdout + ended.stderr).strip().splitlines()[-1]
    assert last.startswith("spec.agent.entrypoint: ")
    assert "no_such_module" in last
