"""A fleet whose image brings the agent and its tools gets the next image while its tasks book rooms.

The agent is examples/agents/travel.py. Its next version asks for other cities, so a task that went over to it
would end as Invalid. What the operator decides is operator/tests/controllers/agent_fleet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from demo.environment import ROOT, Environment
from leaks.planted import planted
from local_cluster import images
from tests.support.applied import Site, example
from tests.support.desk import TOOL, Desk, desk
from tests.support.fleet_tasks import found, gateway_of, pods_of, submitted, succeeded, workers_of
from tests.support.stand_ins import doubles

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400, func_only=True)]

NAME = "travel"
KEY = planted("a-key-of-mine")
TASKS = 3
CITIES = '("Lisbon", "Porto", "Faro")'
OTHER_CITIES = '("Oslo", "Bergen")'
DOCKERFILE = """
ARG RUNTIME_IMAGE
FROM ${RUNTIME_IMAGE}
COPY *.py /opt/flotilla/app/
"""


def agents_image(folder: Path, runtime: str) -> str:
    """The reference of an image with the agent, the same with other cities, and a tool at the desk."""
    agent = (ROOT / "examples" / "agents" / "travel.py").read_text()
    assert CITIES in agent
    contents = {"travel.py": agent, "north.py": agent.replace(CITIES, OTHER_CITIES), "at_desk.py": TOOL}
    for name, text in {**contents, "Dockerfile": DOCKERFILE}.items():
        (folder / name).write_text(text)
    return images.build_and_import(
        name=NAME,
        dockerfile=folder / "Dockerfile",
        context=folder,
        paths=tuple(contents),
        arguments={"RUNTIME_IMAGE": runtime},
    )


def fleet(image: str, module: str) -> dict[str, Any]:
    return example(
        "AgentFleet",
        NAME,
        agent={"entrypoint": f"{module}:agent"},
        image=image,
        models=[{"role": "Default", "modelRef": {"name": NAME}}],
        indexes=[],
        tools=[
            {"name": "weather", "python": f"{module}:weather", "effect": "Pure"},
            {"name": "book", "python": "at_desk:book", "effect": "Idempotent", "timeoutSeconds": 300},
        ],
        workers={"maxReplicas": 1},
        gateway={"replicas": 1, "auth": {"mode": "Secret", "secretRef": {"name": NAME}}},
    )


@pytest.mark.holds("agent-code.md", "The example runs, survives a crash and books once")
@pytest.mark.holds(
    "tasks.md",
    "A task keeps the revision of its submission, and the workers of an older one stay until none "
    "of its tasks is left",
)
@pytest.mark.once
def test_tasks_end_with_the_image_they_began_with_and_book_once(
    installed: Environment, site: Site, double: str, tmp_path: Path
) -> None:
    runtime = installed.build_images()["runtime"]
    site.apply(doubles(NAME, double))
    key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {"me": KEY}}
    site.apply(key)
    image = agents_image(tmp_path, runtime)
    site.apply(fleet(image, "travel"))
    with desk(site, runtime) as bookings:
        site.wait("AgentFleet", NAME, "Ready", "True")
        before = revision(site)
        with gateway_of(site.kubectl, NAME, KEY) as client:
            older = begun(site, client, bookings)
            gateways = names(site, "gateway")
        site.apply(fleet(images.retag({NAME: image}, "next")[NAME], "north"))
        site.until(lambda: not gateways & names(site, "gateway"), "AgentFleet", NAME, "another gateway")
        site.wait("AgentFleet", NAME, "Ready", "True")
        with gateway_of(site.kubectl, NAME, KEY) as client:
            newer = begun(site, client, bookings)
            bookings.answer()
            ended = [answered(site, client, task) for task in (*older, *newer)]
        assert [task["result"]["asked"] for task in ended] == [3] * TASKS + [2] * TASKS
        assert len(set(bookings.booked())) == len(bookings.booked()) == 2 * TASKS
    after = revision(site)
    for task, expected in zip(ended, [before] * TASKS + [after] * TASKS, strict=True):
        (worker,) = workers_of(task)
        assert worker.startswith(f"{NAME}-worker-{expected}-")
    of_before = f"{NAME}-worker-{before}-"
    site.until(
        lambda: not any(name.startswith(of_before) for name in names(site, "worker")),
        "AgentFleet",
        NAME,
        "no worker of the older revision",
    )


def begun(site: Site, client: httpx2.Client, bookings: Desk) -> Sequence[str]:
    """New tasks, each of which has booked and has no answer yet."""
    already = len(bookings.booked())
    tasks = [submitted(client, f"Where to, traveller {number}?") for number in range(TASKS)]
    site.until(lambda: len(bookings.booked()) == already + TASKS, "AgentFleet", NAME, f"{TASKS} bookings")
    return tasks


def answered(site: Site, client: httpx2.Client, task: str) -> dict[str, Any]:
    site.until(lambda: succeeded(client, task), "AgentFleet", NAME, "the answer of a task")
    return found(client, task)


def revision(site: Site) -> str:
    """The revision that new tasks get."""
    return str(site.objects.get("AgentFleet", NAME)["status"]["revision"])


def names(site: Site, component: str) -> set[str]:
    """The names of the fleet's pods of this component, those that are ending too."""
    return {pod["metadata"]["name"] for pod in pods_of(site, NAME, component)}
