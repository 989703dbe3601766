"""Real workers whose agent uses patterns: one is killed in a fan-out, another one goes on."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flotilla_runtime.contract import Effect, HttpEndpoint, ModelConnection, ToolConfig
from flotilla_runtime.serving import serving
from router_support.waiting import until

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[3]


@dataclass(slots=True)
class Outside:
    """A tool whose calls fail or hang by name, and a model that goes on when its first call has arrived."""

    arrived: Counter[str] = field(default_factory=Counter)
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    won_at: float = 0.0
    closed_after: list[float] = field(default_factory=list)

    async def work(self, request: Request) -> Response:
        name = (await request.json())["name"]
        self.arrived[name] += 1
        if name == "hangs":
            await self._closed(request)
        if name == "wins":
            self.won_at = time.monotonic()
        if name == "first":
            self.looked.set()
        return JSONResponse({"did": name}, status_code=400 if name == "bad" else 200)

    async def _closed(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        if self.won_at:
            self.closed_after.append(time.monotonic() - self.won_at)

    async def complete(self, request: Request) -> Response:
        await request.body()
        return StreamingResponse(self._written(), media_type="text/event-stream")

    async def _written(self) -> AsyncIterator[str]:
        yield _chunk({"tool_calls": [_call(0, "first")]})
        yield _chunk({"tool_calls": [_call(1, "second")]})
        async with asyncio.timeout(20):
            await self.looked.wait()
        yield _chunk({}, finish_reason="tool_calls")
        usage = {"choices": [], "usage": {"prompt_tokens": 80, "completion_tokens": 8}}
        yield f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n"


def _call(place: int, name: str) -> dict[str, Any]:
    function = {"name": "work", "arguments": json.dumps({"name": name})}
    return {"index": place, "id": f"call-{place}", "type": "function", "function": function}


def _chunk(delta: dict[str, Any], **more: Any) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, **more}]})}\n\n"


@pytest.mark.holds("patterns.md", "Patterns go on in another worker; a pipeline calls before the answer ends")
@pytest.mark.once
async def test_patterns_go_on_in_another_worker_and_their_losers_are_closed_at_once(fleet: Any) -> None:
    """The model does not end its answer before the tool was called, so a pipeline that waits would fail."""
    fleet.environment["PYTHONPATH"] = f"{ROOT / 'runtime'}:{ROOT / 'runtime' / 'tests'}"
    served = Outside()
    routes = [
        Route("/v1/chat/completions", served.complete, methods=["POST"]),
        Route("/work", served.work, methods=["POST"]),
    ]
    async with serving(Starlette(routes=routes), 0, grace_seconds=1) as port:
        url = f"http://127.0.0.1:{port}"
        parameters = {"type": "object", "properties": {"name": {"type": "string"}}}
        tool = ToolConfig(
            name="work", effect=Effect.PURE, parameters=parameters, http=HttpEndpoint(url=f"{url}/work")
        )
        fields = {
            "entrypoint": "agent_support.patterning:agent",
            "prompt": "",
            "models": (ModelConnection(role="Default", name="m", url=f"{url}/v1", model="m"),),
            "tools": (tool,),
            "indexes": (),
        }
        first = await fleet.start_worker("first", **fields)
        task_id = await fleet.submit("Look twice.")
        await until(lambda: served.arrived["hangs"] == 1 and served.arrived["good"] == 1)
        await asyncio.sleep(0.3)  # in which the results of the other branches are written
        first.kill()
        await fleet.start_worker("second", **fields)
        task = await fleet.ended(task_id)
    assert task["status"] == "Succeeded", task["message"]
    assert task["result"] == {
        "missing": {"bad": "Failed", "hangs": "TimedOut"},
        "winner": "good",
        "used": [{"did": "first"}, {"did": "second"}],
    }
    assert {name: served.arrived[name] for name in ("good", "bad", "wins", "first", "second")} == {
        "good": 1,
        "bad": 1,
        "wins": 1,
        "first": 1,
        "second": 1,
    }
    assert min(served.closed_after) < 0.1
