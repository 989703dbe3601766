"""A client of the agent fleets' task API: submit a task, wait for its end, show what the answer rests on.

A gateway that answers 503 is asked again until the time-out, the submission too: its idempotency key keeps it
one task.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled"})
POLL_SECONDS = 0.25
UNAVAILABLE_SECONDS = 1.0  # until a gateway whose task store is away is asked again


class TaskFailedError(RuntimeError):
    """The task was refused, ended without an answer or not in time; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place that an answer rests on; documents with pages, such as PDF, have one."""

    document: str
    page: int | None = None

    def __str__(self) -> str:
        return self.document if self.page is None else f"{self.document}, page {self.page}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a task ended with: its text, what it rests on, the seconds from submit to end."""

    text: str
    sources: tuple[Source, ...]
    seconds: float
    task: dict[str, Any]

    @property
    def documents(self) -> tuple[str, ...]:
        """Each document once, in the order of citation."""
        return tuple(dict.fromkeys(source.document for source in self.sources))


def checked(response: httpx.Response) -> dict[str, Any]:
    """The JSON body, or TaskFailedError with the problem's detail (RFC 9457)."""
    if response.is_success:
        body: dict[str, Any] = response.json()
        return body
    try:
        problem = response.json().get("detail") or response.text
    except ValueError:
        problem = response.text
    raise TaskFailedError(f"{response.request.url} answered {response.status_code}: {problem}")


def ask(
    client: httpx.Client,
    question: str,
    *,
    timeout_seconds: float = 300,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Submit `question` and wait for the task's end; `client` carries address and credentials."""
    started = clock()

    def answered(send: Callable[[], httpx.Response]) -> dict[str, Any]:
        while (response := send()).status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            if clock() - started > timeout_seconds:
                break
            sleep(UNAVAILABLE_SECONDS)
        return checked(response)

    submission = {"input": question, "idempotencyKey": uuid.uuid4().hex}
    task = answered(lambda: client.post("/v1/tasks", json=submission))
    path = f"/v1/tasks/{task['id']}"
    while task.get("status") not in TERMINAL:
        if clock() - started > timeout_seconds:
            raise TaskFailedError(
                f"task {task['id']} is still {task.get('status')} after {timeout_seconds:.0f} s"
            )
        sleep(POLL_SECONDS)
        task = answered(lambda: client.get(path))
    if task["status"] != "Succeeded":
        why = ": ".join(str(part) for part in (task.get("reason"), task.get("message")) if part)
        raise TaskFailedError(f"task {task['id']} ended {task['status']}: {why}")
    result = task["result"]
    sources = (Source(document=each["document"], page=each.get("page")) for each in result["citations"])
    return Answer(
        text=result["answer"],
        sources=tuple(dict.fromkeys(sources)),
        seconds=clock() - started,
        task=task,
    )
