"""A whole fleet on this machine: a real Redis, gateway and workers as processes, a model and an index."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flotilla_runtime.contract import (
    ENV_POD_NAME,
    GatewayAuth,
    GatewayConfig,
    IndexConnection,
    ModelConnection,
    QueueConfig,
    TaskLimits,
    WorkerConfig,
)
from flotilla_runtime.serving import serving
from free_ports import free_ports
from leaks.planted import planted
from redis_servers import RedisServer

RUNTIME = Path(__file__).parents[2]


@dataclass(slots=True)
class Services:
    """An index and a model; `answering` holds the model back, `asked` counts by task."""

    answering: asyncio.Event = field(default_factory=asyncio.Event)
    retrieved: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: str = ""

    async def are_asked(self, times: int = 1) -> None:
        """Return when the model has been asked so many times."""
        async with asyncio.timeout(60), self.news:
            await self.news.wait_for(lambda: len(self.asked) >= times)

    def application(self) -> Starlette:
        async def retrieve(request: Request) -> Response:
            query = (await request.json())["query"]
            self.retrieved.append(query)
            passage = {
                "id": "p1",
                "document": "routine-vacuuming.html",
                "title": "Routine Vacuuming",
                "heading": "",
                "text": "VACUUM recovers or reuses disk space occupied by updated or deleted rows.",
                "score": 0.9,
            }
            return JSONResponse({"passages": [passage], "generation": "g-1", "tookMilliseconds": 1.0})

        async def complete(request: Request) -> Response:
            body = await request.json()
            async with self.news:
                self.asked.append(request.headers["X-Session-Id"])
                self.news.notify_all()
            await self.answering.wait()
            assert (body["temperature"], body["stream"]) == (0, True)
            said = {"role": "assistant", "content": "VACUUM recovers disk space [1]."}
            chunks = (
                {"choices": [{"index": 0, "delta": said}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {"prompt_tokens": 80, "completion_tokens": 8}},
            )
            lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
            return Response(f"{lines}data: [DONE]\n\n", media_type="text/event-stream")

        return Starlette(
            routes=[
                Route("/v1/retrieve", retrieve, methods=["POST"]),
                Route("/v1/chat/completions", complete, methods=["POST"]),
            ]
        )


def client_without_tls(**settings: Any) -> httpx2.AsyncClient:
    """One for each request and each look, so it loads no certificates: they take 20 ms of processor time."""
    return httpx2.AsyncClient(verify=False, **settings)


@dataclass(slots=True)
class Process:
    """One of our processes, with its log."""

    popen: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(10)

    async def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.popen.wait, 30)


class Fleet:
    """Starts and stops the parts; every part dies with the test."""

    def __init__(self, folder: Path, redis: RedisServer, services: Services, ports: list[int]) -> None:
        self.folder = folder
        self.redis = redis
        self.services = services
        self.processes: list[Process] = []
        self.environment: dict[str, str] = {}  # of every process, beside what the parts need
        self.callers = folder / "callers"
        self.callers.mkdir()
        self._ports = ports
        self.gateway_url = ""
        self.status_url = ""

    @property
    def queue(self) -> QueueConfig:
        return QueueConfig(
            fleet="default/support",
            url=self.redis.url,
            password_path=self.redis.password_path,
            lease_seconds=2,
            max_waiting=50,
            queue_percent=100,
        )

    async def start_gateway(
        self, auth: GatewayAuth = GatewayAuth.NONE, *, becomes_ready: bool = True, **fields: Any
    ) -> Process:
        port, metrics_port = self._ports.pop(), self._ports.pop()
        config = GatewayConfig(
            **{
                "queue": self.queue,
                "namespace": "default",
                "name": "support",
                "auth": auth,
                "callers_directory": str(self.callers),
                "port": port,
                "metrics_port": metrics_port,
                "limits": TaskLimits(max_wall_seconds=60),
                **fields,
            }
        )
        self.gateway_url = f"{'https' if config.tls_directory else 'http'}://127.0.0.1:{port}"
        self.status_url = f"http://127.0.0.1:{metrics_port}"
        process = self._start("flotilla_runtime.gateway", config.model_dump_json(), {})
        await self._ready(process, f"{self.status_url}/{'readyz' if becomes_ready else 'healthz'}")
        if becomes_ready or not config.tls_directory:  # HTTPS is refused while there is no certificate
            await self._ready(process, f"{self.gateway_url}/healthz")
        return process

    async def get(self, url: str) -> httpx2.Response:
        """Read a page of any part, such as its metrics."""
        async with client_without_tls() as client:
            return await client.get(url)

    async def start_worker(self, name: str, *, becomes_ready: bool = True, **fields: Any) -> Process:
        """Return when the worker is ready, or at once where it cannot become ready."""
        port = self._ports.pop()
        config = WorkerConfig(
            **{
                "queue": self.queue,
                "prompt": "Answer.",
                "models": (
                    ModelConnection(role="Default", name="smol", url=f"{self.services.url}/v1", model="smol"),
                ),
                "indexes": (
                    IndexConnection(
                        name="manual", url=f"{self.services.url}/v1/retrieve", deadline_milliseconds=20_000
                    ),
                ),
                "concurrency": 50,
                "metrics_port": port,
                **fields,
            }
        )
        process = self._start(
            "flotilla_runtime.agent", config.model_dump_json(), {ENV_POD_NAME: name}, "--tools-on-loopback"
        )
        if becomes_ready:
            await self._ready(process, f"http://127.0.0.1:{port}/readyz")
        return process

    def client(self, key: str | None = None) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return client_without_tls(base_url=self.gateway_url, headers=headers, timeout=30)

    async def submit(self, question: str = "How is space reclaimed?", **fields: Any) -> str:
        async with self.client() as client:
            response = await client.post("/v1/tasks", json={"input": question, **fields})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    async def task(self, task_id: str) -> dict[str, Any]:
        async with self.client() as client:
            response = await client.get(f"/v1/tasks/{task_id}")
        assert response.status_code == 200, response.text
        shown: dict[str, Any] = response.json()
        return shown

    async def ended(self, task_id: str, within_seconds: float = 60) -> dict[str, Any]:
        async with asyncio.timeout(within_seconds):
            while True:
                task = await self.task(task_id)
                if task["endedAt"] is not None:
                    return task
                await asyncio.sleep(0.05)

    def _start(self, module: str, config: str, environment: dict[str, str], *options: str) -> Process:
        number = len(self.processes)
        path, log = self.folder / f"config-{number}.json", self.folder / f"log-{number}.txt"
        path.write_text(config)
        popen = subprocess.Popen(
            [sys.executable, "-m", module, "--config", str(path), *options],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(RUNTIME),
                **self.environment,
                **environment,
            },
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
        )
        process = Process(popen=popen, log=log)
        self.processes.append(process)
        return process

    async def _ready(self, process: Process, url: str) -> None:
        async with asyncio.timeout(60), client_without_tls() as client:
            while True:
                assert process.popen.poll() is None, process.log.read_text()
                with contextlib.suppress(httpx2.HTTPError):
                    if (await client.get(url)).status_code == 200:
                        return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def fleet_at(folder: Path, redis: RedisServer) -> AsyncIterator[Fleet]:
    """An index and a model are running; gateway and workers start on demand and end with the test."""
    services = Services()
    services.answering.set()
    async with serving(services.application(), 0, grace_seconds=1) as port:
        services.url = f"http://127.0.0.1:{port}"
        whole = Fleet(folder, redis, services, free_ports(12))
        yield whole
        for process in whole.processes:
            if process.popen.poll() is None:
                process.kill()
        services.answering.set()


@pytest.fixture
async def own_fleet(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Fleet]:
    """A Redis of the test's own, and no gateway yet: for what stops one of them or needs other settings."""
    async with fleet_at(tmp_path, redis_server) as whole:
        yield whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A Redis and a gateway that tests share."""

    redis: RedisServer
    gateway_url: str
    status_url: str


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Started once, since a gateway takes a second to start."""
    folder = tmp_path_factory.mktemp("standing")
    redis = RedisServer(folder)
    redis.start()

    async def started() -> Fleet:
        whole = Fleet(folder, redis, Services(), free_ports(2))
        await whole.start_gateway(serves_openai=True, serves_a2a=True, description="Answers questions.")
        return whole

    whole = asyncio.run(started())
    yield Standing(redis=redis, gateway_url=whole.gateway_url, status_url=whole.status_url)
    for process in whole.processes:
        process.kill()
    redis.stop()


@pytest.fixture(scope="module")
def with_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A Redis and a gateway with keys, started once: ann and bob submit, boss and chief may decide."""
    folder = tmp_path_factory.mktemp("with-keys")
    redis = RedisServer(folder)
    redis.start()
    whole = Fleet(folder, redis, Services(), free_ports(2))
    for name in ("ann", "bob", "boss", "chief"):
        (whole.callers / name).write_text(planted(name))
    asyncio.run(whole.start_gateway(GatewayAuth.SECRET, approvers=("boss", "chief")))
    yield whole
    for process in whole.processes:
        process.kill()
    redis.stop()


@pytest.fixture
def callers(with_keys: Fleet) -> Fleet:
    """The same without tasks."""
    with_keys.redis.ask("flushall")
    return with_keys


@pytest.fixture
async def fleet(tmp_path: Path, standing: Standing) -> AsyncIterator[Fleet]:
    """A gateway without authentication over an empty Redis; both stay for the next test."""
    standing.redis.ask("flushall")
    async with fleet_at(tmp_path, standing.redis) as whole:
        whole.gateway_url, whole.status_url = standing.gateway_url, standing.status_url
        yield whole
