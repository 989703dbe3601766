"""The engine pod's arguments, probe and stop hook against real vLLM.

What they do against an engine that misbehaves: test_engine_scripts.py.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.environment import ensure
from engine.models import EMBEDDER, GENERATOR, ensure_models
from engine.serve import running
from flotilla_operator.workloads.engine_guard import ANNOTATION, DIRECTORY, ENV_MIDDLEWARE, FILE
from flotilla_operator.workloads.engine_pod import GroupIdentity, engine_pod
from flotilla_runtime import contract
from local_cluster.processes import free_port
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("folder", "task", "max_model_len"),
    [
        pytest.param(GENERATOR.name, "Generate", 4096, id="a generator gives a first token"),
        pytest.param(EMBEDDER.name, "Embed", 256, id="an embedder gives a first embedding"),
    ],
)
def test_our_arguments_start_it_and_our_checks_see_it(
    folder: str, task: str, max_model_len: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contract.ENV_ENGINE_KEY, "the-engines-key")
    spec = spec_of(
        model={"name": f"our/{folder}", "task": task, "source": "pvc://m"},
        engine={"maxModelLen": max_model_len, "maxNumSeqs": 4},
    )
    identity = GroupIdentity(name="llama-abcde", server_id=1, revision="r")
    pod: dict[str, Any] = engine_pod(OWNER, spec, identity, IMAGES)
    container: dict[str, Any] = pod["spec"]["containers"][0]
    (tmp_path / FILE).write_text(pod["metadata"]["annotations"][ANNOTATION])
    middleware = next(row["value"] for row in container["env"] if row["name"] == ENV_MIDDLEWARE)
    monkeypatch.setenv(ENV_MIDDLEWARE, middleware.replace(DIRECTORY, str(tmp_path)))
    port = free_port()
    ours = [str(ensure_models() / folder), *container["args"][1:]]  # the model in the test's own folder
    with running(ensure(), ours, port, tmp_path / "log"):
        run = in_container(container, port)
        assert run(container["startupProbe"]["exec"]["command"]) == ""
        assert run(container["lifecycle"]["preStop"]["exec"]["command"]) == ""
        for path in ("/v1/completions", "/invocations", "/generative_scoring", "/tokenize"):
            past_the_router = httpx.post(f"http://127.0.0.1:{port}{path}", json={})
            assert past_the_router.status_code == 401, path


def in_container(container: dict[str, Any], port: int) -> Callable[[list[str]], str]:
    """Runs a command as the kubelet would: with the container's environment; its answer must be success."""
    variables = {v["name"]: v["value"] for v in container["env"] if v["name"].startswith("FLOTILLA_")}

    def run(command: list[str]) -> str:
        moved = [part.replace("127.0.0.1:8000", f"127.0.0.1:{port}") for part in command[1:]]
        done = subprocess.run(
            [sys.executable, *moved],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
