"""A fleet whose Python tools run in executors: from zero and back, over an update, and until they go."""

from typing import Any

import pytest

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    DEPLOYMENTS,
    PODS,
    SECRETS,
    STATEFUL_SETS,
    Manifest,
)
from flotilla_runtime import contract
from tests.scenes.scene import Scene
from tests.scenes.test_fleet_revisions import Fleet
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes

WITH_A_TOOL: dict[str, Any] = {
    "image": "registry.example/agents:1",
    "tools": [{"name": "t", "python": "app:t"}],
}


def calls(fleet: Fleet, revision: str, waiting: int = 0, running: int = 0) -> None:
    counts = contract.ToolRequestsOfRevision(waiting=waiting, running=running)
    fleet.tasks.requests = {**fleet.tasks.requests, revision: counts}


def executors(scene: Scene, revision: str) -> Manifest | None:
    return scene.api.get(DEPLOYMENTS, NAMESPACE, f"support-executor-{revision}")


def users(scene: Scene) -> str:
    """Those that Redis knows."""
    redis = scene.the(STATEFUL_SETS, "support-redis")
    return str(redis["spec"]["template"]["metadata"]["annotations"]["flotilla.dev/redis-users"])


def shown(fleet: Fleet) -> dict[str, int]:
    found: dict[str, int] = fleet.status.get("toolExecutors") or {}
    return found


async def at_a_call(scene: Scene) -> tuple[Fleet, str]:
    """A fleet with an executor that runs a call of a task, and its revision."""
    fleet = Fleet(scene)
    revision = await fleet.is_made(**WITH_A_TOOL, toolExecutors={})
    fleet.tasks.are(revision, running=1)
    calls(fleet, revision, running=1)
    await scene.until(lambda: shown(fleet) == {"desired": 1, "ready": 1})
    return fleet, revision


@pytest.mark.holds(
    "tools.md",
    "Tool executors come with the first call and go after a quiet minute; each revision has its own",
)
async def test_executors_come_with_the_first_call_and_go_when_it_is_quiet(scene: Scene) -> None:
    fleet = Fleet(scene)
    revision = await fleet.is_made(**WITH_A_TOOL, toolExecutors={"concurrency": 2})
    assert shown(fleet) == {"desired": 0, "ready": 0}
    calls(fleet, revision, waiting=3)
    await scene.until(lambda: fleet.says("ToolsReady", "False", "ExecutorsStarting"))
    await scene.until(lambda: shown(fleet) == {"desired": 2, "ready": 2})
    await scene.until(lambda: fleet.says("ToolsReady", "True"))
    calls(fleet, revision)
    await scene.until(lambda: shown(fleet) == {"desired": 0, "ready": 0})
    assert executors(scene, revision) is not None


@pytest.mark.holds(
    "tools.md", "Redis knows a user of executors while a fleet has functions for them, or executors are left"
)
@pytest.mark.holds(
    "tools.md",
    "Executors have a user of Redis of their own, which exists while there are any and reaches "
    "their queue alone",
)
async def test_redis_learns_of_the_executors_user_when_there_are_any(scene: Scene) -> None:
    fleet = Fleet(scene)
    await fleet.is_made(**WITH_A_TOOL)
    assert scene.api.get(SECRETS, NAMESPACE, "support-redis-executor") is None
    assert users(scene) == "gateway,worker"
    known = scene.the(AGENT_FLEETS, "support")
    scene.cluster.merge(AGENT_FLEETS, known, {"spec": {"toolExecutors": {}}})
    await scene.until(lambda: users(scene) == "gateway,worker,executor")
    assert scene.api.get(SECRETS, NAMESPACE, "support-redis-executor") is not None
    await scene.until(lambda: fleet.says("Ready", "True"))


@pytest.mark.holds(
    "tools.md", "Redis knows a user of executors while a fleet has functions for them, or executors are left"
)
async def test_redis_has_no_user_of_executors_for_a_fleet_without_functions(scene: Scene) -> None:
    fleet = Fleet(scene)
    await fleet.is_made(toolExecutors={})
    assert scene.api.get(SECRETS, NAMESPACE, "support-redis-executor") is None
    assert users(scene) == "gateway,worker"


@pytest.mark.holds(
    "tools.md", "Redis knows a user of executors while a fleet has functions for them, or executors are left"
)
async def test_redis_keeps_the_executors_user_until_the_last_of_them_has_gone(scene: Scene) -> None:
    fleet, old = await at_a_call(scene)
    known = scene.the(AGENT_FLEETS, "support")
    scene.cluster.merge(AGENT_FLEETS, known, {"spec": {"toolExecutors": None, "agent": {"prompt": "new"}}})
    await scene.pass_time(600)
    assert executors(scene, old) is not None
    assert users(scene) == "gateway,worker,executor"
    calls(fleet, old)
    fleet.tasks.are(old)
    await scene.until(lambda: executors(scene, old) is None)
    await scene.until(lambda: users(scene) == "gateway,worker")
    await scene.until(lambda: fleet.says("Ready", "True"))


@pytest.mark.holds(
    "tools.md",
    "Tool executors come with the first call and go after a quiet minute; each revision has its own",
)
async def test_executors_of_an_older_revision_live_while_its_workers_do(scene: Scene) -> None:
    fleet, old = await at_a_call(scene)
    new = await fleet.changes()
    calls(fleet, old)
    await scene.until(lambda: executors(scene, new) is not None)
    await scene.pass_time(600)
    assert executors(scene, old) is not None
    assert shown(fleet) == {"desired": 1, "ready": 1}, "between two calls it stays"
    fleet.tasks.are(old)
    await scene.until(lambda: executors(scene, old) is None)
    known = scene.the(AGENT_FLEETS, "support")
    scene.cluster.merge(AGENT_FLEETS, known, {"spec": {"toolExecutors": None}})
    await scene.until(lambda: executors(scene, new) is None)
    await scene.until(lambda: not shown(fleet))
    assert not [
        pod
        for pod in scene.api.listed(PODS)
        if pod["metadata"]["labels"].get(contract.LABEL_COMPONENT) == "executor"
    ]
