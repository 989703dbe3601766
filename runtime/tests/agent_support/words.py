"""A model that writes word by word, and a worker that asks it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from flotilla_runtime.contract import ModelConnection
from flotilla_runtime.serving import serving

WORDS = ("VACUUM ", "frees ", "space.")


@dataclass(slots=True)
class Model:
    """Writes three words, the last two when it is `going`. With `dies` its first stream breaks before."""

    going: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[list[dict[str, Any]]] = field(default_factory=list)
    dies: bool = False
    url: str = ""

    async def complete(self, request: Request) -> Response:
        self.asked.append((await request.json())["messages"])
        return StreamingResponse(self._written(), media_type="text/event-stream")

    async def _written(self) -> AsyncIterator[str]:
        yield _chunk({"role": "assistant", "content": WORDS[0]})
        await self.going.wait()
        if self.dies:
            self.dies = False
            return
        for word in WORDS[1:]:
            yield _chunk({"content": word})
        yield _chunk({}, "stop")
        yield f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\ndata: [DONE]\n\n"


USAGE = {"prompt_tokens": 80, "completion_tokens": 8}


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


@asynccontextmanager
async def serving_model() -> AsyncIterator[Model]:
    model = Model()
    routes = [Route("/v1/chat/completions", model.complete, methods=["POST"])]
    async with serving(Starlette(routes=routes), 0, grace_seconds=1) as port:
        model.url = f"http://127.0.0.1:{port}/v1"
        yield model
        model.going.set()


@asynccontextmanager
async def fleet_with_worker(fleet: Any) -> AsyncIterator[Model]:
    async with serving_model() as model:
        connection = ModelConnection(role="Default", name="m", url=model.url, model="m", context_tokens=8192)
        await fleet.start_worker("one", models=(connection,), indexes=())
        yield model
