"""Worker pods are deleted, at once and gracefully, under tasks of the demo: every task is answered.

What is counted at many more kills, and against a server that counts effects, is `make bench-recovery`.
"""

from collections.abc import Sequence

import httpx2
import pytest

from demo.environment import FLEET, Environment
from tests.support.applied import Site
from tests.support.fleet_tasks import (
    SHORTEST,
    answer_of,
    ended_calls,
    found,
    gateway_of,
    pods_of,
    submitted,
    succeeded,
    workers_of,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("demo"),
    pytest.mark.timeout(2400, func_only=True),
]

TASKS = 20


@pytest.mark.holds(
    "recovery.md",
    "A worker that is killed: the same keys go again, and an Unsafe call waits for somebody's word",
)
@pytest.mark.holds("recovery.md", "A worker that is told to stop hands over")
@pytest.mark.once
def test_twenty_tasks_are_answered_though_their_workers_are_deleted(demo: Environment) -> None:
    site = Site(demo.kubectl)
    with gateway_of(demo.kubectl, FLEET, demo.token()) as client:
        tasks = [submitted(client, SHORTEST) for _ in range(TASKS)]
        lost = delete_one_at_work(site, client, tasks, "--grace-period=0", "--force")
        delete_one_at_work(site, client, tasks)
        site.until(lambda: all(succeeded(client, task) for task in tasks), "AgentFleet", FLEET, "all answers")
        ended = [found(client, task) for task in tasks]
    assert any(lost in workers_of(task)[:-1] for task in ended), "nobody had to take a task over"
    for task in ended:
        assert answer_of(task).strip()
        assert len(set(ended_calls(task))) == len(ended_calls(task)), "a finished call was made again"


def delete_one_at_work(site: Site, client: httpx2.Client, tasks: Sequence[str], *how: str) -> str:
    """Delete a worker pod that has a task; its name."""

    def at_work() -> str:
        pods = pods_of(site, FLEET, "worker")
        stay = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        running = [task for task in (found(client, task) for task in tasks) if task["status"] == "Running"]
        return next((worker for worker in (workers_of(task)[-1] for task in running) if worker in stay), "")

    worker: str = site.until(at_work, "AgentFleet", FLEET, "a worker with a task")
    site.kubectl.run("delete", "pod", worker, "--wait=false", *how)
    return worker
