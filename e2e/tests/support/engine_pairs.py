"""A real engine and a double beside it that was started with the very same arguments."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from flotilla_runtime import contract
from local_cluster.processes import free_port
from tests.support.real_engines import KEY, PodsEngine
from tests.support.waiting import eventually

WITH_KEY = {"Authorization": f"Bearer {KEY}"}
E2E = Path(__file__).parents[2]
TOOL_CALL = {"name": "weather", "arguments": {"city": "Oslo"}}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo"]}},
            "required": ["city"],
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The real engine and its double, with the same model name."""

    real: httpx2.Client
    double: httpx2.Client
    model: str

    def both(self, path: str, body: dict[str, Any]) -> tuple[httpx2.Response, httpx2.Response]:
        """Ask both the same; the model's name is filled in."""
        asked = {"model": self.model, **body}
        return self.real.post(path, json=asked), self.double.post(path, json=asked)


@contextmanager
def doubling(served: PodsEngine, config: Path) -> Iterator[str]:
    """A double that is started with the very arguments of the real engine."""
    port = free_port()
    config.write_text(json.dumps({"script": [{"matches": "Oslo", "times": None, "tool_calls": [TOOL_CALL]}]}))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "engine_double", "/models/m", *served.arguments),
            *("--config", str(config), "--host", "127.0.0.1", "--port", str(port)),
        ],
        cwd=E2E,
        env={**os.environ, contract.ENV_ENGINE_KEY: KEY},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url), what=f"an answer of {url}")
        yield url
    finally:
        process.terminate()
        process.wait(60)


def answers(url: str) -> bool:
    try:
        httpx2.get(f"{url}/health")
    except httpx2.TransportError:
        return False
    return True


def pair(served: PodsEngine, folder: Path) -> Iterator[Pair]:
    with (
        doubling(served, folder / "double.json") as double_url,
        httpx2.Client(base_url=served.engine.url, timeout=120, headers=WITH_KEY) as real,
        httpx2.Client(base_url=double_url, timeout=30, headers=WITH_KEY) as double,
    ):
        yield Pair(real=real, double=double, model=served.model)


def chat(content: str = "Say hello.", **more: Any) -> dict[str, Any]:
    """A short question."""
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 8, **more}


def shape(value: Any) -> Any:
    """The keys of a JSON value all the way down; lists by their first element, numbers and texts alike."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "null" if value is None else "number" if isinstance(value, int | float) else "text"


def events(response: httpx2.Response) -> list[Any]:
    """The chunks of a stream that ended in good order."""
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
