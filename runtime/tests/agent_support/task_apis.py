"""The task API over a double of its service, without a server."""

from typing import cast

import httpx2

from flotilla_runtime.gateway.application import TaskAPI, task_application
from flotilla_runtime.gateway.auth import NoAuthentication
from flotilla_runtime.gateway.callers import Callers
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.events import Sight
from flotilla_runtime.gateway.outside import Outside
from flotilla_runtime.gateway.replays import Replays
from flotilla_runtime.gateway.service import TaskService
from flotilla_runtime.gateway.streams import Streams


def client_of(service: object, *, answers_crashes: bool = False) -> httpx2.AsyncClient:
    """A client of a task API in which everybody may do everything. Crashes are raised, or answered."""
    desk = Desk(
        service=cast("TaskService", service),
        sight=cast("Sight", None),
        callers=Callers(NoAuthentication()),
        outside=cast("Outside", None),
        replays=cast("Replays", None),
        max_body_bytes=1024,
        streams=Streams(1),
    )
    application = task_application(TaskAPI(desk))
    transport = httpx2.ASGITransport(app=application, raise_app_exceptions=not answers_crashes)
    return httpx2.AsyncClient(transport=transport, base_url="http://gateway")
