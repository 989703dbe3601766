"""Two replicas of the real model become one while callers stream from both: nobody notices."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from demo.environment import Environment
from tests.support.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500, func_only=True)]

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
def two_replicas(demo: Environment) -> Iterator[None]:
    """The demo's model twice; once again afterwards."""
    scale(demo, 2)
    demo.kubectl.run(
        *("wait", "--for=jsonpath={.status.readyReplicas}=2", f"mrs/{NAME}", f"--timeout={READY_SECONDS}s"),
        timeout_seconds=READY_SECONDS + 10,
    )
    yield
    scale(demo, 1)
    demo.wait_until_ready()


def test_scaling_from_two_replicas_to_one_under_load_fails_no_request(
    demo: Environment, two_replicas: None
) -> None:
    over = threading.Event()
    with (
        demo.kubectl.port_forward(f"service/{NAME}-model", 8000) as port,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        running = [callers.submit(keep_asking, port, over, caller) for caller in range(CALLERS)]
        try:
            eventually(lambda: len(replicas_at_work(demo)) == 2)
            scale(demo, 1)
            eventually(lambda: settled_at_one(demo))
        finally:
            over.set()
        answers = [answer for caller in running for answer in answers_of(caller)]
    assert len({answer.replica for answer in answers}) == 2, "one replica had nothing to lose"
    broken = [answer for answer in answers if answer.status != 200 or not answer.ended]
    assert broken == []


def scale(demo: Environment, replicas: int) -> None:
    demo.kubectl.run("scale", f"mrs/{NAME}", f"--replicas={replicas}")


def replicas_at_work(demo: Environment) -> list[str]:
    """The ready engine pods that stay."""
    selector = f"--selector=flotilla.dev/owner={NAME},app.kubernetes.io/component=engine"
    return [
        pod["metadata"]["name"]
        for pod in demo.kubectl.get("pods", selector)["items"]
        if "deletionTimestamp" not in pod["metadata"]
    ]


def settled_at_one(demo: Environment) -> bool:
    selector = f"--selector=flotilla.dev/owner={NAME},app.kubernetes.io/component=engine"
    status = demo.kubectl.get("mrs", NAME)["status"]
    return status["readyReplicas"] == 1 and len(demo.kubectl.get("pods", selector)["items"]) == 1


def keep_asking(port: int, over: threading.Event, caller: int) -> list[Answer]:
    """Ask one question after another, each a conversation of its own, until told to stop."""
    answers: list[Answer] = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
        while not over.is_set():
            answers.append(ask(client, f"caller-{caller}-{len(answers)}"))
    return answers


def ask(client: httpx.Client, session: str) -> Answer:
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


def answers_of(caller: "Future[list[Answer]]") -> list[Answer]:
    return caller.result(timeout=300)
