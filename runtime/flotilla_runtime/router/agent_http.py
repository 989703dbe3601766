"""The agent's HTTP server: health, readiness, the status for the operator, metrics, and the preStop hook."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from flotilla_runtime.contract import ListenFamily
from flotilla_runtime.router.agent import RouterAgent

LISTEN_HOSTS: dict[ListenFamily, str | None] = {
    ListenFamily.DUAL: None,
    ListenFamily.IPV4: "0.0.0.0",  # noqa: S104 (the pod's address is not known here)
    ListenFamily.IPV6: "::",
}


def application(agent: RouterAgent) -> web.Application:
    """The routes for one agent."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        if agent.ready:
            return web.Response(text="ready")
        return web.Response(
            status=503, text="HAProxy does not know the replicas yet, or this pod is being deleted"
        )

    async def status(_: web.Request) -> web.Response:
        text = agent.status().model_dump_json(by_alias=True)
        return web.Response(text=text, content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(agent.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def drained(_: web.Request) -> web.Response:
        if await agent.drained():
            return web.Response(text="drained")
        return web.Response(status=409, text="this pod is not being deleted")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/v1/status", status)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/drained", drained)
    return app


async def serve(
    agent: RouterAgent, *, port: int, family: ListenFamily, address: str | None = None
) -> web.AppRunner:
    """Start the server on one address or on all of the family; the caller must clean up the runner."""
    runner = web.AppRunner(application(agent), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address or LISTEN_HOSTS[family], port).start()
    return runner
