"""The desk under every front end: the callers, the operations on tasks, and the following of tasks."""

from dataclasses import dataclass

from flotilla_runtime.gateway.callers import Callers
from flotilla_runtime.gateway.events import Sight
from flotilla_runtime.gateway.outside import Outside
from flotilla_runtime.gateway.replays import Replays
from flotilla_runtime.gateway.service import TaskService
from flotilla_runtime.gateway.streams import Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The callers, the tasks, the open event streams, and the longest body of a request."""

    service: TaskService
    sight: Sight
    callers: Callers
    outside: Outside
    replays: Replays
    streams: Streams
    max_body_bytes: int
