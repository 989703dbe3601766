"""Two replicas of the real model become one while callers stream from both: nobody notices."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx2
import pytest

from demo.environment import Environment
from tests.support.applied import REPLICA_SET, Site
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.rare,  # a second real engine takes all cores for minutes, and other tests of the demo wait
    pytest.mark.xdist_group("demo"),
    pytest.mark.timeout(2400, func_only=True),
]

NAME = "smollm2"
CALLERS = 6
TOKENS = 24
READY_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One stream as its caller saw it."""

    status: int
    replica: str
    ended: bool


@pytest.fixture
def two_replicas(demo: Environment) -> Iterator[Site]:
    """The demo's model twice; once again afterwards."""
    model = Site(demo.kubectl)
    scale(model, 2)
    model.until(lambda: ready_replicas(model) == 2, REPLICA_SET, NAME, "two replicas ready", READY_SECONDS)
    yield model
    scale(model, 1)
    demo.wait_until_ready()


@pytest.mark.holds("draining.md", "A scale-down under load fails no request with the real model")
def test_scaling_from_two_replicas_to_one_under_load_fails_no_request(two_replicas: Site) -> None:
    model, over, answers = two_replicas, threading.Event(), list[Answer]()
    with (
        model.kubectl.port_forward(f"service/{NAME}-model", 8000) as port,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        running = [callers.submit(keep_asking, port, over, caller, answers) for caller in range(CALLERS)]
        try:
            eventually(lambda: len({answer.replica for answer in answers}) == 2)
            scale(model, 1)
            eventually(lambda: settled_at_one(model))
        finally:
            over.set()
        for caller in running:
            caller.result(timeout=300)
    assert [answer for answer in answers if answer.status != 200 or not answer.ended] == []


def scale(model: Site, replicas: int) -> None:
    """Through the scale subresource, as `kubectl scale` and autoscalers do."""
    path = f"{model.objects.path(REPLICA_SET, NAME)}/scale"
    model.objects.client.merge(path, {"spec": {"replicas": replicas}})


def ready_replicas(model: Site) -> int:
    return int(model.objects.get(REPLICA_SET, NAME)["status"]["readyReplicas"])


def settled_at_one(model: Site) -> bool:
    """One replica is ready and the other's pod has gone, not only begun to end."""
    engines = f"labelSelector=flotilla.dev/owner={NAME},app.kubernetes.io/component=engine"
    return ready_replicas(model) == 1 and len(model.objects.list("Pod", engines)) == 1


def keep_asking(port: int, over: threading.Event, caller: int, answers: list[Answer]) -> None:
    """Ask one question after another, each a conversation of its own, until told to stop."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
        for number in itertools.count():
            if over.is_set():
                return
            answers.append(ask(client, f"caller-{caller}-{number}"))


def ask(client: httpx2.Client, session: str) -> Answer:
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": f"Count upwards from one, {session}."}],
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
        "stream": True,
    }
    with client.stream(
        "POST", "/v1/chat/completions", json=body, headers={"X-Session-Id": session}
    ) as response:
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    return Answer(
        status=response.status_code,
        replica=response.headers.get("x-flotilla-replica", ""),
        ended=bool(data) and data[-1] == "[DONE]",
    )
