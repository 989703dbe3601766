"""Tasks of a fleet in the cluster: submitted and followed through its gateway, as callers do."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import httpx2

from demo.kubectl import Kubectl
from demo.questions import QUESTIONS
from flotilla_runtime import contract
from local_cluster.api_client import Manifest
from tests.support.applied import Site
from tests.support.waiting import eventually

SHORTEST = QUESTIONS[1].text  # the question of the demo whose answer takes the model the least time
START_SECONDS = 60.0
UNDER_WAY = frozenset({"Waiting", "Running"})


def fleet_token(kubectl: Kubectl, fleet: str, account: str) -> str:
    """A token of a service account for this fleet."""
    audience = contract.gateway_audience(str(kubectl.namespace), fleet)
    return kubectl.run("create", "token", account, f"--audience={audience}").strip()


@contextmanager
def gateway_of(kubectl: Kubectl, fleet: str, token: str) -> Iterator[httpx2.Client]:
    """A client of the fleet's task API, through the one gateway pod that the forwarded port has found."""
    headers = {"Authorization": f"Bearer {token}"}
    with (
        kubectl.port_forward(f"service/{fleet}-gateway", contract.PORT_GATEWAY) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client,
    ):
        yield client


def submitted(client: httpx2.Client, question: str) -> str:
    """The id of a new task. A 503 is sent again, as any caller does: the fleet's Redis may still start."""
    body = {"input": question, "idempotencyKey": uuid.uuid4().hex}

    def answer() -> httpx2.Response | None:
        response = client.post("/v1/tasks", json=body)
        return None if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE else response

    response = eventually(answer, START_SECONDS)
    assert response.is_success, response.text
    task: str = response.json()["id"]
    return task


def found(client: httpx2.Client, task: str) -> dict[str, Any]:
    """The task, which has not failed."""
    told: dict[str, Any] = client.get(f"/v1/tasks/{task}").raise_for_status().json()
    assert told["status"] in UNDER_WAY or answer_of(told), told
    return told


def succeeded(client: httpx2.Client, task: str) -> bool:
    """Whether the task has its answer."""
    return bool(answer_of(found(client, task)))


def answer_of(task: dict[str, Any]) -> str:
    """The text of a task's answer, also of one whose model did not find its end within `maxOutputTokens`."""
    is_bounded = task["status"] == "Failed" and task["reason"] == "MaxTokens"
    result = task["partial"] if is_bounded else task["result"]
    return str(((result or {}).get("answer") if isinstance(result, dict) else result) or "")


def workers_of(task: dict[str, Any]) -> Sequence[str]:
    """The workers that took the task, in turn, by its timeline."""
    return [moment["worker"] for moment in task["timeline"] if moment["event"] == "started"]


def ended_calls(task: dict[str, Any]) -> Sequence[str]:
    """The ids of the calls that have ended, one for each time that it is told."""
    return [moment["call"] for moment in task["timeline"] if moment["event"] == "callEnded"]


def pods_of(site: Site, fleet: str, component: str) -> list[Manifest]:
    """The fleet's pods of a component, such as `worker`, those that are ending too."""
    labels = f"flotilla.dev/owner={fleet},app.kubernetes.io/component={component}"
    return site.objects.list("Pod", f"labelSelector={labels}")
