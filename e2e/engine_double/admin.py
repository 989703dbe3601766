"""The paths under /admin, with which tests script replies, set faults, and read the requests so far."""

import json
from collections import deque

from aiohttp import web
from pydantic import RootModel

from engine_double.engine import Engine
from engine_double.faults import Faults, FaultSwitch, Hang, MetricsFault, crash
from engine_double.plans import NamedPlans, Plan
from engine_double.refusals import parsed
from engine_double.replies import Script, ScriptedReply
from engine_double.shapes import JSON

REMEMBERED_REQUESTS = 1000


class ScriptedReplies(RootModel[list[ScriptedReply]]):
    """The body of POST /admin/replies."""


class Admin:
    """The handlers of the paths under /admin."""

    def __init__(self, script: Script, plans: dict[str, Plan], switch: FaultSwitch, engine: Engine) -> None:
        self._script = script
        self._plans = plans
        self._switch = switch
        self._engine = engine
        self._seen: deque[JSON] = deque(maxlen=REMEMBERED_REQUESTS)
        self.frozen_metrics: bytes | None = None

    def routes(self) -> list[web.RouteDef]:
        """The paths."""
        return [
            web.post("/admin/replies", self._add_replies),
            web.delete("/admin/replies", self._clear_replies),
            web.post("/admin/plans", self._add_plans),
            web.post("/admin/faults", self._set_faults),
            web.post("/admin/crash", self._crash),
            web.get("/admin/requests", self._requests),
        ]

    def remember(self, request: web.Request, body: bytes) -> None:
        """Keep a request for /admin/requests."""
        self._seen.append({"path": request.path, "headers": dict(request.headers), "body": json.loads(body)})

    async def _add_replies(self, request: web.Request) -> web.Response:
        self._script.add(parsed(await request.read(), ScriptedReplies).root)
        return web.json_response({"remaining": self._script.remaining()})

    async def _clear_replies(self, _request: web.Request) -> web.Response:
        self._script.clear()
        return web.json_response({"remaining": 0})

    async def _add_plans(self, request: web.Request) -> web.Response:
        self._plans.update(parsed(await request.read(), NamedPlans).root)
        return web.json_response({"plans": sorted(self._plans)})

    async def _set_faults(self, request: web.Request) -> web.Response:
        faults = parsed(await request.read(), Faults)
        self._switch.set(faults)
        self.frozen_metrics = self._engine.scrape() if faults.metrics is MetricsFault.FROZEN else None
        self._engine.set_hanging(faults.hang is not Hang.NONE)
        return web.json_response(faults.model_dump(mode="json"))

    async def _crash(self, _request: web.Request) -> web.Response:
        crash()

    async def _requests(self, _request: web.Request) -> web.Response:
        return web.json_response(list(self._seen))
