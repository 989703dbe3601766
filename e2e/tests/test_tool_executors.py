"""A Python tool runs in an executor, which comes from zero with its call and goes again: real pods.

The image is the runtime's own, and the tool a function of Python itself, so nothing is built. What becomes of
calls when executors are lost is runtime/tests/agent/executor/test_lost_executors.py.
"""

import json
from typing import Any

import pytest

from demo.environment import Environment
from leaks.planted import planted
from tests.support.applied import Site, example
from tests.support.fleet_tasks import found, gateway_of, pods_of, submitted, succeeded
from tests.support.stand_ins import doubles

pytestmark = [pytest.mark.cluster, pytest.mark.waits_long, pytest.mark.timeout(2400, func_only=True)]

NAME = "hands"
KEY = planted("a-key-of-mine")
TOOL = "where"
PLAN = {"turns": [{"tool_calls": [{"name": TOOL, "arguments": {}}]}, {"content": "There."}]}
QUESTION = f"Where are you? [[plan {json.dumps(PLAN)}]]"
LITTLE = {"requests": {"cpu": "10m", "memory": "48Mi"}}


def fleet(image: str) -> dict[str, Any]:
    return example(
        "AgentFleet",
        NAME,
        image=image,
        models=[{"role": "Default", "modelRef": {"name": NAME}}],
        indexes=[],
        tools=[{"name": TOOL, "python": "platform:node", "effect": "Unsafe"}],
        workers={"minReplicas": 0, "maxReplicas": 1, "resources": LITTLE},
        toolExecutors={"maxReplicas": 1, "resources": LITTLE},
        gateway={"replicas": 1, "auth": {"mode": "Secret", "secretRef": {"name": NAME}}},
    )


@pytest.mark.holds(
    "tools.md",
    "Tool executors come with the first call and go after a quiet minute; each revision has its own",
)
@pytest.mark.once
def test_executors_come_from_zero_with_a_call_and_go_again(
    installed: Environment, site: Site, double: str
) -> None:
    site.apply(doubles(NAME, double))
    key = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "stringData": {"me": KEY}}
    site.apply(key)
    site.apply(fleet(installed.build_images()["runtime"]))
    site.wait("AgentFleet", NAME, "Ready", "True")
    assert executors(site) == []
    with gateway_of(site.kubectl, NAME, KEY) as client:
        task = submitted(client, QUESTION)
        until(site, lambda: executors(site), "an executor for the call")
        until(site, lambda: succeeded(client, task), "the answer")
        assert found(client, task)["usage"]["steps"] == 2, "the call of the tool was made between two turns"
    until(site, lambda: executors(site) == [], "no executor after a quiet minute")
    until(site, lambda: shown(site) == {"desired": 0, "ready": 0}, "status.toolExecutors")


def until(site: Site, holds: Any, wanted: str) -> None:
    site.until(holds, "AgentFleet", NAME, wanted)


def executors(site: Site) -> list[str]:
    """The names of the fleet's executor pods, those that are ending too."""
    return [pod["metadata"]["name"] for pod in pods_of(site, NAME, "executor")]


def shown(site: Site) -> dict[str, int]:
    status: dict[str, int] = site.objects.get("AgentFleet", NAME)["status"].get("toolExecutors", {})
    return status
