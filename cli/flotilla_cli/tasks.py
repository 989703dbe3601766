"""A client of the agent fleets' task API: submit a task, wait for its end, show what the answer rests on."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

TERMINAL = frozenset({"Succeeded", "Failed", "Cancelled"})
POLL_SECONDS = 0.25


class TaskFailedError(RuntimeError):
    """The task was refused, ended without an answer or not in time; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a task ended with: its text, the documents it rests on, the seconds from submit to end."""

    text: str
    documents: tuple[str, ...]
    seconds: float
    task: dict[str, Any]


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
    task = checked(client.post("/v1/tasks", json={"input": question}))
    while task.get("status") not in TERMINAL:
        if clock() - started > timeout_seconds:
            raise TaskFailedError(
                f"task {task['id']} is still {task.get('status')} after {timeout_seconds:.0f} s"
            )
        sleep(POLL_SECONDS)
        task = checked(client.get(f"/v1/tasks/{task['id']}"))
    if task["status"] != "Succeeded":
        raise TaskFailedError(f"task {task['id']} ended {task['status']}: {task.get('reason')}")
    result = task["result"]
    documents = tuple(dict.fromkeys(citation["document"] for citation in result["citations"]))
    return Answer(text=result["answer"], documents=documents, seconds=clock() - started, task=task)
