"""A client of the task API of agent fleets: submits a task, waits for its end, and reads the answer.

A request that is answered with 503 is repeated until the time-out. That includes the submission, whose
idempotency key makes sure that only one task is made.
"""

import json
import shlex
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx2
from pydantic import BaseModel

from flotilla_cli.answers import Cited, Summary, has_form

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


def checked(response: httpx2.Response, form: type[BaseModel]) -> dict[str, Any]:
    """The JSON body. Raises TaskFailedError with the detail of the problem (RFC 9457), and for what has not
    this form: something else than a gateway answers.
    """
    url = response.request.url
    try:
        body: Any = response.json()
    except (ValueError, RecursionError):
        body = None
    if response.is_success and has_form(form, body):
        return dict(body)
    if response.is_success or response.is_redirect:
        raise TaskFailedError(f"{url} answered what is none of the task API; check --url")
    detail = body.get("detail") if isinstance(body, dict) else None
    problem = detail or response.text or response.reason_phrase
    raise TaskFailedError(f"{url} answered {response.status_code}: {problem}")


def answer_of(result: Any) -> tuple[str, list[dict[str, Any]]]:
    """The text and the citations of a result, which is shown as it is where it is any other JSON."""
    if has_form(Cited, result):
        return result["answer"], result.get("citations") or []
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False), []


def approval_command(task: str, call: str) -> str:
    """The command that approves a call, for a shell."""
    return f"flotilla approve {shlex.quote(task)} --call {shlex.quote(call)}"


def waiting_for(task: dict[str, Any]) -> str:
    """The status of a task that has not ended, and what it waits for."""
    waits = task.get("waitsFor")
    if not waits:
        return str(task.get("status"))
    until = f" until {waits['untilTime']}" if waits.get("untilTime") else ""
    how = ""
    if waits["kind"] == "Effect":
        how = f"; say whether the call happened: flotilla resolve {task['id']}"
    if waits["kind"] == "Approval":
        command = approval_command(task["id"], waits["call"])
        how = f"; somebody who may must decide: {command} (without --call, it shows the call)"
    return f"{task.get('status')} and waits for {waits['kind']} ({waits['call']}){until}{how}"


def new_key() -> str:
    """A key with which a request can be sent again without making a second task."""
    return uuid.uuid4().hex


def patiently(
    send: Callable[[], httpx2.Response],
    form: type[BaseModel],
    *,
    until: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> dict[str, Any]:
    """The answer to a request, which is repeated until this time while it is answered with 503."""
    while (response := send()).status_code == HTTPStatus.SERVICE_UNAVAILABLE and clock() <= until:
        sleep(UNAVAILABLE_SECONDS)
    return checked(response, form)


def ask(
    client: httpx2.Client,
    question: str,
    *,
    agent: str | None = None,
    timeout_seconds: float = 300,
    tell: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Submit `question` and wait for the end of the task; `client` has the address and the credentials.

    Without `agent` the fleet's own does it.

    While the task is suspended, `tell` hears once what it waits for.
    """
    started = clock()

    def answered(send: Callable[[], httpx2.Response]) -> dict[str, Any]:
        return patiently(send, Summary, until=started + timeout_seconds, clock=clock, sleep=sleep)

    submission = {"input": question, "idempotencyKey": new_key()}
    if agent is not None:
        submission["agent"] = agent
    task = answered(lambda: client.post("/v1/tasks", json=submission))
    path, said = f"/v1/tasks/{task['id']}", ""
    while task.get("status") not in TERMINAL:
        if clock() - started > timeout_seconds:
            raise TaskFailedError(
                f"task {task['id']} is still {waiting_for(task)} after {timeout_seconds:.0f} s; raise "
                "--timeout-seconds to wait longer"
            )
        sleep(POLL_SECONDS)
        task = answered(lambda: client.get(path))
        if task.get("waitsFor") and waiting_for(task) != said:
            said = waiting_for(task)
            tell(f"task {task['id']} is {said}")
    if task["status"] != "Succeeded":
        why = ": ".join(str(part) for part in (task.get("reason"), task.get("message")) if part)
        raise TaskFailedError(f"task {task['id']} ended with status {task['status']}: {why}")
    text, citations = answer_of(task.get("result"))
    sources = (Source(document=each["document"], page=each.get("page")) for each in citations)
    return Answer(
        text=text,
        sources=tuple(dict.fromkeys(sources)),
        seconds=clock() - started,
        task=task,
    )
