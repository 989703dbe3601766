"""The client of the agent workers behind the real HAProxy: a replica's death is one answer, made elsewhere.

The replicas are engine doubles, each a process that is killed like a container whose node dies.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import httpx2
import pytest

from flotilla_runtime.agent.models import Endpoint, ModelClient, ModelEvent, ModelOutcome, Withdrawn
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Backoff
from local_cluster.directories import CHECKOUT
from local_cluster.processes import free_port
from model_support.calls import ASK, PATIENT, Seen
from router_support.builders import pod
from router_support.fake_pods import FakePods
from router_support.routers import Router
from router_support.waiting import until, until_told

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("haproxy")]

TEXT = " ".join(f"word{number}" for number in range(60))
PLAN = f'[[plan {{"turns": [{{"content": "{TEXT}"}}]}}]]'
REQUEST = replace(ASK, messages=({"role": "user", "content": PLAN},), max_tokens=200, prompt_tokens=None)
MANY = RetryPolicy(tries=20, backoff=Backoff(base_seconds=0.05, limit_seconds=0.5))


@dataclass
class Doubles:
    """Two replicas, and which of them answer."""

    processes: dict[str, asyncio.subprocess.Process]

    async def kill(self, name: str) -> None:
        self.processes[name].kill()
        await self.processes[name].wait()


@asynccontextmanager
async def doubles(api: FakePods, port: int, folder: Path) -> AsyncIterator[Doubles]:
    """Replicas `a` and `b` on addresses of their own, slow enough to be killed in the middle."""
    settings = folder / "double.json"
    settings.write_text('{"model": "smollm2", "decode_step_seconds": 0.02}')
    started: dict[str, asyncio.subprocess.Process] = {}
    try:
        for number, name in enumerate(("a", "b"), start=1):
            address = f"127.0.1.{number}"
            started[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "engine_double", "--config", str(settings)),
                *("--host", address, "--port", str(port)),
                cwd=CHECKOUT / "e2e",
            )
            await until_told(partial(listens, address, port))
            api.put(pod(name, server_id=number, ip=address))
        yield Doubles(started)
    finally:
        for process in started.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


async def listens(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def behind_a_router(folder: Path) -> AsyncIterator[tuple[Router, Doubles]]:
    port = free_port()
    async with (
        FakePods() as api,
        doubles(api, port, folder) as running,
        Router(api, "router-1", engine_port=port) as router,
    ):
        await until(lambda: router.ready_servers() == {"a", "b"})
        yield router, running


@pytest.mark.holds(
    "decisions/0018-model-calls.md", "A replica's death in the middle is one answer, made by another replica"
)
@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "Prompts are counted by `/tokenize`, also behind the router; without an answer the bound holds",
)
async def test_a_replica_that_is_killed_in_the_middle_is_one_answer_made_by_the_other(
    tmp_path: Path,
) -> None:
    async with behind_a_router(tmp_path) as (router, running), httpx2.AsyncClient() as connections:
        models = ModelClient(connections, environment={}, retries=MANY)
        endpoint = Endpoint(url=f"{router.url}/v1", model="smollm2", is_vllm=True, timeouts=PATIENT)
        counted = await models.count_prompt(endpoint, REQUEST)
        assert counted.is_measured, "the router passes /tokenize on"
        seen, in_the_middle = Seen(), asyncio.Event()

        def follow(event: ModelEvent) -> None:
            seen.take(event)
            if len(seen.text) > len(TEXT) / 3:
                in_the_middle.set()

        making = asyncio.create_task(models.complete(endpoint, REQUEST, follow))
        await asyncio.wait_for(in_the_middle.wait(), 60)
        (busy,) = [name for name in ("a", "b") if await serves(router, name)]
        began = len(seen.text)
        await running.kill(busy)
        reply = await asyncio.wait_for(making, 60)
    assert (reply.outcome, reply.text, seen.text) == (ModelOutcome.SUCCEEDED, TEXT, TEXT)
    assert reply.tries >= 2
    assert [type(event) for event in seen.events].count(Withdrawn) == 1
    assert reply.usage.output_tokens >= (began + len(TEXT)) / 4, "the dead replica's tokens count too"
    assert reply.usage.input_tokens >= 2 * counted.tokens
    assert reply.usage.is_measured, "it counted along until it died"


async def serves(router: Router, name: str) -> bool:
    """Whether this replica has a request now."""
    address = {"a": "127.0.1.1", "b": "127.0.1.2"}[name]
    async with httpx2.AsyncClient() as connections:
        answer = await connections.get(f"http://{address}:{router.config.engine_port}/metrics")
    return 'num_requests_running{engine="0",model_name="smollm2"} 1.0' in answer.text
