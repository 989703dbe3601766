"""The class that stands before vLLM's paths, called as an ASGI server would.

In real vLLM: test_engine_real.py.
"""

import json
from typing import Any

import pytest

from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.workloads.engine_guard import ANNOTATION, ENV_MIDDLEWARE
from flotilla_operator.workloads.engine_pod import engine_pod
from flotilla_operator.workloads.engine_scripts.guard import Guard, Message, Receive, Send
from flotilla_runtime import contract
from leaks.planted import planted
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of

KEY = planted("the-engines-key")
RIGHT = f"Bearer {KEY}"


async def engine(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "answered"})


async def nothing_to_receive() -> Message:
    raise AssertionError("a refusal reads no body")


async def sent_to(kind: str, path: str, authorization: str | None) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"x")]
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    scope = {"type": kind, "path": path, "headers": headers}
    await Guard(engine)(scope, nothing_to_receive, send)
    return sent


@pytest.mark.holds(
    "router.md", "The guard lets nobody without the key past `/health` and `/metrics` in real vLLM"
)
@pytest.mark.parametrize(
    ("kind", "path", "authorization", "first"),
    [
        pytest.param("http", "/v1/chat/completions", RIGHT, "answered", id="the routers' calls"),
        pytest.param("http", "/invocations", f"bearer {KEY}", "answered", id="the scheme in other letters"),
        pytest.param("http", "/health", None, "answered", id="the probes have no key"),
        pytest.param("http", "/metrics", None, "answered", id="nor has who reads the metrics"),
        pytest.param("lifespan", "/invocations", None, "answered", id="what is no request"),
        pytest.param("http", "/invocations", None, "http.response.start", id="a chat as SageMaker asks it"),
        pytest.param("http", "/generative_scoring", None, "http.response.start", id="a path outside /v1"),
        pytest.param(
            "http", "/health/../invocations", None, "http.response.start", id="no dots are taken out"
        ),
        pytest.param("http", "/v1/models", "Bearer other", "http.response.start", id="another key"),
        pytest.param("http", "/v1/models", f"Basic {KEY}", "http.response.start", id="another scheme"),
        pytest.param(
            "http", "/v1/models", "Bearer schlüssel", "http.response.start", id="a key of other letters"
        ),
        pytest.param("websocket", "/v1/realtime", None, "websocket.close", id="a socket without the key"),
    ],
)
async def test_who_is_let_through(
    kind: str, path: str, authorization: str | None, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contract.ENV_ENGINE_KEY, KEY)
    sent = await sent_to(kind, path, authorization)
    assert sent[0]["type"] == first
    if first == "http.response.start":
        assert sent[0]["status"] == 401
        assert json.loads(sent[1]["body"]) == {"error": "Unauthorized"}


@pytest.mark.holds(
    "decisions/0009-engine-key.md", "An engine without the key in its environment is open as before"
)
async def test_without_a_key_in_its_environment_it_stands_in_nobodys_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(contract.ENV_ENGINE_KEY, raising=False)
    assert await sent_to("http", "/invocations", None) == [{"type": "answered"}]


@pytest.mark.parametrize("raw", [f"{KEY}\n", f" {KEY}\r\n"])
async def test_a_line_break_at_the_end_of_the_key_does_not_count_and_vllm_gets_what_it_asks_for(
    raw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contract.ENV_ENGINE_KEY, raw)
    asked: list[Message] = []

    async def vllm(scope: Message, receive: Receive, send: Send) -> None:
        asked.append(scope)

    async def nowhere(message: Message) -> None:
        raise AssertionError("it was not let through")

    scope = {"type": "http", "path": "/v1/models", "headers": [(b"authorization", RIGHT.encode())]}
    await Guard(vllm)(scope, nothing_to_receive, nowhere)
    assert asked[0]["headers"] == [(b"authorization", f"Bearer {raw}".encode())]


@pytest.mark.attack("A key with a line break at its end, or none, lets everybody into an engine, or nobody")
@pytest.mark.parametrize("raw", ["", " \n"])
async def test_an_empty_key_lets_nobody_in(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(contract.ENV_ENGINE_KEY, raw)
    for authorization in (None, "Bearer ", "Bearer", f"Bearer {raw}"):
        assert (await sent_to("http", "/v1/models", authorization))[0]["status"] == 401


def test_every_stage_finds_the_file_that_its_environment_names() -> None:
    spec = spec_of(parallelism={"pipeline": 2})
    identity = GroupIdentity(name="llama-abcde", server_id=1, revision="r")
    for number in range(2):
        pod: dict[str, Any] = engine_pod(OWNER, spec, identity, IMAGES, number)
        container = pod["spec"]["containers"][0]
        named = next(row["value"] for row in container["env"] if row["name"] == ENV_MIDDLEWARE)
        volume = next(row for row in pod["spec"]["volumes"] if "downwardAPI" in row)
        mount = next(row for row in container["volumeMounts"] if row["name"] == volume["name"])
        (item,) = volume["downwardAPI"]["items"]
        assert named == f"{mount['mountPath']}/{item['path']}:{Guard.__name__}"
        assert item["fieldRef"]["fieldPath"] == f"metadata.annotations['{ANNOTATION}']"
        assert f"class {Guard.__name__}:" in pod["metadata"]["annotations"][ANNOTATION]
