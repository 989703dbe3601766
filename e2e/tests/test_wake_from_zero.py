"""Real requests wake a set from zero: HAProxy holds them, the operator hears of it from the routers' agents.
Without autoscaling they are refused.

The site is that of `make bench-streams`: API server, scheduler, operator, HAProxy and its agents are the real
programs, the engine is a double that listens at its pod's address. The halves, each with more cases, are
runtime/tests/router/test_router_hold.py and operator/tests/controllers/model_replica_set/
test_from_zero_apiserver.py.
"""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from flotilla_runtime import contract
from streams.load import Stream
from streams.site import MODEL, Site, group_of
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.xdist_group("streams site"), pytest.mark.timeout(600)]

HELD_AT_MOST_SECONDS = 240
IDLE_SECONDS = 5
TOKENS = 3


@pytest.fixture
def sleeper(place: Site) -> Site:
    """Two routers and no replica, whatever `replicas` says."""
    place.create(
        replicas=0,
        drain_seconds=30,
        engine={"maxNumSeqs": 8, "maxModelLen": 262_144},
        autoscaling={"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": IDLE_SECONDS},
        router={"replicas": 2, "queueTimeoutSeconds": HELD_AT_MOST_SECONDS},
        slo={"e2eSeconds": HELD_AT_MOST_SECONDS},
    )
    return place


def ask(router: str, *, body_bytes: int, stream: bool) -> httpx2.Response:
    """One question to this router pod, whose body is so long or a little longer."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "x" * body_bytes}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": stream,
    }
    url = f"http://{router}:{contract.PORT_ROUTER}/v1/chat/completions"
    return httpx2.post(url, json=body, timeout=HELD_AT_MOST_SECONDS, trust_env=False)


def assert_is_whole(answer: httpx2.Response, *, stream: bool) -> None:
    assert answer.status_code == 200, answer.text
    if not stream:
        assert answer.json()["usage"]["completion_tokens"] == TOKENS
        return
    seen = Stream(wanted=TOKENS, router="", began_at=0)
    for line in answer.text.splitlines():
        if line.startswith("data: "):
            seen.take(line.removeprefix("data: "))
    assert (seen.tokens, seen.done) == (TOKENS, True)


def is_asleep(place: Site) -> bool:
    """No replica is there or wanted, and nothing in the routers."""
    status = place.status()
    at_zero = status.get("ready") == "0/0" and status["autoscaling"]["mode"] == "NoRequest"
    return at_zero and place.engines() == [] and held(place) == []


def held(place: Site) -> list[int]:
    """Requests that each router holds, without routers that hold none."""
    return [status.held for status in place.statuses() if status.held]


def tells_its_load(place: Site, router: str) -> bool:
    """The status tells that requests come and are answered in time, and how full the replica's cache is."""
    assert_is_whole(ask(router, body_bytes=10, stream=False), stream=False)
    load: dict[str, float] = place.status().get("load") or {}
    rates = [load.get("arrivalPerSecond", 0), load.get("goodputPerSecond", 0)]
    return min(rates) > 0 and 0 <= load.get("kvUsage", -1) <= 1


@pytest.mark.holds("router.md", "A held request starts a replica, which answers it")
def test_requests_held_at_zero_are_answered_by_the_replica_that_they_wake(sleeper: Site) -> None:
    eventually(lambda: is_asleep(sleeper))
    one, other = (pod["status"]["podIP"] for pod in sleeper.ready("router"))
    with ThreadPoolExecutor(3) as callers:
        short = callers.submit(ask, one, body_bytes=1_000, stream=False)
        long = callers.submit(ask, one, body_bytes=500_000, stream=False)
        stream = callers.submit(ask, other, body_bytes=1_000, stream=True)
        eventually(lambda: sorted(held(sleeper)) == [1, 2])
        woken = eventually(sleeper.engines)
    assert_is_whole(short.result(), stream=False)
    assert_is_whole(long.result(), stream=False)
    assert_is_whole(stream.result(), stream=True)
    answered_by = {asked.result().headers[contract.HEADER_REPLICA] for asked in (short, long, stream)}
    assert [group_of(pod) for pod in woken] == list(answered_by)
    eventually(lambda: tells_its_load(sleeper, one))

    eventually(lambda: is_asleep(sleeper))
    decisions = sleeper.status()["autoscaling"]["lastDecisions"]
    assert [(entry["from"], entry["to"]) for entry in decisions] == [(0, 1), (1, 0)]
    assert [status.refused for status in sleeper.statuses()] == [{}, {}]


@pytest.mark.holds("router.md", "At zero without `autoscaling` a request is answered with 503 at once")
@pytest.mark.rare
def test_without_autoscaling_a_request_at_zero_is_refused_at_once(place: Site) -> None:
    place.create(
        replicas=0, drain_seconds=30, router={"replicas": 2, "queueTimeoutSeconds": HELD_AT_MOST_SECONDS}
    )
    for pod in place.ready("router"):
        answers = [ask(pod["status"]["podIP"], body_bytes=1_000, stream=False) for _ in range(3)]
        for answer in answers:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "no_replicas"
            assert int(answer.headers["Retry-After"]) > 0
        assert min(answer.elapsed.total_seconds() for answer in answers) < 1
    eventually(lambda: [status.refused for status in place.statuses()] == [{"NoReplicas": 3}] * 2)
    assert place.engines() == []
