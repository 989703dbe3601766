"""A router as its pod runs it: the real HAProxy and the agent; engines that answer, pods that name them.

Engines listen on addresses of 127.0.0.0/8 with one port, as pods do with addresses of their own.
"""

import asyncio
import contextlib
import os
import socket
import struct
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from flotilla_runtime.contract import RouterConfig
from flotilla_runtime.router.__main__ import write_files
from flotilla_runtime.router.agent import RouterAgent
from flotilla_runtime.router.agent_http import serve
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.pod_watch import KubernetesAccess
from free_ports import free_ports
from leaks.pytest_plugin import search_file
from local_cluster.processes import free_port
from router_support.builders import ROUTERS, config, pod
from router_support.fake_pods import FakePods
from router_support.waiting import until


@dataclass
class Engine:
    """One engine: answers with `status` when `gate` is set, notes what came and what was given up."""

    name: str
    ip: str
    port: int
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[str] = field(default_factory=list)
    first_tokens_at: list[float] = field(default_factory=list)  # Unix seconds, one for each stream
    headers: list[CIMultiDict[str]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    cancelled: int = 0
    key: str | None = None
    status: int = 200
    kv_usage: str = "0.0"
    runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, self.ip, self.port).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            text=f'vllm:num_requests_running{{engine="0"}} {self.running}.0\n'
            'vllm:num_requests_waiting{engine="0"} 0.0\n'
            f'vllm:kv_cache_usage_perc{{engine="0"}} {self.kv_usage}\n'
        )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        self.seen.append(request.headers.get("X-Test", ""))
        self.headers.append(CIMultiDict(request.headers))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if "X-Test-Stream" in request.headers:
                return await self._stream(request)
            await self.gate.wait()
            return web.json_response({"replica": self.name, "bytes": len(body)}, status=self.status)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.first_tokens_at.append(time.time())
        await response.write(b"data: first\n\n")
        while request.headers["X-Test-Stream"] == "endless":
            await response.write(b"data: more\n\n" * 4096)
        await self.gate.wait()
        await response.write(b"data: [DONE]\n\n")
        return response


class Router:
    """One router pod. HAProxy and the agent start and stop apart, as containers do."""

    def __init__(self, api: FakePods, name: str, **fields: Any) -> None:
        self._api = api
        self.name = name
        self._directory = tempfile.TemporaryDirectory(prefix="flotilla-router-")
        self.directory = Path(self._directory.name)
        self.environment: dict[str, str] = {}
        self._leapt_seconds = 0.0
        port, metrics_port, agent_port, internal_port = free_ports(4)
        self.config: RouterConfig = config(
            run_directory=self._directory.name,
            port=port,
            metrics_port=metrics_port,
            agent_port=agent_port,
            internal_port=internal_port,
            **fields,
        )
        self.url = f"http://127.0.0.1:{port}"
        self.agent: RouterAgent | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        write_files(self.config, self.directory)
        self._api.put(pod(self.name, labels=ROUTERS))
        await self.start_haproxy()
        await self.start_agent()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_agent()
        await self.stop_haproxy()
        search_file(self.directory / "haproxy.log")  # before pytest's own search, the folder is gone
        self._directory.cleanup()

    async def start_haproxy(self) -> None:
        command = ("haproxy", "-W", "-db", "-f", str(self.directory / RunFiles.CONFIG))
        with (self.directory / "haproxy.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env={**os.environ, **self.environment}
            )
        await until((self.directory / RunFiles.ADMIN_SOCKET).exists)

    async def stop_haproxy(self) -> None:
        """As the kubelet ends a container: SIGTERM, and the master ends its worker."""
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()
        (self.directory / RunFiles.ADMIN_SOCKET).unlink(missing_ok=True)

    async def start_agent(self) -> None:
        access = KubernetesAccess(url=self._api.url)
        self.agent = RouterAgent(self.config, access, own_pod=self.name, clock=self._clock)
        self._runner = await serve(self.agent, port=self.config.agent_port, family=self.config.listen_family)
        self._tasks = [asyncio.create_task(self.agent.run())]
        await until(lambda: self.agent is not None and self.agent.ready)

    async def stop_agent(self) -> None:
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def leap(self, seconds: float) -> None:
        """Let the agent's clock go forward at once, so that a test need not wait for a fixed time."""
        self._leapt_seconds += seconds

    def _clock(self) -> float:
        return time.monotonic() + self._leapt_seconds

    async def restart(self) -> None:
        """Both containers, as when the pod's node starts again: neither remembers anything."""
        await self.stop_agent()
        await self.stop_haproxy()
        await self.start_haproxy()
        await self.start_agent()

    @property
    def status(self) -> Any:
        assert self.agent is not None
        return self.agent.status()

    def ready_servers(self) -> set[str]:
        return {server.name for server in self.status.servers if server.state.value == "Ready"}

    @property
    def log(self) -> str:
        return (self.directory / "haproxy.log").read_text()


