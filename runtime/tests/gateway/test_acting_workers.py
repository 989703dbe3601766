"""Real workers whose agent acts: tools over HTTP, an agent of one's own, workers killed meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.contract import Approval, Effect, GatewayAuth, HttpEndpoint, ModelConnection, ToolConfig
from flotilla_runtime.serving import serving
from leaks.planted import planted
from router_support.waiting import until

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[3]


@dataclass(slots=True)
class Outside:
    """A model that wants payments and then answers, and the tool that makes them and answers so."""

    answering: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""
    amounts: tuple[int, ...] = (5, 7)
    status: int = 200

    async def complete(self, request: Request) -> Response:
        messages = (await request.json())["messages"]
        results = [message["content"] for message in messages if message["role"] == "tool"]
        self.asked.append(len(results))
        if results or "Book" not in messages[-1]["content"]:
            return _streamed({"content": f"Said: {messages[-1]['content']}"}, "stop")
        calls = [
            {
                "index": place,
                "id": f"call-{place}",
                "type": "function",
                "function": {"name": "pay", "arguments": json.dumps({"euro": euro})},
            }
            for place, euro in enumerate(self.amounts)
        ]
        return _streamed({"tool_calls": calls}, "tool_calls")

    async def pay(self, request: Request) -> Response:
        self.keys.append(request.headers["Idempotency-Key"])
        await self.answering.wait()
        return JSONResponse({"paid": (await request.json())["euro"]}, self.status)


def _streamed(delta: dict[str, Any], finish_reason: str) -> Response:
    chunks = (
        {"choices": [{"index": 0, "delta": {"role": "assistant", **delta}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]},
        {"choices": [], "usage": {"prompt_tokens": 80, "completion_tokens": 8}},
    )
    lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    return Response(f"{lines}data: [DONE]\n\n", media_type="text/event-stream")


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    served = Outside()
    routes = [
        Route("/v1/chat/completions", served.complete, methods=["POST"]),
        Route("/pay", served.pay, methods=["POST"]),
    ]
    async with serving(Starlette(routes=routes), 0, grace_seconds=1) as port:
        served.url = f"http://127.0.0.1:{port}"
        yield served
        served.answering.set()


def acting(served: Outside, effect: Effect, approval: Approval = Approval.NEVER) -> dict[str, Any]:
    """The fields of a worker whose agent pays."""
    parameters = {"type": "object", "properties": {"euro": {"type": "number"}}, "required": ["euro"]}
    pay = ToolConfig(
        name="pay",
        effect=effect,
        approval=approval,
        parameters=parameters,
        http=HttpEndpoint(url=f"{served.url}/pay"),
    )
    model = ModelConnection(role="Default", name="m", url=f"{served.url}/v1", model="m", context_tokens=32768)
    return {"tools": (pay,), "models": (model,), "indexes": ()}


@pytest.mark.holds("agent-code.md", "An agent that is crashed anywhere goes on, and repeats no finished call")
@pytest.mark.holds(
    "recovery.md",
    "A worker that is killed: the same keys go again, and an Unsafe call waits for somebody's word",
)
@pytest.mark.once
async def test_a_worker_killed_while_its_tools_run_is_replaced_and_the_same_keys_go_again(fleet: Any) -> None:
    async with outside() as served:
        fields = acting(served, Effect.IDEMPOTENT)
        first = await fleet.start_worker("first", **fields)
        task_id = await fleet.submit("Book it.")
        await until(lambda: len(served.keys) == 2)
        first.kill()
        await fleet.start_worker("second", **fields)
        await until(lambda: len(served.keys) == 4)
        served.answering.set()
        task = await fleet.ended(task_id)
    assert (task["status"], task["attempts"]) == ("Succeeded", 2)
    assert task["result"]["answer"] == 'Said: {"paid": 7}'
    assert sorted(served.keys[:2]) == sorted(served.keys[2:])
    assert len(set(served.keys)) == 2
    assert served.asked == [0, 2], "no finished call of the model was repeated"


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call is never repeated: `reconcile` is asked, then somebody resolves it, or it ends "
    "as UnknownEffect",
)
@pytest.mark.holds(
    "recovery.md",
    "A worker that is killed: the same keys go again, and an Unsafe call waits for somebody's word",
)
@pytest.mark.once
async def test_an_unsafe_tool_of_a_killed_worker_is_not_called_again_until_somebody_says_so(
    fleet: Any,
) -> None:
    store = TaskStore(connect(fleet.queue), fleet.queue)
    async with outside() as served:
        fields = acting(served, Effect.UNSAFE)
        first = await fleet.start_worker("first", **fields)
        task_id = await fleet.submit("Book it.")
        await until(lambda: len(served.keys) == 2)
        first.kill()
        await fleet.start_worker("second", **fields)
        for call in ("turn/1/tool/pay", "turn/1/tool/pay#2"):
            await _waits_for(store, task_id, call)
            happened = call.endswith("#2")
            await store.resolve(task_id, call, happened=happened, by="ann", result={"paid": "seen"})
            served.answering.set()
        task = await fleet.ended(task_id)
    await store.close()
    assert (task["status"], task["result"]["answer"]) == ("Succeeded", 'Said: {"paid": "seen"}')
    assert len(served.keys) == 3, "only the one that did not happen was made again"
    assert len(set(served.keys)) == 2


async def _waits_for(store: TaskStore, task_id: str, call: str) -> None:
    async with asyncio.timeout(60):
        while True:
            task = await store.load(task_id)
            if task is not None and task.record.waits_call == call:
                return
            await asyncio.sleep(0.05)


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
@pytest.mark.attack("The submitter says that an approved call did not happen, to have it made again")
async def test_a_payment_is_made_once_for_each_approval_whatever_its_submitter_says(own_fleet: Any) -> None:
    """A proxy answers 504 for each payment, so nobody knows whether it happened. Each of them did."""
    for name in ("ann", "boss"):
        (own_fleet.callers / name).write_text(planted(name))
    await own_fleet.start_gateway(GatewayAuth.SECRET, approvers=("boss",))
    async with (
        outside() as served,
        own_fleet.client(planted("ann")) as ann,
        own_fleet.client(planted("boss")) as boss,
    ):
        served.amounts, served.status = (500,), 504
        served.answering.set()
        await own_fleet.start_worker("first", **acting(served, Effect.UNSAFE, Approval.ALWAYS))
        task = (await ann.post("/v1/tasks", json={"input": "Book it."})).json()["id"]

        async def waits_for(kind: str, call: str) -> None:
            async with asyncio.timeout(60):
                while True:
                    waits = (await ann.get(f"/v1/tasks/{task}")).json()["waitsFor"] or {}
                    if (waits.get("kind"), waits.get("call")) == (kind, call):
                        return
                    await asyncio.sleep(0.05)

        said = {"call": "turn/1/tool/pay", "outcome": "NotHappened"}
        for approvals, suffix in enumerate(("", "-2", "-3"), start=1):
            approval = f"turn/1/tool/pay#approval{suffix}"
            decided = {"call": approval, "approved": True}
            await waits_for("Approval", approval)
            assert len(served.keys) == approvals - 1
            assert (await ann.post(f"/v1/tasks/{task}/approve", json=decided)).status_code == 403
            (shown,) = (await boss.get(f"/v1/tasks/{task}")).json()["approvals"]
            assert (shown["target"], shown["arguments"]) == ("pay", {"euro": 500})
            assert shown["destination"] == f"POST {served.url}/pay"
            assert (await boss.post(f"/v1/tasks/{task}/approve", json=decided)).status_code == 200
            await waits_for("Effect", "turn/1/tool/pay")
            assert len(served.keys) == approvals
            assert (await ann.post(f"/v1/tasks/{task}/resolve", json=said)).status_code == 200


@pytest.mark.holds("agent-code.md", "The example runs, survives a crash and books once")
async def test_an_agent_of_ones_own_runs_in_a_real_worker(fleet: Any) -> None:
    fleet.environment["PYTHONPATH"] = f"{ROOT / 'runtime'}:{ROOT / 'examples' / 'agents'}"
    async with outside() as served:
        model = ModelConnection(role="Default", name="m", url=f"{served.url}/v1", model="m")
        tools = (
            ToolConfig(name="weather", python="travel:weather", effect=Effect.PURE),
            ToolConfig(name="book", python="travel:book", effect=Effect.IDEMPOTENT),
        )
        await fleet.start_worker("one", entrypoint="travel:agent", prompt="", models=(model,), tools=tools)
        task = await fleet.ended(await fleet.submit("Where shall I go?"))
    assert task["status"] == "Succeeded", task["message"]
    assert task["result"]["booking"]["city"] == "Lisbon"
    assert task["result"]["answer"].startswith("Said: Where shall I go?")
