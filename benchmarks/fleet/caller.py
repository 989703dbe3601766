"""A caller of the task API that knows all gateways, and asks the next one when one does not answer.

A submission carries an idempotency key, so asking again is harmless: the caller cannot know whether a gateway
that died had stored the task.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httpx2

ANSWER_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.1
PAGE: Final = 200
AGAIN: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, *range(500, 600)})


class NoGatewayError(Exception):
    """No gateway answered in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A task that is suspended because of an unknown effect, and the call."""

    task: str
    call: str


class Caller:
    """One caller. It is not shared by threads."""

    def __init__(self, urls: Sequence[str], patience_seconds: float = 60.0) -> None:
        self._urls = itertools.cycle(urls)
        self._url = next(self._urls)
        self._patience_seconds = patience_seconds
        self._client = httpx2.Client(timeout=ANSWER_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def submit(self, task_input: str, key: str, **more: Any) -> str:
        """Submit a task; its id."""
        body = {"input": task_input, "idempotencyKey": key, **more}
        return str(self._asked("POST", "/v1/tasks", json=body)["id"])

    def task(self, task_id: str) -> Mapping[str, Any]:
        """A task as callers see it."""
        return self._asked("GET", f"/v1/tasks/{task_id}")

    def unknown_effects(self) -> Iterator[Unknown]:
        """The tasks that wait until somebody says whether a call happened."""
        query: dict[str, Any] = {"status": "Suspended", "waitsFor": "Effect", "limit": PAGE}
        while True:
            page = self._asked("GET", "/v1/tasks", params=query)
            for one in page["tasks"]:
                waits = one.get("waitsFor") or self.task(one["id"]).get("waitsFor")
                if waits and waits["kind"] == "Effect":
                    yield Unknown(task=one["id"], call=waits["call"])
            if not page.get("nextCursor"):
                return
            query["cursor"] = page["nextCursor"]

    def resolve(self, unknown: Unknown, *, happened: bool, result: Any = None) -> None:
        """Say whether the call happened; one that was resolved meanwhile stays as it is."""
        body = {"call": unknown.call, "outcome": "Happened" if happened else "NotHappened"}
        if happened and result is not None:
            body["result"] = result
        self._asked("POST", f"/v1/tasks/{unknown.task}/resolve", json=body, settled=HTTPStatus.CONFLICT)

    def _asked(
        self, method: str, path: str, *, settled: HTTPStatus | None = None, **request: Any
    ) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience_seconds
        problem = ""
        while time.monotonic() < deadline:
            try:
                answer = self._client.request(method, self._url + path, **request)
            except httpx2.TransportError as error:
                problem = repr(error)
            else:
                if answer.status_code not in AGAIN:
                    if answer.status_code == settled:
                        return {}
                    if answer.is_error:
                        raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
                    found: dict[str, Any] = answer.json() if answer.content else {}
                    return found
                problem = f"{answer.status_code} {answer.text[:200]}"
            self._url = next(self._urls)
            time.sleep(PAUSE_SECONDS)
        raise NoGatewayError(f"{method} {path} got no answer in {self._patience_seconds:.0f} s: {problem}")
