"""The engine pod's arguments, probe, stop hook and guard against real vLLM.

What they do against an engine that misbehaves: test_engine_scripts.py.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from flotilla_runtime import contract
from tests.support.real_engines import EXAMPLE_ENGINES, KEY, PodsEngine

pytestmark = [pytest.mark.services, pytest.mark.timeout(600), EXAMPLE_ENGINES]


@pytest.mark.holds("decisions/0006-a-first-answer.md", "The checks work in real vLLM's image")
@pytest.mark.parametrize(
    "served",
    [
        pytest.param("generator", id="a generator gives a first token"),
        pytest.param("embedder", id="an embedder gives a first embedding"),
    ],
)
def test_our_arguments_start_it_and_our_checks_see_it(served: str, request: pytest.FixtureRequest) -> None:
    pod: PodsEngine = request.getfixturevalue(served)
    run = in_container(pod.container, pod.engine.url)
    assert run(pod.container["startupProbe"]["exec"]["command"]) == ""
    assert run(pod.container["lifecycle"]["preStop"]["exec"]["command"]) == ""
    for path in ("/v1/completions", "/invocations", "/generative_scoring", "/tokenize"):
        past_the_router = httpx2.post(f"{pod.engine.url}{path}", json={})
        assert past_the_router.status_code == 401, path


def in_container(container: dict[str, Any], url: str) -> Callable[[list[str]], str]:
    """Runs a command as the kubelet would: with the container's environment; its answer must be success."""
    variables = {v["name"]: v["value"] for v in container["env"] if v["name"].startswith("FLOTILLA_")}
    address = url.removeprefix("http://")

    def run(command: list[str]) -> str:
        moved = [part.replace("127.0.0.1:8000", address) for part in command[1:]]
        done = subprocess.run(
            [sys.executable, *moved],
            env={**os.environ, **variables, contract.ENV_ENGINE_KEY: KEY},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
