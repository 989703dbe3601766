"""An update that makes answers bad is taken back while callers go on asking: HAProxy logs the answers, its
agents count them, the operator reads the counts and goes back.

The site is that of `make bench-streams`: API server, scheduler, operator, HAProxy and its agents are the real
programs, the engines are doubles. The judgement, with many more cases, is operator/tests/controllers/
model_replica_set/test_rollout.py.
"""

import itertools
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from flotilla_runtime import contract
from streams.site import MODEL, NAME, NAMESPACE, SET, Site, group_of, revision_of
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.xdist_group("streams site"), pytest.mark.timeout(600)]

REPLICAS = 2
CALLERS = 16
PAUSE_SECONDS = 0.5
ANSWERED_WITHIN_SECONDS = 60
ANSWERS_JUDGED = 50  # the fewest by which a revision is judged
FAILING = '--faults={"fail_every": 4}'
SYSTEM_PROMPT = "Be brief. " * 1_600  # 4,000 tokens, which the double reads in 0.35 s, or finds in its cache
PROMISE = {"ttftSeconds": 0.3, "attainment": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A caller's answer, and the replica that gave it."""

    status: int
    replica: str
    tokens: int
    seconds: float

    @classmethod
    def of(cls, response: httpx2.Response) -> "Answer":
        return cls(
            status=response.status_code,
            replica=response.headers.get(contract.HEADER_REPLICA, ""),
            tokens=response.json().get("usage", {}).get("completion_tokens", 0),
            seconds=response.elapsed.total_seconds(),
        )

    @property
    def is_whole(self) -> bool:
        return (self.status, self.tokens) == (200, 1)


def serving_set(place: Site, **spec: Any) -> str:
    """Two replicas behind two routers, known to be good; their revision."""
    place.create(replicas=REPLICAS, drain_seconds=30, **spec)
    (revision,) = {revision_of(pod) for pod in place.engines()}
    eventually(lambda: rollout(place).get("goodRevision") == revision)
    return revision


@contextmanager
def callers(place: Site, *, system: str = "") -> Iterator[Sequence[Answer]]:
    """Conversations that go on to the end, half of them through each router; the answers as they come."""
    answers: list[Answer] = []
    stopping = threading.Event()
    routers = itertools.cycle(pod["status"]["podIP"] for pod in place.ready("router"))

    def call(number: int, router: str) -> None:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": f"question {number}"}]
        body = {"model": MODEL, "messages": messages, "max_tokens": 1, "ignore_eos": True}
        url = f"http://{router}:{contract.PORT_ROUTER}/v1/chat/completions"
        headers = {contract.HEADER_SESSION: f"session-{number}"}
        with httpx2.Client(headers=headers, timeout=ANSWERED_WITHIN_SECONDS, trust_env=False) as client:
            while not stopping.wait(PAUSE_SECONDS):
                answers.append(Answer.of(client.post(url, json=body)))

    with ThreadPoolExecutor(CALLERS) as pool:
        calls = [pool.submit(call, number, next(routers)) for number in range(CALLERS)]
        try:
            yield answers
        finally:
            stopping.set()
    for ended in calls:
        ended.result()


def more(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Answers to questions that are asked from now on, three of each caller in the mean."""
    known = len(answers) + CALLERS  # one of each caller may be on its way
    eventually(lambda: len(answers) >= known + 3 * CALLERS)
    return answers[known:]


def rollout(place: Site) -> dict[str, Any]:
    found: dict[str, Any] = place.status().get("rollout") or {}
    return found


def rolled_back(place: Site) -> dict[str, Any] | None:
    """The set says that its update was rolled back."""
    conditions = place.status().get("conditions") or ()
    said = {condition["type"]: (condition["status"], condition["reason"]) for condition in conditions}
    return rollout(place) if said.get("Progressing") == ("False", "RolledBack") == said.get("Ready") else None


def told(place: Site) -> list[str]:
    """Words of events on the roll-back of the set there is now."""
    uid = place.plane.client.get(f"{SET}/{NAME}")["metadata"]["uid"]
    events = place.plane.client.get(f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events")["items"]
    of_set = [event for event in events if event["regarding"].get("uid") == uid]
    return [event["note"] for event in of_set if event["reason"] == "RolledBack"]


def groups(place: Site) -> set[str]:
    return {group_of(pod) for pod in place.engines()}


def assert_goes_back(place: Site, good: str, *, fault: str) -> str:
    """The set says that its update failed and why, and runs the good revision again; returns why."""
    found = eventually(lambda: rolled_back(place))
    assert (found["goodRevision"], found["fault"]) == (good, fault)
    assert found["failedRevision"] == found["revision"] != good
    (note,) = eventually(lambda: told(place))
    why: str = found["message"]
    assert f"revision {found['revision']} has failed: {why}; the set runs revision {good} instead" in note
    place.wait_for_engines(REPLICAS, lambda pod: revision_of(pod) == good)
    return why


def figures(pattern: str, text: str) -> list[int]:
    """The numbers in a text of this pattern."""
    match = re.fullmatch(pattern, text)
    assert match, text
    return [int(number) for number in match.groups()]


@pytest.mark.holds("draining.md", "Without `slo`, more than 5 % of at least 50 answers with 5xx fail it")
def test_a_revision_that_answers_5xx_is_rolled_back_under_load(place: Site) -> None:
    good = serving_set(place)
    with callers(place) as answers:
        before = groups(place)
        assert all(answer.is_whole for answer in more(answers))
        place.change(engine={"extraArgs": [FAILING]})
        why = assert_goes_back(place, good, fault="FailedAnswers")
        assert all(answer.is_whole for answer in more(answers))
        of_good = before | groups(place)

    bad = [answer for answer in answers if answer.replica not in of_good]
    share, judged = figures(r"(\d+)% of its (\d+) answers had a 5xx status", why)
    assert share > 5
    assert ANSWERS_JUDGED <= judged <= len(bad), "callers got every answer that was counted"
    broken = [answer for answer in answers if not answer.is_whole]
    assert {answer.status for answer in broken} == {500}
    assert {answer.replica for answer in broken} <= {answer.replica for answer in bad} - {""}, (
        "and no other broke"
    )


@pytest.mark.holds("draining.md", "It fails when its answers break the SLO and the old revision's keep it")
@pytest.mark.rare
def test_a_revision_that_is_too_slow_for_the_slo_is_rolled_back_under_load(place: Site) -> None:
    good = serving_set(place, slo=PROMISE)
    with callers(place, system=SYSTEM_PROMPT) as answers:
        assert share_kept(more(answers)) >= PROMISE["attainment"]
        place.change(engine={"prefixCaching": False})
        why = assert_goes_back(place, good, fault="MissesSLO")
        assert share_kept(more(answers)) >= PROMISE["attainment"]

    words = r"(\d+)% of its (\d+) answers met spec.slo, but (\d+)% of the old revision's answers did"
    share, judged, old_share = figures(words, why)
    assert share < 100 * PROMISE["attainment"] <= old_share
    assert judged >= ANSWERS_JUDGED
    assert all(answer.is_whole for answer in answers)


def share_kept(answers: Sequence[Answer]) -> float:
    """The share that kept the promise."""
    return sum(answer.seconds <= PROMISE["ttftSeconds"] for answer in answers) / len(answers)
