"""The engine double in a pod: the set, the probes and the router take it for vLLM."""

from collections.abc import Iterator

import httpx
import pytest
import yaml

from demo.environment import EXAMPLE, Environment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]


@pytest.fixture
def served(demo: Environment, double: str) -> Iterator[str]:
    """The name of a set like the example's whose engine is the double."""
    manifest = next(yaml.safe_load_all(EXAMPLE.read_text()))
    manifest["metadata"]["name"] = name = "double"
    manifest["spec"]["engine"]["image"] = double
    demo.kubectl.apply([manifest])
    yield name
    demo.kubectl.run("delete", "modelreplicaset", name, "--wait")


def test_a_set_whose_engine_is_the_double_is_ready_and_answers_through_its_router(
    demo: Environment, served: str
) -> None:
    demo.kubectl.run(
        *("wait", "--for=condition=Ready", f"modelreplicaset/{served}", "--timeout=240s"), timeout_seconds=250
    )
    with demo.kubectl.port_forward(f"service/{served}-model", 8000) as port:
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json={"model": "smollm2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8},
            timeout=60,
        )
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
