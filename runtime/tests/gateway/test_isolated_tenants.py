"""Isolation of tenants' prompts in the cache of a model, by a real gateway, Redis and workers.

The model is a double that caches prompts by their salt, as vLLM does: a contract test of the engine double
holds that against vLLM itself.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flotilla_runtime.contract import GatewayAuth, ModelConnection
from flotilla_runtime.serving import serving
from leaks.planted import planted

pytestmark = pytest.mark.services

QUESTION: Any = [{"role": "user", "content": "The code of the safe is 4711."}]


@dataclass(slots=True)
class CachingModel:
    """Has cached what it was asked before with the same salt."""

    seen: set[tuple[str | None, str]] = field(default_factory=set)
    salts: list[str | None] = field(default_factory=list)

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        asked = (body.get("cache_salt"), json.dumps(body["messages"]))
        cached = 64 if asked in self.seen else 0
        self.seen.add(asked)
        self.salts.append(asked[0])
        usage = {
            "prompt_tokens": 80,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        chunks = (
            {"choices": [{"index": 0, "delta": {"content": "So it is."}, "finish_reason": "stop"}]},
            {"choices": [], "usage": usage},
        )
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        return Response(f"{lines}data: [DONE]\n\n", media_type="text/event-stream")


@asynccontextmanager
async def fleet_of(fleet: Any, *, isolates: bool) -> AsyncIterator[CachingModel]:
    model = CachingModel()
    for name in ("ann", "bob"):
        (fleet.callers / name).write_text(planted(name))
    await fleet.start_gateway(GatewayAuth.SECRET, serves_openai=True, isolates_tenants=isolates)
    routes = [Route("/v1/chat/completions", model.complete, methods=["POST"])]
    async with serving(Starlette(routes=routes), 0, grace_seconds=1) as port:
        for worker in ("one", "two"):
            connection = ModelConnection(
                role="Default",
                name="m",
                url=f"http://127.0.0.1:{port}/v1",
                model="m",
                context_tokens=8192,
                isolate_tenants=isolates,
            )
            await fleet.start_worker(worker, models=(connection,), indexes=())
        yield model


async def chat(fleet: Any, caller: str) -> Any:
    """The usage of a chat completion."""
    async with openai.AsyncOpenAI(
        base_url=f"{fleet.gateway_url}/v1", api_key=planted(caller), max_retries=0, timeout=60
    ) as client:
        return (await client.chat.completions.create(model="support", messages=QUESTION)).usage


@pytest.mark.holds(
    "tasks.md",
    "With `isolateTenants` a model finds in its cache what the same tenant has sent, and nothing "
    "else; without it callers are told no cached tokens",
)
@pytest.mark.attack("A caller asks whether others have sent a prompt, by what a model had cached")
async def test_a_caller_is_told_nothing_of_a_cache_that_tenants_share(own_fleet: Any) -> None:
    async with fleet_of(own_fleet, isolates=False) as model:
        for caller in ("ann", "bob", "bob"):
            usage = await chat(own_fleet, caller)
            assert (usage.prompt_tokens, usage.prompt_tokens_details) == (80, None)
        async with openai.AsyncOpenAI(
            base_url=f"{own_fleet.gateway_url}/v1", api_key=planted("bob"), max_retries=0, timeout=60
        ) as client:
            told = (await client.responses.create(model="support", input=QUESTION[0]["content"])).usage
        assert told is not None
        assert told.input_tokens_details.cached_tokens == 0
        task = (await own_fleet.client(planted("bob")).get("/v1/tasks")).json()["tasks"][0]["id"]
        async with own_fleet.client(planted("bob")) as client_of_bob:
            shown = (await client_of_bob.get(f"/v1/tasks/{task}")).text
            events = (await client_of_bob.get(f"/v1/tasks/{task}/events")).text
        for text in (shown, events):
            assert "cachedInput" not in text
            assert "cached_tokens" not in text
        assert set(model.salts) == {None}


@pytest.mark.holds(
    "tasks.md",
    "With `isolateTenants` a model finds in its cache what the same tenant has sent, and nothing "
    "else; without it callers are told no cached tokens",
)
@pytest.mark.attack("A caller asks whether others have sent a prompt, by what a model had cached")
async def test_a_model_that_isolates_tenants_has_cached_for_nobody_else(own_fleet: Any) -> None:
    """Each of four tasks of a tenant may be run by either worker: they have the same salts."""
    async with fleet_of(own_fleet, isolates=True) as model:
        cached = [(await chat(own_fleet, "ann")).prompt_tokens_details.cached_tokens for _ in range(4)]
        assert cached == [0, 64, 64, 64]
        assert (await chat(own_fleet, "bob")).prompt_tokens_details.cached_tokens == 0
        of_ann, of_bob = model.salts[0], model.salts[-1]
        assert set(model.salts) == {of_ann, of_bob}
        assert len({of_ann, of_bob}) == 2
        assert all(salt is not None and len(salt) == 43 for salt in model.salts)
    assert own_fleet.redis.ask("type", "flotilla:{default/support}:salt-key").strip() == "string"
