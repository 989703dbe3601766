"""Doubles in the test's own process, and what they are asked."""

import json
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from engine_double.configuration import Configuration
from engine_double.recording import UNRECORDED, Recorder
from engine_double.server import Server

Client = TestClient[Any, Any]
FAST = {"decode_step_seconds": 0.001, "prefill_tokens_per_second": 1e6}


class Doubles:
    """Starts doubles and stops them at the end of the test."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    async def start(self, *, recorder: Recorder = UNRECORDED, **settings: Any) -> Client:
        """A double with these settings."""
        configuration = Configuration.model_validate({"model": "m", **FAST, **settings})
        server = TestServer(Server(configuration, recorder=recorder).application())
        client: Client = TestClient(server)
        await client.start_server()
        self.clients.append(client)
        return client

    async def stop(self) -> None:
        """Stop them all."""
        for client in self.clients:
            await client.close()


def chat(content: str = "hello", **more: Any) -> dict[str, Any]:
    """A short question."""
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


async def ask(client: Client, body: Any, path: str = "/v1/chat/completions") -> tuple[int, Any]:
    """Status and body of the answer."""
    async with client.post(path, json=body) as response:
        return response.status, await response.json()


async def stream(client: Client, body: dict[str, Any]) -> list[Any]:
    """The chunks of a stream that ended in good order."""
    async with client.post("/v1/chat/completions", json={**body, "stream": True}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = (await response.text()).strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
