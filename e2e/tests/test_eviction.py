"""A replica that is evicted while it streams, with a real kubelet: through the API's eviction, which is what
`kubectl drain` asks for. Whole nodes that are drained under two hundred streams: `make bench-streams`.
"""

import json

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from demo.kubectl import Kubectl
from engine_double.configuration import Configuration
from flotilla_runtime import contract
from local_cluster.errors import ApiError
from tests.support.applied import REPLICA_SET, Site
from tests.support.asked import asked
from tests.support.stand_ins import doubles

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400, func_only=True)]

NAME = "evicted"
TOKENS = 1800
STREAM_SECONDS = TOKENS * Configuration().decode_step_seconds
RUNNING = "vllm:num_requests_running"


@pytest.mark.holds("README.md", "A model answers OpenAI's API at `http://NAME-model:8000/v1`")
@pytest.mark.holds("draining.md", "An evicted engine waits in its preStop hook until it is idle")
@pytest.mark.once
def test_a_replica_that_is_evicted_ends_its_stream_first_and_is_replaced(site: Site, double: str) -> None:
    long_enough = {"deadlineSeconds": round(5 * STREAM_SECONDS)}
    site.apply(doubles(NAME, double, replicas=2, drain=long_enough))
    site.wait_ready(NAME)
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    with (
        site.kubectl.port_forward(f"service/{NAME}-model", contract.PORT_ROUTER) as port,
        httpx2.stream(
            "POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60
        ) as stream,
    ):
        lines = (line.removeprefix("data: ") for line in stream.iter_lines() if line)
        told = [next(lines)]
        victim = stream.headers[contract.HEADER_REPLICA]
        (other,) = site.pods(NAME).keys() - {victim}
        site.until(lambda: is_evicted(site, victim), "Pod", victim, "eviction")
        with asked(site.kubectl, NAME) as ask:

            def passed_over() -> bool:
                return victim not in {ask(f"Who is left, {number}?") for number in range(5)}

            site.until(passed_over, "Pod", victim, "no more requests", STREAM_SECONDS)
        assert requests_running(site.kubectl, victim) == 1
        told += lines
    assert told[-1] == "[DONE]"
    choices = [choice for line in told[:-1] for choice in json.loads(line)["choices"]]
    assert len([choice for choice in choices if choice["delta"].get("content")]) == TOKENS

    def replaced() -> bool:
        status = site.objects.get(REPLICA_SET, NAME)["status"]
        pods = site.pods(NAME)
        return victim not in pods and other in pods and status["ready"] == "2/2"

    site.until(replaced, REPLICA_SET, NAME, "another replica beside the one that stayed")


def requests_running(kubectl: Kubectl, pod: str) -> float:
    """Figures of the engine itself; callers may still be reading what it has written long ago."""
    with kubectl.port_forward(f"pod/{pod}", contract.PORT_ENGINE) as port:
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=60).raise_for_status().text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == RUNNING)


def is_evicted(site: Site, pod: str) -> bool:
    """Ask for an eviction; a disruption budget that has not counted the pods yet says no, for now."""
    asked_for = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    try:
        site.objects.client.create(f"{site.objects.path('Pod', pod)}/eviction", asked_for)
    except ApiError as error:
        if "disruption budget" not in str(error):
            raise
        return False
    return True
