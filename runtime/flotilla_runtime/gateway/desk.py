"""What every front end stands on: the callers, the operations on tasks, and how tasks are followed."""

from dataclasses import dataclass

from flotilla_runtime.gateway.callers import Callers
from flotilla_runtime.gateway.events import Sight
from flotilla_runtime.gateway.service import TaskService
from flotilla_runtime.gateway.streams import Streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The callers, the tasks, the open event streams, and the longest body of a request."""

    service: TaskService
    sight: Sight
    callers: Callers
    streams: Streams
    max_body_bytes: int
