"""Workers of a fleet come with its tasks and go when the tasks have ended: real pods, from zero and back.

The numbers, with many more cases, are operator/tests/autoscaling/test_workers.py; a worker that is lost is
runtime/tests/agent/worker/test_worker.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from leaks.planted import planted
from tests.support.applied import Site, example
from tests.support.fleet_tasks import found, gateway_of, pods_of, submitted, succeeded, workers_of
from tests.support.stand_ins import configured, doubles

pytestmark = [pytest.mark.cluster, pytest.mark.waits_long, pytest.mark.timeout(2400, func_only=True)]

NAME = "busy"
KEY = planted("a-key-of-mine")
TASKS = 4
WORKERS = 2
STEP_SECONDS = 0.5  # 32 tokens: a task takes 16 seconds, and the last two wait for the first two


def fleet() -> dict[str, Any]:
    """A fleet without indexes that may have no worker, and takes one task at a time in each."""
    return example(
        "AgentFleet",
        NAME,
        models=[{"role": "Default", "modelRef": {"name": NAME}}],
        indexes=[],
        workers={"minReplicas": 0, "maxReplicas": WORKERS, "concurrency": 1},
        gateway={"replicas": 1, "auth": {"mode": "Secret", "secretRef": {"name": NAME}}},
    )


@pytest.mark.holds("tasks.md", "Real workers come with tasks, from zero, and go after a quiet minute")
def test_workers_come_with_tasks_from_zero_and_go_when_the_tasks_have_ended(site: Site, double: str) -> None:
    slow = {"decode_step_seconds": STEP_SECONDS}
    site.apply(configured(site, doubles(NAME, double), slow))
    key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {"me": KEY}}
    site.apply(key)
    site.apply(fleet())
    site.wait("AgentFleet", NAME, "Ready", "True")
    assert workers(site) == []
    with gateway_of(site.kubectl, NAME, KEY) as client:
        tasks = [submitted(client, f"Question {number}?") for number in range(TASKS)]
        until(site, lambda: len(ready_workers(site)) == WORKERS, f"{WORKERS} workers")
        tasks += [submitted(client, f"Question {number} for two?") for number in range(WORKERS)]
        until(site, lambda: all(succeeded(client, task) for task in tasks), "every task's answer")
        took = [set(workers_of(found(client, task))) for task in tasks]
        assert [len(of_task) for of_task in took] == [1] * len(tasks)
        assert len(set.union(*took)) == WORKERS
        until(site, lambda: workers(site) == [], "no worker after a quiet minute")
        last = submitted(client, "One more?")
        until(site, lambda: succeeded(client, last), "the answer of a task that found no worker")
    assert site.objects.get("AgentFleet", NAME)["status"]["tasks"]["recovered1h"] == 0


def until(site: Site, holds: Callable[[], object], wanted: str) -> None:
    site.until(holds, "AgentFleet", NAME, wanted)


def workers(site: Site) -> Sequence[str]:
    """The names of the fleet's worker pods, those that are ending too."""
    return [pod["metadata"]["name"] for pod in pods_of(site, NAME, "worker")]


def ready_workers(site: Site) -> Sequence[str]:
    return [
        pod["metadata"]["name"]
        for pod in pods_of(site, NAME, "worker")
        if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    ]