class Fleet:
    """Engines and the pods that stand for them."""

    def __init__(self, api: FakePods) -> None:
        self.api = api
        self.engine_port = free_port()
        self.engines: dict[str, Engine] = {}

    async def add(self, name: str, server_id: int, *, blocked: bool = False, **fields: Any) -> Engine:
        engine = Engine(name=name, ip=f"127.0.1.{server_id}", port=self.engine_port)
        if not blocked:
            engine.gate.set()
        await engine.start()
        self.engines[name] = engine
        self.api.put(pod(name, server_id=server_id, ip=engine.ip, **fields))
        return engine

    def change(self, name: str, **fields: Any) -> None:
        engine = self.engines[name]
        server_id = int(engine.ip.rsplit(".", 1)[1])
        self.api.put(pod(name, server_id=server_id, ip=engine.ip, **fields))

    async def stop(self) -> None:
        for engine in self.engines.values():
            engine.gate.set()
            await engine.stop()


@contextlib.asynccontextmanager
async def fleet() -> AsyncIterator[Fleet]:
    async with FakePods() as api:
        made = Fleet(api)
        try:
            yield made
        finally:
            await made.stop()


TIMESTAMPS = 35  # SO_TIMESTAMPNS of <asm-generic/socket.h>, which Python has no name for
STREAM_REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Test-Stream: 1\r\nContent-Length: 2\r\n\r\n{}"
)


def first_token_received_at(router: "Router") -> float | None:
    """When the first token of a stream had come, in Unix seconds: the kernel's own note, so that it does not
    matter how late a busy machine lets this process read. None while the kernel does not take notes yet,
    which it begins soon after a first socket has asked for them.
    """
    with socket.create_connection(("127.0.0.1", router.config.port), 30) as caller:
        caller.setsockopt(socket.SOL_SOCKET, TIMESTAMPS, 1)
        caller.sendall(STREAM_REQUEST)
        received = b""
        notes: list[tuple[int, int, bytes]] = []
        while b"data: first" not in received:
            part, notes, _, _ = caller.recvmsg(65536, 1024)
            assert part, received
            received += part
    for level, kind, note in notes:
        if (level, kind) == (socket.SOL_SOCKET, TIMESTAMPS):
            seconds, nanoseconds = struct.unpack("@ll", note[: struct.calcsize("@ll")])
            return float(seconds + nanoseconds / 1e9)
    return None


@dataclass
class Answer:
    status: int
    headers: CIMultiDict[str]
    body: Any

    @property
    def replica(self) -> str:
        return self.headers["X-Flotilla-Replica"]


class Caller:
    """A client that opens a connection a request, as many callers would."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(
        self,
        body: Any = None,
        *,
        path: str = "/v1/chat/completions",
        session: str | None = None,
        headers: dict[str, str] | None = None,
        data: Any = None,
    ) -> Answer:
        sent = dict(headers or {}) | ({} if session is None else {"X-Session-Id": session})
        payload = {"json": body or {"model": "smollm2"}} if data is None else {"data": data}
        async with self._session.post(self._url(path), headers=sent, **payload) as response:
            return Answer(
                response.status, CIMultiDict(response.headers), await response.json(content_type=None)
            )

    def _url(self, path: str) -> URL:
        """With the path as it was written: aiohttp would take needless escapes out."""
        return URL(self._router.url + path, encoded=True)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        async with self._session.get(self._router.url + path, headers=headers) as response:
            text = await response.text()
            kind = response.headers.get("Content-Type", "")
            body = await response.json() if "json" in kind else text
            return Answer(response.status, CIMultiDict(response.headers), body)

    def stream(self, **headers: str) -> Any:
        return self._session.post(
            self._router.url + "/v1/chat/completions",
            json={"model": "smollm2", "stream": True},
            headers={"X-Test-Stream": "1", **headers},
        )
