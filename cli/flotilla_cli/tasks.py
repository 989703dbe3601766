"""A client of the task API of agent fleets: submits a task, waits for its end, and reads the answer.

A request that is answered with 503 is repeated until the time-out. That includes the submission, whose
idempotency key makes sure that only one task is made.
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
UNAVAILABLE_SECONDS = 1.0  # the pause before a request is repeated that was answered with 503


class TaskFailedError(RuntimeError):
    """The task was refused, ended without an answer, or did not end in time; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A document that an answer cites; with the page where the document has pages, such as a PDF."""

    document: str
    page: int | None = None

    def __str__(self) -> str:
        return self.document if self.page is None else f"{self.document}, page {self.page}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a task: its text, its sources, and the seconds from submission to end."""

    text: str
    sources: tuple[Source, ...]
    seconds: float
    task: dict[str, Any]

    @property
    def documents(self) -> tuple[str, ...]:
        """Each cited document once, in the order of citation."""
        return tuple(dict.fromkeys(source.document for source in self.sources))


def checked(response: httpx.Response) -> dict[str, Any]:
    """The JSON body. Raises TaskFailedError with the detail of the problem (RFC 9457)."""
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
    """Submit `question` and wait for the end of the task; `client` has the address and the credentials."""
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
                f"task {task['id']} is still {task.get('status')} after {timeout_seconds:.0f} s; raise "
                "--timeout-seconds to wait longer"
            )
        sleep(POLL_SECONDS)
        task = answered(lambda: client.get(path))
    if task["status"] != "Succeeded":
        why = ": ".join(str(part) for part in (task.get("reason"), task.get("message")) if part)
        raise TaskFailedError(f"task {task['id']} ended with status {task['status']}: {why}")
    result = task["result"]
    sources = (Source(document=each["document"], page=each.get("page")) for each in result["citations"])
    return Answer(
        text=result["answer"],
        sources=tuple(dict.fromkeys(sources)),
        seconds=clock() - started,
        task=task,
    )
