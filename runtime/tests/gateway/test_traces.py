"""The trace of a task over a real gateway and a real worker, at a receiver of OTLP.

What spans say, and crashes, are in tests/agent/traces.
"""

from pathlib import Path
from typing import Any

import httpx  # A2A's client needs it
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.types import a2a_pb2 as a2a

from agent_support.collector import Collector, collecting
from flotilla_runtime.contract import TelemetryConfig
from router_support.waiting import until, until_told

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[3]
TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def tracing(fleet: Any, collector: Collector, **gateway: Any) -> None:
    fleet.environment["PYTHONPATH"] = f"{ROOT / 'runtime'}:{ROOT / 'runtime' / 'tests'}"
    telemetry = TelemetryConfig(endpoint=collector.url)
    await fleet.start_gateway(telemetry=telemetry, **gateway)
    await fleet.start_worker("w", telemetry=telemetry, entrypoint="agent_support.tracing:agent", prompt="")


@pytest.mark.holds(
    "observability.md",
    "A task is one whole trace over gateway, queue, calls, branches and spawned tasks, and a part "
    "of its caller's",
)
async def test_a_trace_is_one_whole_over_gateway_and_worker_and_part_of_the_callers(own_fleet: Any) -> None:
    with collecting() as collector:
        await tracing(own_fleet, collector)
        async with own_fleet.client() as client:
            trace = {"traceparent": f"00-{TRACE}-{ABOVE}-01"}
            answer = await client.post("/v1/tasks", json={"input": "Why?"}, headers=trace)
            task = await own_fleet.ended(answer.json()["id"])
            waits = await client.post("/v1/tasks", json={"input": "wait"})
            await until_told(lambda: suspended(own_fleet, waits.json()["id"]))
            assert (await client.post(f"/v1/tasks/{waits.json()['id']}/cancel")).status_code == 200
        await until(lambda: [span.name for span in collector.spans].count("invoke_agent support") == 2)
    assert task["result"] == {"said": "VACUUM recovers disk space [1]."}
    assert [step["kind"] for step in task["criticalPath"]][-1] == "Model"
    mine = {span.id: span for span in collector.spans if span.trace == TRACE}
    assert {span.parent for span in mine.values()} - set(mine) == {ABOVE}
    assert sorted(span.name for span in mine.values()) == sorted(
        [
            *("invoke_agent support", "submit task", "queue", "fan_out", "left", "right"),
            *("retrieval manual", "retrieval manual", "chat smol"),
        ]
    )
    assert {span.service for span in mine.values()} == {"flotilla-gateway", "flotilla-worker"}
    cancelled = {span.id: span for span in collector.spans if span.trace != TRACE}
    assert {span.parent for span in cancelled.values()} - set(cancelled) == {""}
    (root,) = [span for span in cancelled.values() if not span.parent]
    assert (root.service, root.attributes["flotilla.task.status"]) == ("flotilla-gateway", "Cancelled")


async def test_a_task_of_each_front_end_is_part_of_the_callers_trace(own_fleet: Any) -> None:
    with collecting() as collector:
        await tracing(own_fleet, collector, serves_openai=True, serves_a2a=True)
        trace = {"traceparent": f"00-{TRACE}-{ABOVE}-01"}
        async with httpx.AsyncClient(headers=trace, timeout=30) as http:
            url = f"{own_fleet.gateway_url}/v1/responses"
            await http.post(url, json={"model": "support", "input": "Why?"})
            card = await A2ACardResolver(http, own_fleet.gateway_url).get_agent_card()
            async with ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create(card) as client:
                message = a2a.Message(message_id="m1", role=a2a.ROLE_USER, parts=[a2a.Part(text="Why?")])
                await anext(client.send_message(a2a.SendMessageRequest(message=message)))
        await until(lambda: [span.name for span in collector.spans].count("submit task") == 2)
    assert [span.trace for span in collector.spans if span.name == "submit task"] == [TRACE] * 2


async def suspended(fleet: Any, task: str) -> bool:
    return bool((await fleet.task(task))["status"] == "Suspended")
