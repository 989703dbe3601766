"""Whole statuses of a fleet as golden files: every field and every message, in the scenes that matter.

One row for each reason is in test_reasons.py, the figures are in test_plan.py.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.builders.agent_fleet import agent_fleet, served_index, served_model, worker_of
from tests.controllers.agent_fleet.test_plan import IDLE, Stage
from tests.support.statuses import status_difference, status_text

GOLDEN = Path(__file__).parent / "golden"
WHOLE = "fleet-that-works.yaml"
WITH_INDEX: dict[str, Any] = {"indexes": [{"name": "h", "indexRef": {"name": "handbook"}}]}


def working() -> Stage:
    """Everything runs, and the gateway reports tasks."""
    stage = Stage(served_model(), served_index(), agent_fleet(**WITH_INDEX))
    stage.everything_runs()
    stage.run("Deployment", worker_of(agent_fleet(**WITH_INDEX)), 1, 1)
    stage.report(
        IDLE.model_copy(
            update={
                "waiting": 2,
                "in_flight": 1,
                "ended": {"Completed": 30, "ModelFailed": 8, "Cancelled": 2},
                "recovered": 3,
                "tokens": 12_345,
                "p50_seconds": 1.2345,
                "p95_seconds": 9.876,
                "wait_p95_seconds": 0.5,
                "busy_seconds": {"Queue": 50.0, "Model/llama": 40.0},
            }
        )
    )
    return stage


async def a_fleet_that_works() -> str:
    return await status_at(working(), agent_fleet(**WITH_INDEX))


async def a_new_fleet_whose_model_is_missing() -> str:
    fleet = agent_fleet(
        indexes=WITH_INDEX["indexes"],
        gateway={"auth": {"mode": "Secret", "secretRef": {"name": "callers"}}},
    )
    return await status_at(Stage(served_index(activeGeneration=None, phase="Building")), fleet)


async def a_fleet_whose_password_was_lost_an_hour_later() -> str:
    stage, fleet = working(), agent_fleet(**WITH_INDEX)
    before = await stage.plan(fleet)
    stage.secrets.entries = {}
    stage.now += timedelta(hours=1)
    return await status_at(stage, {**fleet, "status": before.status})


async def a_paused_fleet_whose_gateways_reach_no_redis() -> str:
    stage = Stage(served_model(), redis={"url": "redis://elsewhere:6379"})
    stage.everything_runs()
    stage.measurements.forget("uid-pod")
    redis = {"redis": {"mode": "External", "urlSecretRef": {"name": "redis"}}}
    return await status_at(stage, agent_fleet(queue=redis, paused=True, shiny=True, generation=4))


async def status_at(stage: Stage, fleet: dict[str, Any]) -> str:
    plan = await stage.plan(fleet)
    assert plan.status is not None
    return status_text(fleet, plan.status)


async def test_the_status_of_a_fleet_that_works_is_as_reviewed(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / WHOLE, await a_fleet_that_works())


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(a_new_fleet_whose_model_is_missing, id="new-fleet-without-its-model"),
        pytest.param(a_fleet_whose_password_was_lost_an_hour_later, id="fleet-that-lost-its-password"),
        pytest.param(
            a_paused_fleet_whose_gateways_reach_no_redis,
            id="paused-fleet-without-the-redis-of-the-users",
        ),
    ],
)
async def test_what_differs_from_it_in_other_scenes_is_as_reviewed(
    scene: Callable[[], Any], golden: Callable[[Path, str], None], request: pytest.FixtureRequest
) -> None:
    whole = await a_fleet_that_works()
    golden(
        GOLDEN / f"{request.node.callspec.id}.diff",
        status_difference(await scene(), file=WHOLE, whole=whole),
    )
